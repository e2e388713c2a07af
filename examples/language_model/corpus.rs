//! The text of a run: words, their ids, and where they lie.

use crate::train::LanguageArgs;
use anyhow::{Context, Result};
use common::program::busy;
use common::text::beside;
use datasets::words::{self, WordStore, WordVocabulary};
use datasets::{GlueTask, Split, sample};
use std::path::{Path, PathBuf};

/// A vocabulary's file beside a model.
pub const VOCABULARY: &str = "vocabulary.txt";

/// The words of three splits; there need be none to test on.
pub struct Data {
    pub vocabulary: WordVocabulary,
    pub train: WordStore,
    pub validation: WordStore,
    pub test: Option<WordStore>,
}

impl Data {
    /// A checksum of all words and their ids.
    pub fn mark(&self) -> String {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.vocabulary.checksum().to_le_bytes());
        let stores = [&self.train, &self.validation]
            .into_iter()
            .chain(&self.test);
        for store in stores {
            sum.update(&store.checksum().to_le_bytes());
        }
        format!("{:08x}", sum.finalize())
    }
}

/// From a folder, with ids in files beside `out`; or from the shipped sample.
pub fn load(own: &LanguageArgs, out: &Path) -> Result<Data> {
    let most = own.vocabulary;
    let folder = beside(out);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = |split| match &own.data {
        Some(data) => Ok(words::file(data, split)?),
        None => sentences(split, &folder),
    };
    let train = file(Split::Train)?;
    let vocabulary = busy("counting words", || WordVocabulary::of_file(&train, most))?;
    // Runs of one comparison may have other vocabularies.
    let mark = vocabulary.checksum();
    let store = |text: &Path, name: &str| {
        let path = folder.join(format!("{name}-{mark:08x}.words"));
        busy("looking words up", || {
            WordStore::of_file(text, &vocabulary, &path)
        })
    };
    let test = match &own.data {
        // Who has no text to test on goes without; what is there and cannot be read is an error.
        Some(data) => match words::file(data, Split::Test) {
            Ok(path) => Some(path),
            Err(datasets::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    Ok(Data {
        train: store(&train, "train")?,
        validation: store(&file(Split::Validation)?, "valid")?,
        test: test.map(|test| store(&test, "test")).transpose()?,
        vocabulary,
    })
}

/// The sample's questions and sentences as a file, in small letters, with punctuation apart.
fn sentences(split: Split, folder: &Path) -> Result<PathBuf> {
    let rows = sample::rows(GlueTask::Qnli, split)?.unwrap_or_default();
    let texts = rows
        .into_iter()
        .flat_map(|row| [Some(row.first), row.second]);
    let mut text = String::new();
    for sentence in texts.flatten() {
        for letter in sentence.to_lowercase().chars() {
            match letter.is_alphanumeric() || letter.is_whitespace() {
                true => text.push(letter),
                false => text.extend([' ', letter, ' ']),
            }
        }
        text.push('\n');
    }
    // A name that nobody's own text has, which this would write over.
    let path = folder.join(format!("shipped-sample-{split}.txt"));
    trainers::disk::write_whole(&path, text.as_bytes())?;
    Ok(path)
}
