//! Words with a label each, as CoNLL-2003 has them: names of persons, places and organisations.
//!
//! ```text
//! U.N.      NNP  I-NP  I-ORG          a word a line, its label in the last column,
//! official  NN   I-NP  O              columns separated by blanks or tabs,
//! Ekeus     NNP  I-NP  I-PER          an empty line after each sentence,
//!                                     a line -DOCSTART- before each document
//! ```
//!
//! [`read`] makes sentences of a file, [`LabelSet`] numbers the labels of the training file, and
//! [`TokenDataset`] cuts the words into pieces: the first piece of a word has its label, all others
//! are ignored. [`Corpus`] does the first two for a folder.
//!
//! Labels are IOB2 once they are read: `B-PER` begins a person, `I-PER` goes on with it, `O` is no
//! name. CoNLL-2003's own files are IOB1, see [`Scheme`].

mod batch;
mod dataset;
mod labels;
mod read;

pub use batch::{Targets, TokenBatch};
pub use dataset::{TokenBatches, TokenDataset, TokenExample};
pub use labels::LabelSet;
pub use read::{Scheme, read, read_known};

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::split::Split;

/// Words, and as many labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sentence {
    /// The words.
    pub tokens: Vec<String>,
    /// The label of each word in IOB2: `O`, `B-TYPE` or `I-TYPE`.
    pub labels: Vec<String>,
}

/// What a training needs: sentences for fitting, sentences for choosing, and the labels of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// For fitting.
    pub train: Vec<Sentence>,
    /// For choosing and reporting.
    pub validation: Vec<Sentence>,
    /// The labels of the training sentences.
    pub labels: LabelSet,
}

impl Corpus {
    /// The training and validation file of a folder, see [`file()`].
    ///
    /// # Errors
    /// For the reasons of [`file()`] and [`read`], and if the validation file has a label that the
    /// training file lacks.
    pub fn from_folder(dir: &Path, scheme: Scheme) -> Result<Self> {
        let (train, validation) = (file(dir, Split::Train)?, file(dir, Split::Validation)?);
        let train = read(&train, scheme)?;
        let labels = LabelSet::of(&train)?;
        Ok(Self {
            validation: read_known(&validation, scheme, &labels)?,
            train,
            labels,
        })
    }
}

/// The file of a split in a folder, by the usual names: `train.txt` or `eng.train`; `valid.txt`,
/// `validation.txt`, `dev.txt` or `eng.testa`; `test.txt` or `eng.testb`; each with `.gz`, too.
///
/// # Errors
/// If there is none of them.
pub fn file(dir: &Path, split: Split) -> Result<PathBuf> {
    let names: &[&str] = match split {
        Split::Train => &["train.txt", "eng.train"],
        Split::Validation => &["valid.txt", "validation.txt", "dev.txt", "eng.testa"],
        Split::Test => &["test.txt", "eng.testb"],
    };
    let plain = names.iter().map(|name| dir.join(name));
    let packed = names.iter().map(|name| dir.join(format!("{name}.gz")));
    let mut found = plain.chain(packed).filter(|path| path.is_file());
    found.next().ok_or_else(|| Error::NotFound {
        what: format!("{split} file of labelled words"),
        dir: dir.to_path_buf(),
        tried: names.join(", "),
    })
}
