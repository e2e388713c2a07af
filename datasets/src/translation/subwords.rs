//! What turns a line into token ids, and ids into a line.

use std::path::{Path, PathBuf};

use super::learned::{BLANK, Learned};
use super::texts::Fingerprint;
use super::{BpeCodes, Dictionary, remove_marks};
use crate::error::{Error, Result};
use crate::text::{fits, tokenizer_error};

/// The names that are written, and those that are read, too.
const TOKENIZER: &str = "tokenizer.json";
const DICTIONARY: [&str; 2] = ["dict.txt", "dict.txt.gz"];
const CODES: [&str; 4] = ["codes.txt", "codes.txt.gz", "code", "code.gz"];

/// Subwords of one language or several: learned ones, or fairseq's.
///
/// Special ids are the same for both kinds: 0 `<s>`, 1 `<pad>`, 2 `</s>`, 3 `<unk>`.
#[derive(Debug, Clone)]
pub struct Subwords(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Learned(Box<Learned>),
    Fairseq(Box<Dictionary>, Option<Box<BpeCodes>>),
}

impl Subwords {
    /// fairseq's: words are cut by the codes, if there are any, and looked up in the dictionary.
    ///
    /// Without codes a line must be in pieces already, `ge@@ gl@@ ä@@ tteten st@@ einen`.
    pub fn fairseq(dictionary: Dictionary, codes: Option<BpeCodes>) -> Self {
        Self(Kind::Fairseq(Box::new(dictionary), codes.map(Box::new)))
    }

    /// See [`learn_subwords`](super::learn_subwords).
    pub(super) fn of_merges(tokens: &[String], merges: &[(String, String)]) -> Result<Self> {
        let learned = Learned::of_merges(tokens, merges)?;
        Ok(Self(Kind::Learned(Box::new(learned))))
    }

    /// The subwords of a folder: `tokenizer.json` of learned ones; else `dict.txt`, and `codes.txt` or `code` if
    /// there is such a file, each plain or with `.gz` behind.
    ///
    /// # Errors
    /// If there is none of the files, one cannot be read, or the tokenizer is of another kind than
    /// [`learn_subwords`](super::learn_subwords) makes.
    pub fn from_folder(dir: &Path) -> Result<Self> {
        let whole = dir.join(TOKENIZER);
        if whole.is_file() {
            let learned = Learned::from_file(&whole)?;
            return Ok(Self(Kind::Learned(Box::new(learned))));
        }
        let dictionary = find(dir, &DICTIONARY).ok_or_else(|| Error::NotFound {
            what: "subwords".to_string(),
            dir: dir.to_path_buf(),
            tried: format!("{TOKENIZER}, {}", DICTIONARY.join(", ")),
        })?;
        let codes = find(dir, &CODES).map(|path| BpeCodes::from_file(&path));
        Ok(Self::fairseq(
            Dictionary::from_file(&dictionary)?,
            codes.transpose()?,
        ))
    }

