//! A text as one run of token ids, cut into sequences of one length.

use std::path::Path;

use tokenizers::ModelWrapper;

use super::TextFile;
use crate::error::{Error, Result};
use crate::id_store::{IdStore, Origin};
use crate::text::{TextEncoder, called, tokenizer_error};

/// What masking has to know of a tokenizer's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// What a sequence begins with: `[CLS]`, say.
    pub first: u32,
    /// What it ends with: `[SEP]`, say.
    pub last: u32,
    /// What hides a token: `[MASK]` or `<mask>`.
    pub mask: u32,
    /// The ids that are no special tokens, ascending.
    plain: Vec<u32>,
    /// The ids of what goes on with a word, ascending.
    continuing: Vec<u32>,
    /// The ids of what ends a sentence.
    ends: Vec<u32>,
}

impl Pieces {
    /// Those of an encoder's tokenizer. WordPiece marks what goes on with a word (`##`), byte-level and SentencePiece
    /// vocabularies what begins one; without such marks each token is a word.
    ///
    /// # Errors
    /// If the tokenizer has no mask, or puts other than one token before and one behind a text.
    pub fn of(encoder: &TextEncoder) -> Result<Self> {
        let tokenizer = encoder.tokenizer();
        let around = called(None, || tokenizer.encode_fast("", true))?;
        let &[first, last] = around.get_ids() else {
            let got = around.get_ids().len();
            return Err(tokenizer_error(
                None,
                format!(
                    "it puts {got} tokens around a text, not one before and one behind; take a BERT's or RoBERTa's"
                ),
            ));
        };
        let masks = ["[MASK]", "<mask>"];
        let mask = masks.iter().find_map(|name| tokenizer.token_to_id(name));
        let mask = mask.ok_or_else(|| {
            tokenizer_error(
                None,
                "no token [MASK] or <mask>; take the tokenizer of a masked language model",
            )
        })?;
        let vocabulary = tokenizer.get_vocab(true);
        let has = |mark: &str| vocabulary.keys().any(|token| token.starts_with(mark));
        // By the kind of vocabulary: a byte-level one may hold `##` as text, WordPiece's `Ġ` as a letter.
        let is_word_piece = matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_));
        let continues = is_word_piece && has("##");
        // No byte-level vocabulary has a `▁`, while a SentencePiece one may have `Ġ` as a letter.
        let starts = ["▁", "Ġ"]
            .into_iter()
            .find(|mark| !is_word_piece && has(mark));
        let begins_word = |token: &str| match starts {
            _ if continues => !token.starts_with("##"),
            Some(mark) => token.starts_with(mark),
            None => true,
        };
        let special = tokenizer.get_added_tokens_decoder();
        let is_special = |id: &u32| special.get(id).is_some_and(|token| token.special);
        let mut continuing = Vec::new();
        let mut plain = Vec::with_capacity(vocabulary.len());
        for (token, id) in &vocabulary {
            if !begins_word(token) {
                continuing.push(*id);
            }
            if !is_special(id) {
                plain.push(*id);
            }
        }
        plain.sort_unstable();
        continuing.sort_unstable();
        let ends = [".", "!", "?"].map(|end| [end.into(), format!("Ġ{end}"), format!("▁{end}")]);
        let ends = ends.iter().flatten();
        let ends = ends.filter_map(|end| tokenizer.token_to_id(end)).collect();
        match plain.is_empty() {
            true => Err(tokenizer_error(None, "all of its tokens are special ones")),
            false => Ok(Self {
                first,
                last,
                mask,
                plain,
                continuing,
                ends,
            }),
        }
    }

    /// Whether a word begins with this token; ids that the tokenizer does not have are words.
    pub fn begins(&self, id: u32) -> bool {
        self.continuing.binary_search(&id).is_err()
    }

    /// Whether a sentence ends with this token: `.`, `!` or `?`.
    pub fn ends_sentence(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether this is a token of text, no special one.
    pub fn is_plain(&self, id: u32) -> bool {
        self.plain.binary_search(&id).is_ok()
    }

    /// The ids that are no special tokens, ascending.
    pub fn plain(&self) -> &[u32] {
        &self.plain
    }
}

/// What the tokenizer calls a word that it does not know.
fn unknown(encoder: &TextEncoder) -> &'static str {
    let names = ["[UNK]", "<unk>"];
    let mut known = names
        .into_iter()
        .filter(|name| encoder.tokenizer().token_to_id(name).is_some());
    known.next().unwrap_or("[UNK]")
}

/// Bytes of text that are made tokens of at a time.
const PORTION: usize = 1 << 20;

/// The token ids of a text in one run, in sequences of one length; clones share the memory.
#[derive(Debug, Clone)]
pub struct Packed {
    ids: IdStore,
    /// Tokens of text in a sequence.
    body: usize,
    pieces: Pieces,
}

