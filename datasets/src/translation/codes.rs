//! subword-nmt's byte-pair codes: words in pieces, all but the last of which end with `@@`.
//!
//! A file is `#version: 0.2` and a merge on each line, `left right`, the most frequent first; `</w>` ends the last
//! piece of a word. In version 0.1, which is also that of a file without such a line, `</w>` is a symbol of its own
//! before it is merged. A word starts as its characters; of all neighbours that are in the list those that stand
//! first in it are joined, everywhere in the word from left to right, until there are none.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::merge::{self, Piece, UNKNOWN};
use super::texts::Fingerprint;
use super::{bad_line, write};
use crate::error::{Error, Result};
use crate::excerpt::cut;
use crate::lines::Lines;

/// Ends the last piece of a word, in the file.
const END: &str = "</w>";
/// Ends all other pieces of a word, in text.
const CONTINUES: &str = "@@";
/// Words that are remembered, and bytes of the longest of them.
const REMEMBERED: usize = 1 << 16;
const LONGEST_REMEMBERED: usize = 64;

/// Where the pieces of a word end, in bytes.
type Ends = Arc<[u32]>;

/// The merges of a code file.
#[derive(Debug)]
pub struct BpeCodes {
    /// Version 0.1, where the end of a word is a symbol.
    end_is_symbol: bool,
    symbols: HashMap<Arc<str>, u32>,
    merges: merge::Merges,
    /// The merges as pairs of symbols, in the order of the file.
    pairs: Vec<(Arc<str>, Arc<str>)>,
    cache: Mutex<HashMap<String, Ends>>,
}

impl Clone for BpeCodes {
    /// With a memory of words of its own.
    fn clone(&self) -> Self {
        Self {
            end_is_symbol: self.end_is_symbol,
            symbols: self.symbols.clone(),
            merges: self.merges.clone(),
            pairs: self.pairs.clone(),
            cache: Mutex::default(),
        }
    }
}

