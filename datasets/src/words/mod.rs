//! Text word by word, for language models: Penn Treebank, WikiText, or any file of words with blanks between.
//!
//! ```text
//! file (lines) ──> vocabulary (words by frequency) ──> store (ids, mapped) ──> windows (tensors)
//! ```
//!
//! A line is its words and `<eos>` behind them, an empty one `<eos>` alone, as in the published code of language models.
//! [`WordVocabulary`] numbers words from the most frequent one on, which is what an adaptive softmax wants; [`WordStore`]
//! holds a text's ids in a file that is mapped into memory, so that a hundred million of them need none;
//! [`WordWindows`] makes batches of windows, in an order that is a function of (seed, epoch).

mod store;
mod vocabulary;
mod windows;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::plain_text::for_each_line;
use crate::shards::shards;
use crate::split::Split;

pub use store::WordStore;
pub use vocabulary::{END, UNKNOWN, WordVocabulary};
pub use windows::WordWindows;

/// The file of a split in a folder: `ptb.train.txt`, `wiki.train.tokens`, `train.txt` and the like (`valid`, `test`), plain
/// or with `.gz` behind; or, as the Hub has them, `train-NNNNN-of-NNNNN.parquet` (`validation`, `test`), of which the first
/// stands for all, with a line of text in each row of the column `text`.
///
/// # Errors
/// [`Error::NotFound`] with the names that were looked for; [`Error::Inconsistent`] where a shard is missing.
pub fn file(dir: &Path, split: Split) -> Result<PathBuf> {
    let name = match split {
        Split::Train => "train",
        Split::Validation => "valid",
        Split::Test => "test",
    };
    let plain = [
        format!("ptb.{name}.txt"),
        format!("wiki.{name}.tokens"),
        format!("{name}.txt"),
    ];
    let with_gz = plain
        .iter()
        .flat_map(|name| [name.clone(), format!("{name}.gz")]);
    let mut paths = with_gz.map(|name| dir.join(name));
    if let Some(path) = paths.find(|path| path.is_file()) {
        return Ok(path);
    }
    let parquet = match split {
        Split::Validation => "validation",
        _ => name,
    };
    let what = format!("{split} split of a text");
    match shards(dir, "", parquet, &what) {
        Ok(shards) => Ok(shards.into_iter().next().unwrap_or_default()),
        Err(Error::NotFound { .. }) => Err(Error::NotFound {
            what,
            dir: dir.to_path_buf(),
            tried: format!(
                "{}, each also with .gz behind, and {parquet}-NNNNN-of-NNNNN.parquet",
                plain.join(", ")
            ),
        }),
        Err(other) => Err(other),
    }
}

/// What to do with each word of a text, and with the end of each line.
fn for_each_word(path: &Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut any = false;
    for_each_line(path, |line| {
        for word in line.split_whitespace() {
            each(word)?;
            any = true;
        }
        each(END).map(ControlFlow::Continue)
    })?;
    match any {
        true => Ok(()),
        false => Err(Error::Empty {
            path: path.to_path_buf(),
            expected: "lines of words with blanks between".into(),
        }),
    }
}
