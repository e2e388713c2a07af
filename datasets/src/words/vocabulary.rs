//! The words of a text, numbered.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use flate2::Crc;

use super::for_each_word;
use crate::error::{Error, Place, Result};
use crate::excerpt::cut;
use crate::limits::MOST_SYMBOLS;
use crate::lines::Lines;
use crate::translation::write;

/// The end of a line.
pub const END: &str = "<eos>";
/// Every word that the vocabulary does not have.
pub const UNKNOWN: &str = "<unk>";

/// Words with their ids, from the most frequent one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordVocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
    end: u32,
    unknown: u32,
}

/// From the most frequent one on; words that occur alike in alphabetical order.
fn by_count((a, n): &(String, u64), (b, m): &(String, u64)) -> Ordering {
    m.cmp(n).then_with(|| a.cmp(b))
}

/// The first of the words, `most` together with the two marks; `<unk>` stands for all others.
fn limited(words: Vec<(String, u64)>, most: usize) -> Result<Vec<(String, u64)>> {
    if most < 2 {
        return Err(Error::Setting {
            name: "words of a vocabulary",
            got: most.to_string(),
            expected: format!("at least 2: {END} and {UNKNOWN}"),
        });
    }
    let is_mark = |word: &str| word == END || word == UNKNOWN;
    let (mut kept, rest): (Vec<_>, Vec<_>) = words.into_iter().partition(|(word, _)| is_mark(word));
    let room = most - kept.len();
    let others: u64 = rest.iter().skip(room).map(|(_, count)| count).sum();
    kept.extend(rest.into_iter().take(room));
    let unknown = kept.iter_mut().filter(|(word, _)| word == UNKNOWN);
    unknown.for_each(|(_, count)| *count += others);
    Ok(kept)
}

impl WordVocabulary {
    /// All words of a text, `<eos>` and `<unk>` among them, by how often they occur; words that occur alike in
    /// alphabetical order. A text without `<unk>` gets it as the last one. With `most` only so many words, all others
    /// being `<unk>`, which comes as often as they do together.
    ///
    /// # Errors
    /// If the file cannot be read, has no words, or more than a million different ones; and if `most` leaves no room for
    /// `<eos>` and `<unk>`.
    pub fn of_file(path: &Path, most: Option<usize>) -> Result<Self> {
        // There in any case, and counted among the most that there may be.
        let mut counts = HashMap::from([(UNKNOWN.to_string(), 0u64)]);
        for_each_word(path, |word| {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.to_string(), 1);
                }
            }
            match counts.len() <= MOST_SYMBOLS {
                true => Ok(()),
                false => Err(Error::TooMuch {
                    path: path.to_path_buf(),
                    what: "different words",
                    most: MOST_SYMBOLS as u64,
                }),
            }
        })?;
        let mut words: Vec<(String, u64)> = counts.into_iter().collect();
        words.sort_by(by_count);
        if let Some(most) = most.filter(|&most| most < words.len()) {
            words = limited(words, most)?;
            words.sort_by(by_count);
        }
        let words = words.into_iter().map(|(word, _)| word);
        Self::new(path, words.collect())
    }

    /// A checksum of all words, in order.
    pub fn checksum(&self) -> u32 {
        let mut words = Crc::new();
        for word in &self.words {
            words.update(word.as_bytes());
            words.update(b"\n");
        }
        words.sum()
    }

    /// A file with a word on each line, as [`WordVocabulary::write`] writes it.
    ///
    /// # Errors
    /// For a line that is no single word, a word that is there twice, and a file without `<eos>` or `<unk>`.
    pub fn read(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let mut words = Vec::new();
        while let Some((number, line)) = lines.next_of_list("words")? {
            let mut parts = line.split_whitespace();
            match (parts.next(), parts.next()) {
                (Some(word), None) => words.push(word.to_string()),
                _ => {
                    return Err(Error::WordLine {
                        path: path.to_path_buf(),
                        place: Place::Line(number),
                        got: format!("{:?}", cut(&line)),
                        expected: "one word".into(),
                    });
                }
            }
        }
        Self::new(path, words)
    }

    fn new(path: &Path, words: Vec<String>) -> Result<Self> {
        let mut ids = HashMap::with_capacity(words.len());
        for (id, word) in words.iter().enumerate() {
            if let Some(first) = ids.insert(word.clone(), id as u32) {
                return Err(Error::WordLine {
                    path: path.to_path_buf(),
                    place: Place::Line(id + 1),
                    got: format!("{word:?}, which is on line {}, too", first + 1),
                    expected: "every word once".into(),
                });
            }
        }
        let find = |word: &str| {
            ids.get(word).copied().ok_or_else(|| Error::Inconsistent {
                path: path.to_path_buf(),
                reason: format!(
                    "no {word} among {} words; take the vocabulary of a language model",
                    words.len()
                ),
            })
        };
        let (end, unknown) = (find(END)?, find(UNKNOWN)?);
        Ok(Self {
            words,
            ids,
            end,
            unknown,
        })
    }

    /// Writes a word a line, in the order of their ids. The file is there whole or as it was before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write::whole(path, |file| {
            self.words
                .iter()
                .try_for_each(|word| writeln!(file, "{word}"))
        })
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The id of a word, that of `<unk>` for one that is not there.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(self.unknown)
    }

    /// The word of an id.
    pub fn word(&self, id: u32) -> Option<&str> {
        self.words.get(id as usize).map(String::as_str)
    }

    /// The id of `<eos>`.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The id of `<unk>`.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// All words in the order of their ids.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}