impl Packed {
    /// What the tokenizer makes of `lines`, one behind the other, for sequences of the encoder's maximum length with the
    /// special tokens before and behind. What is left at the end and is no whole sequence is not used. A `[UNK]` in the
    /// text is `<unk>` to a tokenizer that calls it so. To a byte-level one a line begins with a blank, as
    /// [`TextEncoder::for_words`] has it: its first word would be a part of the line's before it.
    ///
    /// Memory: four bytes a token, and as much again while it is made.
    ///
    /// # Errors
    /// If the tokenizer refuses a line, has no mask, or there is no whole sequence.
    pub fn encode(encoder: &TextEncoder, lines: &[String]) -> Result<Self> {
        let pieces = Pieces::of(encoder)?;
        let encoder = &encoder.clone().for_words();
        let ids = encoded(encoder, lines)?.concat();
        Self::new(IdStore::in_memory(ids), encoder, pieces)
    }

    /// The same of a file, whose tokens lie in the store `path`, which is made if it is not there, a portion of the text
    /// at a time; the system keeps in memory what is asked for. One that was made of another text, or by another
    /// tokenizer, is an error: what it was made of is told by checksums. The length of the sequences may be another.
    ///
    /// # Errors
    /// As [`Packed::encode`]; if the text cannot be read or says nothing, another process makes the store at this moment,
    /// the disk is full, or the store is damaged or another text's.
    pub fn of_file(encoder: &TextEncoder, text: &TextFile, path: &Path) -> Result<Self> {
        let pieces = Pieces::of(encoder)?;
        let encoder = &encoder.clone().for_words();
        let origin = Origin {
            fingerprint: u64::from(text.checksum()?) << 32 | u64::from(encoder.checksum()?),
            vocabulary: encoder.vocab_size(),
        };
        let ids = IdStore::of(path, origin, |sink| {
            let (mut portion, mut bytes) = (Vec::new(), 0);
            let mut done = |portion: &mut Vec<String>| {
                let ids = encoded(encoder, portion)?;
                portion.clear();
                ids.iter().try_for_each(|ids| sink(ids))
            };
            text.for_each_line(|line| {
                bytes += line.len();
                portion.push(line.to_string());
                match bytes < PORTION {
                    true => Ok(()),
                    false => {
                        bytes = 0;
                        done(&mut portion)
                    }
                }
            })?;
            done(&mut portion)
        })?;
        Self::new(ids, encoder, pieces)
    }

    fn new(ids: IdStore, encoder: &TextEncoder, pieces: Pieces) -> Result<Self> {
        let body = encoder.max_length().saturating_sub(2);
        if body == 0 || ids.len() < body {
            return Err(Error::Setting {
                name: "max_length",
                got: format!("{} for a text of {} tokens", encoder.max_length(), ids.len()),
                expected: "at least one whole sequence, with two special tokens in it; give more text or a smaller length".into(),
            });
        }
        Ok(Self { ids, body, pieces })
    }

    /// A checksum of all tokens.
    pub fn checksum(&self) -> u32 {
        self.ids.checksum()
    }

    /// How many tokens the text has.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// How many sequences it makes.
    pub fn len(&self) -> usize {
        self.ids.len() / self.body
    }

    /// Whether there are none; [`Packed::encode`] makes no such.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a sequence, special ones included.
    pub fn length(&self) -> usize {
        self.body + 2
    }

    /// What its tokenizer's ids are.
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The tokens of text of sequence `index`.
    ///
    /// # Errors
    /// If there are not as many sequences.
    pub fn body(&self, index: usize) -> Result<Vec<u32>> {
        match index < self.len() {
            true => self.ids.ids(index * self.body, self.body),
            false => Err(Error::Batch {
                reason: format!("sequence {index} of a text of {}", self.len()),
            }),
        }
    }

    /// `len` tokens of text from place `start` of sequence `index` on, across its end; at the end of the text the last
    /// that there are.
    pub(super) fn run(&self, index: usize, start: usize, len: usize) -> Result<Vec<u32>> {
        let start = index.saturating_mul(self.body).saturating_add(start);
        let start = start.min(self.ids.len().saturating_sub(len));
        self.ids.ids(start, len)
    }
}

/// The token ids of lines, on several threads.
fn encoded(encoder: &TextEncoder, lines: &[String]) -> Result<Vec<Vec<u32>>> {
    match unknown(encoder) {
        "[UNK]" => encoder.pieces(lines),
        own => {
            let lines = lines.iter().map(|line| line.replace("[UNK]", own));
            encoder.pieces(&lines.collect::<Vec<_>>())
        }
    }
}
