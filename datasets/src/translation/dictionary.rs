//! fairseq's dictionary: a symbol a line, its id the place in the file behind four special ones.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::{bad_line, is_blank, write};
use crate::error::{Error, Result};
use crate::excerpt::cut;
use crate::lines::Lines;

/// The special symbols in the order of their ids; learned subwords have the same.
pub(super) const SPECIAL: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
/// Behind the count of a symbol that may be there already: the later one counts.
const OVERWRITE: &str = "#fairseq:overwrite";

/// The symbols of one language, or of several, and their ids.
///
/// Ids 0 to 3 are `<s>`, `<pad>`, `</s>` and `<unk>`; then come the lines of a `dict.txt`, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    symbols: Vec<Arc<str>>,
    counts: Vec<u64>,
    ids: HashMap<Arc<str>, u32>,
}

impl Default for Dictionary {
    /// The special symbols.
    fn default() -> Self {
        let mut dictionary = Self {
            symbols: Vec::new(),
            counts: Vec::new(),
            ids: HashMap::new(),
        };
        for symbol in SPECIAL {
            dictionary.push(symbol, 0);
        }
        dictionary
    }
}

impl Dictionary {
    /// The id of `<s>`, which fairseq's translation models do not use.
    pub const BOS: u32 = 0;
    /// The id of `<pad>`, which fills up shorter sentences of a batch.
    pub const PAD: u32 = 1;
    /// The id of `</s>`, the end of a sentence, and what a decoder begins with.
    pub const EOS: u32 = 2;
    /// The id of `<unk>`, of symbols that are not in the dictionary.
    pub const UNK: u32 = 3;

    /// Reads a `dict.txt`, plain or gzipped: lines `symbol count`, at most 1,048,576 of them and 64 MiB of text.
    ///
    /// A symbol that is there already is an error unless `#fairseq:overwrite` stands behind its count: then the
    /// later one counts, as in fairseq.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, is too large, a line has no count or repeats a symbol, or
    /// there are no lines. The error names the line.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let mut dictionary = Self::default();
        while let Some((number, line)) = lines.next_of_list("symbols")? {
            dictionary.add_line(path, number, &line)?;
        }
        if dictionary.len() == SPECIAL.len() {
            return Err(Error::Empty {
                path: path.to_path_buf(),
                expected: "a symbol and its count on each line".to_string(),
            });
        }
        Ok(dictionary)
    }

    fn add_line(&mut self, path: &Path, number: usize, line: &str) -> Result<()> {
        const EXPECTED: &str = "a symbol, a blank and its count, as in fairseq's dict.txt";
        let mut rest = line.trim_end();
        let before = rest.strip_suffix(OVERWRITE);
        let overwrite = before.and_then(|rest| rest.strip_suffix(' '));
        rest = overwrite.unwrap_or(rest);
        let Some((symbol, count)) = rest.rsplit_once(' ').filter(|(s, _)| !s.is_empty()) else {
            let got = format!("no count behind {:?}", cut(rest));
            return Err(bad_line(path, number, got, EXPECTED));
        };
        let Ok(count) = count.parse() else {
            let got = format!("{:?} as the count of {:?}", cut(count), cut(symbol));
            return Err(bad_line(path, number, got, EXPECTED));
        };
        if let (Some(id), None) = (self.ids.get(symbol), overwrite) {
            let got = format!("symbol {:?} again, which has id {id}", cut(symbol));
            let expected = "each symbol once; take the line out, or write #fairseq:overwrite behind the count if the \
                 later one is meant";
            return Err(bad_line(path, number, got, expected));
        }
        self.push(symbol, count);
        Ok(())
    }

    fn push(&mut self, symbol: &str, count: u64) {
        let symbol: Arc<str> = Arc::from(symbol);
        self.ids
            .insert(Arc::clone(&symbol), self.symbols.len() as u32);
        self.symbols.push(symbol);
        self.counts.push(count);
    }

    /// Writes the lines of a `dict.txt`: all symbols but the four special ones. The file is whole or not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut seen: HashSet<&str> = SPECIAL.into_iter().collect();
        write::whole(path, |file| {
            let lines = self.symbols.iter().zip(&self.counts).skip(SPECIAL.len());
            for (symbol, count) in lines {
                match seen.insert(symbol) {
                    true => writeln!(file, "{symbol} {count}")?,
                    false => writeln!(file, "{symbol} {count} {OVERWRITE}")?,
                }
            }
            Ok(())
        })
    }

    /// The id of a symbol; [`Dictionary::UNK`] for one that is not there.
    pub fn index(&self, symbol: &str) -> u32 {
        self.ids.get(symbol).copied().unwrap_or(Self::UNK)
    }

    /// The symbol of an id.
    pub fn symbol(&self, id: u32) -> Option<&str> {
        self.symbols.get(id as usize).map(|symbol| &**symbol)
    }

    /// How often a symbol stood in the text that the dictionary was made of; 0 for special ones.
    pub fn count(&self, id: u32) -> Option<u64> {
        self.counts.get(id as usize).copied()
    }

    /// The number of ids, special ones included: the rows of a model's embedding.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are no symbols; never so, as there are special ones.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The ids of the symbols of a line, which are separated by blanks; without an end.
    pub fn encode(&self, line: &str) -> Vec<u32> {
        let symbols = line.split(is_blank).filter(|symbol| !symbol.is_empty());
        symbols.map(|symbol| self.index(symbol)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Dictionary> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dict.de.txt");
        std::fs::write(&path, text).unwrap();
        Dictionary::from_file(&path)
    }

    #[test]
    fn ids_are_places_behind_the_special_symbols() {
        let dictionary = read(", 9\nund 7\na b 3\nmadeupword0000 0\n").unwrap();
        assert_eq!(dictionary.len(), 8);
        assert_eq!(dictionary.encode(" und\u{a0},  haus </s>"), [5, 4, 3, 2]);
        assert_eq!(dictionary.symbol(6), Some("a b"));
        assert_eq!((dictionary.count(5), dictionary.count(8)), (Some(7), None));
        assert_eq!(dictionary.symbol(Dictionary::UNK), Some("<unk>"));
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dict.txt");
        let dictionary =
            read("a 2\nb 1\na 5 #fairseq:overwrite\n<unk> 1 #fairseq:overwrite\n").unwrap();
        assert_eq!((dictionary.index("a"), dictionary.index("<unk>")), (6, 7));
        dictionary.save(&path).unwrap();
        assert_eq!(Dictionary::from_file(&path).unwrap(), dictionary);
    }

    #[test]
    fn a_malformed_line_is_named() {
        for (text, expected) in [
            ("a 2\nb\n", "line 2: no count behind \"b\""),
            ("a 2\n\nb 1\n", "line 2: no count behind \"\""),
            ("a 2\n 3\n", "line 2: no count"),
            ("a x\n", "line 1: \"x\" as the count of \"a\""),
            ("a -1\n", "line 1: \"-1\""),
            (
                "a 1\nb 2\na 3\n",
                "line 3: symbol \"a\" again, which has id 4",
            ),
            ("<pad> 1\n", "symbol \"<pad>\" again"),
            ("", "no data rows"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("dict.de.txt"),
                "{error}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dict.txt");
        std::fs::write(&path, b"a 1\n\xff 1\n").unwrap();
        let error = Dictionary::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: not valid UTF-8"), "{error}");
    }
}
