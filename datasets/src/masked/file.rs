//! Lines of prose from a file.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::{Budget, MOST_TEXT};
use crate::lines::Lines;
use crate::split::Split;

/// The lines of a text file that say something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// The file.
    pub path: PathBuf,
    /// Its lines, without those that are empty.
    pub lines: Vec<String>,
}

impl TextFile {
    /// Reads a file, plain or `.gz`. Of a file whose name has `.tokens` in it, or is `wiki.*.raw`, as WikiText's are, the headings are left
    /// out, ` @-@ `, ` @,@ ` and ` @.@ ` become `-`, `,` and `.`, and `<unk>` becomes `[UNK]`, BERT's unknown token, which
    /// [`Packed::encode`](crate::Packed::encode) takes as the tokenizer calls it.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, has a line or a text that is too long, or says nothing.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prepared =
            name.contains(".tokens") || name.starts_with("wiki.") && name.contains(".raw");
        let (mut source, mut budget) = (Lines::open(path)?, Budget::default());
        let mut lines = Vec::new();
        while let Some((_, line)) = source.next()? {
            let line = match prepared {
                true if is_heading(&line) => continue,
                true => as_prose(&line),
                false => line.trim().to_string(),
            };
            if !line.is_empty() {
                budget.take(path, line.len())?;
                lines.push(line);
            }
        }
        match lines.is_empty() {
            true => Err(Error::Empty {
                path: path.to_path_buf(),
                expected: format!("lines of text, at most {MOST_TEXT} bytes of them"),
            }),
            false => Ok(Self {
                path: path.to_path_buf(),
                lines,
            }),
        }
    }
}

/// ` = Title = `, ` = = Section = = `.
fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.len() > 1 && line.starts_with('=') && line.ends_with('=')
}

/// A prepared line without the marks of its preparation.
fn as_prose(line: &str) -> String {
    let mut line = line.trim().replace("<unk>", "[UNK]");
    for (mark, sign) in [(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")] {
        line = line.replace(mark, sign);
    }
    line
}

/// The file of a split in a folder, by the usual names: `train`, `valid`, `validation`, `val` or `dev`, and `test`, with
/// `.txt`, or WikiText's `wiki.train.tokens`, `wiki.train.raw` and the like; each with `.gz`, too.
///
/// # Errors
/// If there is none of them.
pub fn file(dir: &Path, split: Split) -> Result<PathBuf> {
    let names: &[&str] = match split {
        Split::Train => &["train.txt", "wiki.train.tokens", "wiki.train.raw"],
        Split::Validation => &[
            "valid.txt",
            "validation.txt",
            "val.txt",
            "dev.txt",
            "wiki.valid.tokens",
            "wiki.valid.raw",
        ],
        Split::Test => &["test.txt", "wiki.test.tokens", "wiki.test.raw"],
    };
    let plain = names.iter().map(|name| dir.join(name));
    let packed = names.iter().map(|name| dir.join(format!("{name}.gz")));
    let mut found = plain.chain(packed).filter(|path| path.is_file());
    found.next().ok_or_else(|| Error::NotFound {
        what: format!("{split} text"),
        dir: dir.to_path_buf(),
        tried: format!("{}, each with .gz, too", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Ok(TextFile::read(&path)?.lines)
    }

    #[test]
    fn prepared_lines_become_prose() {
        let text = " \n = Valkyria = \n \n role @-@ playing , 1 @,@ 000 of <unk> \n = = Plot = = \n a = b\n";
        let expected = ["role-playing , 1,000 of [UNK]", "a = b"];
        assert_eq!(read("wiki.train.tokens", text).unwrap(), expected);
        // Other files are taken at their word.
        let plain = read("train.txt", " = Title = \n\n a @-@ b <unk>\r\n").unwrap();
        assert_eq!(plain, ["= Title =", "a @-@ b <unk>"]);
    }

    #[test]
    fn a_file_that_says_nothing_is_an_error_with_its_name() {
        for (name, text) in [("train.txt", " \n\n"), ("wiki.train.tokens", " = A = \n")] {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let error = file(dir.path(), Split::Validation).unwrap_err().to_string();
        assert!(error.contains("wiki.valid.tokens"), "{error}");
        std::fs::write(dir.path().join("dev.txt"), "a").unwrap();
        assert!(
            file(dir.path(), Split::Validation)
                .unwrap()
                .ends_with("dev.txt")
        );
    }
}
