//! Two text files of which line n of one is the translation of line n of the other.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::lines::Lines;

/// A sentence and its translation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pair {
    /// What is translated.
    pub source: String,
    /// The translation.
    pub target: String,
}

impl Pair {
    /// A sentence and its translation.
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
        }
    }
}

/// All pairs of two text files, plain or gzipped; lines may be empty, see [`Filter`](super::Filter).
///
/// They must fit into memory: at most 4,194,304 pairs and 512 MiB of text. [`ParallelLines`] has no such limit.
///
/// # Errors
/// For the reasons of [`ParallelLines`], and if there are too many pairs, or none.
pub fn read_parallel(source: &Path, target: &Path) -> Result<Vec<Pair>> {
    let mut budget = Budget::default();
    let mut pairs = Vec::new();
    for pair in ParallelLines::open(source, target)? {
        let pair = pair?;
        budget.take(source, pair.source.len() + pair.target.len())?;
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(Error::Empty {
            path: source.to_path_buf(),
            expected: "a sentence on each line".to_string(),
        });
    }
    Ok(pairs)
}

/// The pairs of two text files, plain or gzipped, one after the other; a pair is in memory at a time.
///
/// An item is an error if a file cannot be read, is not UTF-8 or has a line of more than 1 MiB, or if one file
/// has more lines than the other: then the error has both counts. Nothing comes after an error.
pub struct ParallelLines {
    source: Side,
    target: Side,
    ended: bool,
}

/// One of the files.
struct Side {
    path: PathBuf,
    lines: Lines,
    count: usize,
}

impl Side {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            lines: Lines::open(path)?,
            count: 0,
        })
    }

    fn next(&mut self) -> Result<Option<String>> {
        let line = self.lines.next()?;
        self.count += usize::from(line.is_some());
        Ok(line.map(|(_, line)| line))
    }
}

impl ParallelLines {
    /// Opens both files.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(source: &Path, target: &Path) -> Result<Self> {
        Ok(Self {
            source: Side::open(source)?,
            target: Side::open(target)?,
            ended: false,
        })
    }

    fn read(&mut self) -> Result<Option<Pair>> {
        match (self.source.next()?, self.target.next()?) {
            (Some(source), Some(target)) => Ok(Some(Pair { source, target })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.differ(true)),
            (None, Some(_)) => Err(self.differ(false)),
        }
    }

    /// Counts what is left of the longer file.
    fn differ(&mut self, source_is_longer: bool) -> Error {
        let longer = match source_is_longer {
            true => &mut self.source,
            false => &mut self.target,
        };
        loop {
            match longer.next() {
                Ok(Some(_)) => (),
                Ok(None) => break,
                Err(error) => return error,
            }
        }
        Error::Inconsistent {
            path: self.source.path.clone(),
            reason: format!(
                "{} lines, but {} has {}; line n of one must be the translation of line n of the other: are both \
                 files whole, and of the same data set?",
                self.source.count,
                self.target.path.display(),
                self.target.count
            ),
        }
    }
}

impl Iterator for ParallelLines {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Result<Pair>> {
        if self.ended {
            return None;
        }
        let pair = self.read();
        self.ended = !matches!(pair, Ok(Some(_)));
        pair.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn files(source: &[u8], target: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (de, en) = (dir.path().join("train.de"), dir.path().join("train.en.gz"));
        std::fs::write(&de, source).unwrap();
        let file = std::fs::File::create(&en).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(target).unwrap();
        packed.finish().unwrap();
        (dir, de, en)
    }

    #[test]
    fn plain_and_packed_lines_are_pairs() {
        let (_dir, de, en) = files(b"ein Haus\r\n\nzwei", b"a house\n\ntwo\n");
        let pairs = read_parallel(&de, &en).unwrap();
        let expected = [("ein Haus", "a house"), ("", ""), ("zwei", "two")];
        assert_eq!(
            pairs,
            expected.map(|(source, target)| Pair::new(source, target))
        );
    }

    #[test]
    fn files_of_other_lengths_name_both_counts() {
        for (source, target, counts) in [
            ("a\nb\nc\n", "a\n", (3, 1)),
            ("a\n", "a\nb\n", (1, 2)),
            ("", "a\nb", (0, 2)),
        ] {
            let (_dir, de, en) = files(source.as_bytes(), target.as_bytes());
            let error = read_parallel(&de, &en).unwrap_err().to_string();
            let expected = format!("train.de: {} lines", counts.0);
            assert!(
                error.contains(&expected)
                    && error.contains(&format!("train.en.gz has {}", counts.1)),
                "{error}"
            );
            let mut lines = ParallelLines::open(&de, &en).unwrap();
            assert!(lines.by_ref().any(|pair| pair.is_err()) && lines.next().is_none());
        }
    }

    #[test]
    fn nothing_and_rubbish_are_errors() {
        let (_dir, de, en) = files(b"", b"");
        assert!(matches!(read_parallel(&de, &en), Err(Error::Empty { .. })));
        let (_dir, de, en) = files(b"a\n\xff\n", b"a\nb\n");
        assert!(
            read_parallel(&de, &en)
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
        std::fs::write(&en, b"no gzip").unwrap();
        assert!(matches!(read_parallel(&de, &en), Err(Error::Gzip { .. })));
    }
}