    /// Writes what [`Subwords::from_folder`] reads into a folder, which is made if it is not there:
    /// `tokenizer.json`, or `dict.txt` and `codes.txt`. Files of the same names are replaced.
    ///
    /// # Errors
    /// If the folder has a file by which other subwords would be read, or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let others: &[&str] = match &self.0 {
            Kind::Learned(_) => &[],
            Kind::Fairseq(_, Some(_)) => &[TOKENIZER],
            Kind::Fairseq(_, None) => &[TOKENIZER, CODES[0], CODES[1], CODES[2], CODES[3]],
        };
        if let Some(other) = find(dir, others) {
            return Err(Error::Inconsistent {
                path: other,
                reason: "it belongs to other subwords than those that are to be saved here, and would be read instead \
                         of them or with them; remove it, or choose another folder"
                    .to_string(),
            });
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        match &self.0 {
            Kind::Learned(learned) => learned.save(&dir.join(TOKENIZER)),
            Kind::Fairseq(dictionary, codes) => {
                if let Some(codes) = codes {
                    codes.save(&dir.join(CODES[0]))?;
                }
                dictionary.save(&dir.join(DICTIONARY[0]))
            }
        }
    }

    /// The ids of a line, without an end; none of a line of blanks. Never one of `<s>`, `<pad>` and `</s>` with
    /// learned subwords; with a dictionary where the text has just these symbols.
    ///
    /// # Errors
    /// If the line is longer than [`LONGEST_LINE`](crate::limits::LONGEST_LINE) bytes, or the tokenizer refuses it.
    pub fn encode(&self, line: &str) -> Result<Vec<u32>> {
        match &self.0 {
            Kind::Learned(learned) => learned.encode(line),
            Kind::Fairseq(dictionary, codes) => {
                fits(line.len())?;
                match codes {
                    Some(codes) => Ok(dictionary.encode(&codes.apply(line))),
                    None => Ok(dictionary.encode(line)),
                }
            }
        }
    }

    /// The line of ids. `<s>`, `<pad>` and `</s>` are left out; what is unknown is `<unk>`. Pieces of words are
    /// joined: the line is as it was encoded up to blanks, unless a character is unknown.
    ///
    /// # Errors
    /// If there is no such id.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let line = match &self.0 {
            Kind::Learned(learned) => learned.decode(ids),
            Kind::Fairseq(dictionary, _) => {
                let ids = ids.iter().filter(|id| **id >= Dictionary::UNK);
                let symbols: Option<Vec<&str>> = ids.map(|id| dictionary.symbol(*id)).collect();
                symbols.map(|symbols| remove_marks(&symbols.join(" ")))
            }
        };
        line.ok_or_else(|| {
            let (largest, size) = (ids.iter().max().copied().unwrap_or(0), self.vocab_size());
            let why = format!(
                "id {largest}, but there are {size} subwords; were these ids made with others?"
            );
            tokenizer_error(None, why)
        })
    }

    /// Whether they cut words by codes, to which the marks of a line of pieces (`ge@@ gl@@`) are characters like others.
    pub fn have_codes(&self) -> bool {
        matches!(&self.0, Kind::Fairseq(_, Some(_)))
    }

    /// Whether they were learned of a text that was in pieces already: what they say has marks.
    pub fn have_marks(&self) -> bool {
        let Kind::Learned(learned) = &self.0 else {
            return false;
        };
        let mut words = learned
            .tokens()
            .iter()
            .map(|token| token.trim_start_matches(BLANK));
        words.any(|word| word.len() > 2 && word.ends_with("@@"))
    }

    /// Whether they know apostrophes or quotation marks as Moses escapes them (`&apos;s`, `&quot;`) and not as they are: to
    /// a dictionary of escaped text those of other text are unknown.
    pub fn are_escaped(&self) -> bool {
        let Kind::Fairseq(dictionary, _) = &self.0 else {
            return false;
        };
        let knows = |mark: &str| dictionary.index(mark) != Dictionary::UNK;
        let mut symbols = (0..dictionary.len() as u32).filter_map(|id| dictionary.symbol(id));
        !knows("'")
            && !knows("\"")
            && symbols.any(|symbol| symbol.contains("&apos;") || symbol.contains("&quot;"))
    }

    /// The number of ids, special ones included: the rows of a model's embedding.
    pub fn vocab_size(&self) -> usize {
        match &self.0 {
            Kind::Learned(learned) => learned.len(),
            Kind::Fairseq(dictionary, _) => dictionary.len(),
        }
    }

    /// The id of `<s>`: 0.
    pub fn bos(&self) -> u32 {
        Dictionary::BOS
    }

    /// The id of `<pad>`, which fills up shorter sentences of a batch: 1.
    pub fn pad(&self) -> u32 {
        Dictionary::PAD
    }

    /// The id of `</s>`, the end of a sentence, and what a decoder begins with: 2.
    pub fn eos(&self) -> u32 {
        Dictionary::EOS
    }

    /// The id of `<unk>`: 3.
    pub fn unk(&self) -> u32 {
        Dictionary::UNK
    }

    /// Adds what decides about the ids of a text.
    pub(super) fn describe(&self, fingerprint: &mut Fingerprint) -> Result<()> {
        match &self.0 {
            Kind::Learned(learned) => fingerprint.bytes(learned.content()?.as_bytes()),
            Kind::Fairseq(dictionary, codes) => {
                fingerprint.number(dictionary.len() as u64);
                let symbols = (0..dictionary.len() as u32).filter_map(|id| dictionary.symbol(id));
                symbols.for_each(|symbol| fingerprint.bytes(symbol.as_bytes()));
                if let Some(codes) = codes {
                    codes.describe(fingerprint);
                }
            }
        }
        Ok(())
    }
}

/// The first of these files that a folder has.
fn find(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut paths = names.iter().map(|name| dir.join(name));
    paths.find(|path| path.is_file())
}
