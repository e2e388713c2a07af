//! Text files line by line, plain or gzipped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Place, Result};
use crate::limits::{LARGEST_LIST, LONGEST_LINE, MOST_SYMBOLS};

/// Bytes of the longest line that is read, without its end: a file without line ends, or one that unpacks
/// to any length, shall not fill the memory.
const LONGEST: usize = LONGEST_LINE;

/// The lines of a plain or gzipped UTF-8 file, without line ends and byte order mark.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    gzipped: bool,
    number: usize,
    /// Bytes of the lines so far.
    bytes: usize,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
        let gzipped = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let reader: Box<dyn BufRead> = if gzipped {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            gzipped,
            number: 0,
            bytes: 0,
        })
    }

    /// The next line of a list that is kept in memory, such as a vocabulary of `what`: an error behind
    /// [`MOST_SYMBOLS`] lines or [`LARGEST_LIST`] bytes of text.
    pub(crate) fn next_of_list(&mut self, what: &'static str) -> Result<Option<(usize, String)>> {
        let next = self.next()?;
        let too_much = |what, most| Error::TooMuch {
            path: self.path.clone(),
            what,
            most,
        };
        if self.bytes as u64 > LARGEST_LIST {
            return Err(too_much("bytes of text", LARGEST_LIST));
        }
        if next.is_some() && self.number > MOST_SYMBOLS {
            return Err(too_much(what, MOST_SYMBOLS as u64));
        }
        Ok(next)
    }

    /// The next line and its number, counted from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, String)>> {
        let mut bytes = Vec::new();
        let limit = LONGEST as u64 + 2; // with a line end of two bytes
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut bytes);
        if read.map_err(|source| self.read_error(source))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if bytes.len() > LONGEST {
            return Err(Error::LongLine {
                path: self.path.clone(),
                place: Place::Line(self.number),
                longest: LONGEST,
            });
        }
        let mut text = String::from_utf8(bytes).map_err(|_| Error::InvalidUtf8 {
            path: self.path.clone(),
            place: Place::Line(self.number),
        })?;
        if self.number == 1 && text.starts_with('\u{feff}') {
            text.remove(0);
        }
        self.bytes = self.bytes.saturating_add(text.len());
        Ok(Some((self.number, text)))
    }

    fn read_error(&self, source: std::io::Error) -> Error {
        if self.gzipped {
            Error::Gzip {
                path: self.path.clone(),
                line: self.number,
                source,
            }
        } else {
            Error::io(&self.path, source)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_with_its_lines_or_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        let last = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut lines = Lines::open(&path).unwrap();
            loop {
                match lines.next_of_list("symbols") {
                    Ok(Some(_)) => (),
                    Ok(None) => return lines.number.to_string(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        let full = "a\n".repeat(MOST_SYMBOLS);
        assert_eq!(last(&full), MOST_SYMBOLS.to_string());
        assert!(last(&format!("{full}a")).contains("1048576 symbols"));
        let long = "a".repeat(LONGEST_LINE) + "\n";
        let full = long.repeat(LARGEST_LIST as usize / LONGEST_LINE);
        assert_eq!(last(&full), "64");
        assert!(last(&format!("{full}a")).contains("67108864 bytes of text"));
    }
}