impl BpeCodes {
    /// Reads a code file, plain or gzipped: at most 1,048,576 merges and 64 MiB of text. A merge that was there
    /// already does not count.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, is too large, is of another version than 0.1 and 0.2, has a line
    /// that is not two symbols, or no merges. The error names the line.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let mut codes = Self {
            end_is_symbol: true,
            symbols: HashMap::new(),
            merges: merge::Merges::new(),
            pairs: Vec::new(),
            cache: Mutex::default(),
        };
        while let Some((number, line)) = lines.next_of_list("merges")? {
            match line.strip_prefix("#version:") {
                Some(version) if number == 1 => {
                    codes.end_is_symbol = is_first_version(path, version)?
                }
                _ => codes.add_line(path, number, &line)?,
            }
        }
        if codes.pairs.is_empty() {
            return Err(Error::Empty {
                path: path.to_path_buf(),
                expected: "a merge of two symbols on each line".to_string(),
            });
        }
        Ok(codes)
    }

    fn add_line(&mut self, path: &Path, number: usize, line: &str) -> Result<()> {
        let mut fields = line.trim_matches(['\r', '\n', ' ']).split(' ');
        let (left, right) = match (fields.next(), fields.next(), fields.next()) {
            (Some(left), Some(right), None) if !left.is_empty() && !right.is_empty() => {
                (left, right)
            }
            _ => {
                let expected = "two symbols with a blank between them, as in the code files of subword-nmt (fastBPE's have \
                     a count behind: take it away, and put a line \"#version: 0.2\" before all others)";
                return Err(bad_line(path, number, format!("{:?}", cut(line)), expected));
            }
        };
        let joined = [left, right].concat();
        let (left, right) = (self.symbol(left), self.symbol(right));
        let (ids, joined) = ((left.1, right.1), self.symbol(&joined).1);
        let rank = self.pairs.len() as u32;
        if let std::collections::hash_map::Entry::Vacant(place) = self.merges.entry(ids) {
            place.insert((rank, joined));
            self.pairs.push((left.0, right.0));
        }
        Ok(())
    }

    /// A symbol and its number.
    fn symbol(&mut self, text: &str) -> (Arc<str>, u32) {
        if let Some((text, &number)) = self.symbols.get_key_value(text) {
            return (Arc::clone(text), number);
        }
        let (text, number): (Arc<str>, u32) = (Arc::from(text), self.symbols.len() as u32);
        self.symbols.insert(Arc::clone(&text), number);
        (text, number)
    }

    /// Writes the code file. It is whole or not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let version = if self.end_is_symbol { "0.1" } else { "0.2" };
        write::whole(path, |file| {
            writeln!(file, "#version: {version}")?;
            for (left, right) in &self.pairs {
                writeln!(file, "{left} {right}")?;
            }
            Ok(())
        })
    }

    /// The number of merges.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no merges; never so after [`BpeCodes::from_file`].
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pieces of a word, of which all but the last are to be written with `@@` behind; none of an empty word.
    pub fn pieces<'a>(&self, word: &'a str) -> Vec<&'a str> {
        let mut start = 0;
        let mut pieces = Vec::new();
        for &end in self.ends(word).iter() {
            let end = end as usize;
            // The end of a word, where nothing took it up, is no piece.
            pieces.extend(word.get(start..end).filter(|piece| !piece.is_empty()));
            start = end;
        }
        pieces
    }

    /// The words of a line, which are separated by blanks, in pieces: `ge@@ gl@@ ä@@ tteten steinen`.
    pub fn apply(&self, line: &str) -> String {
        let mut text = String::with_capacity(line.len() * 3 / 2);
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&self.pieces(word).join("@@ "));
        }
        text
    }

    /// Adds the merges.
    pub(super) fn describe(&self, fingerprint: &mut Fingerprint) {
        fingerprint.number(u64::from(self.end_is_symbol));
        for (left, right) in &self.pairs {
            fingerprint.bytes(left.as_bytes());
            fingerprint.bytes(right.as_bytes());
        }
    }

    fn ends(&self, word: &str) -> Ends {
        let short = word.len() <= LONGEST_REMEMBERED;
        // A panic elsewhere cannot leave half an entry.
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if short && let Some(ends) = lock().get(word) {
            return Arc::clone(ends);
        }
        let ends = self.segment(word);
        if short {
            let mut cache = lock();
            if cache.len() >= REMEMBERED {
                cache.clear();
            }
            cache.insert(word.to_string(), Arc::clone(&ends));
        }
        ends
    }

    fn segment(&self, word: &str) -> Ends {
        let number = |text: &str| self.symbols.get(text).copied().unwrap_or(UNKNOWN);
        let mut pieces: Vec<Piece> = Vec::with_capacity(word.len() + 1);
        for (start, c) in word.char_indices() {
            let end = start + c.len_utf8();
            let symbol = match end == word.len() && !self.end_is_symbol {
                true => number(&[&word[start..end], END].concat()),
                false => number(&word[start..end]),
            };
            pieces.push(Piece {
                symbol,
                end: end as u32,
            });
        }
        if self.end_is_symbol {
            let (symbol, end) = (number(END), word.len() as u32);
            pieces.push(Piece { symbol, end });
        }
        Arc::from(merge::join(&pieces, &self.merges))
    }
}

/// Whether a file is of version 0.1.
fn is_first_version(path: &Path, version: &str) -> Result<bool> {
    match version.trim() {
        "0.1" => Ok(true),
        "0.2" => Ok(false),
        other => {
            let got = format!("version {:?}", cut(other));
            Err(bad_line(
                path,
                1,
                got,
                "0.1 or 0.2, which subword-nmt writes",
            ))
        }
    }
}

/// Joins pieces to words again: takes away every `@@ `, and `@@` or `@@ ` at the end.
pub fn remove_marks(line: &str) -> String {
    let line = line
        .strip_suffix(' ')
        .filter(|line| line.ends_with(CONTINUES))
        .unwrap_or(line);
    let line = line.strip_suffix(CONTINUES).unwrap_or(line);
    line.replace("@@ ", "")
}
