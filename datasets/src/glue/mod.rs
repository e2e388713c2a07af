//! The GLUE tasks (Wang et al., 2018) that train a sentence or sentence-pair classifier.
//!
//! Three sources, one result, [`Row`]s in the order of the file:
//!
//! * [`load_folder`]: the layout of the GLUE download, `DIR/RTE/train.tsv`, plain or gzipped;
//! * [`load_parquet_folder`] and [`load_parquet`]: the layout of `nyu-mll/glue`;
//! * [`load_hub`]: the same files from the Hugging Face Hub or its cache.
//!
//! Class numbers are those of the Hub whatever the source, so that published fine-tuned models
//! agree with them.

mod corpus;
mod folder;
mod parquet;
mod tsv;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

pub use corpus::GlueCorpus;
pub use folder::{load_folder, load_folder_with};
pub(crate) use parquet::to_text;
pub use parquet::{load_hub, load_parquet, load_parquet_folder};
pub use tsv::{Loaded, Ragged};

use crate::error::{Error, Result};
use crate::hub::Hub;
pub use crate::split::Split;

/// A task of GLUE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GlueTask {
    /// Recognizing textual entailment; 2,490 training pairs.
    Rte,
    /// Microsoft Research paraphrase corpus; 3,668 training pairs.
    Mrpc,
    /// Semantic textual similarity, a score in 0..=5; 5,749 training pairs.
    Stsb,
    /// Sentiment of film-review phrases; 67,349 training sentences.
    Sst2,
    /// Does the sentence answer the question? 104,743 training pairs.
    Qnli,
    /// Quora question pairs; 363,846 training pairs.
    Qqp,
    /// Multi-genre inference, evaluated on the genres of training; 392,702 training pairs.
    Mnli,
    /// Multi-genre inference, evaluated on other genres; training data as for `Mnli`.
    MnliMismatched,
    /// Grammatical acceptability; 8,551 training sentences.
    Cola,
}

/// One example as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The only, or the first, sentence (for QNLI the question).
    pub first: String,
    /// The second sentence of a pair.
    pub second: Option<String>,
    /// The answer; `None` in test files that keep it secret.
    pub label: Option<Label>,
}

/// The answer of an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// An index into [`GlueTask::labels`].
    Class(u32),
    /// A similarity in 0..=5.
    Score(f32),
}

impl GlueTask {
    /// Every task.
    pub fn all() -> &'static [GlueTask] {
        use GlueTask::*;
        &[Rte, Mrpc, Stsb, Sst2, Qnli, Qqp, Mnli, MnliMismatched, Cola]
    }

    /// The tasks of a list such as `rte,mrpc`, each once; `all` are those that have training data of their own.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn list(text: &str) -> Result<Vec<GlueTask>> {
        let own = |task: &GlueTask| *task != GlueTask::MnliMismatched;
        let tasks = text.split(',').map(|name| match name {
            "all" => Ok(Self::all().iter().copied().filter(own).collect()),
            name => Ok(vec![name.parse()?]),
        });
        let mut all: Vec<GlueTask> = Vec::new();
        for task in tasks.collect::<Result<Vec<Vec<_>>>>()?.concat() {
            if !all.contains(&task) {
                all.push(task);
            }
        }
        Ok(all)
    }

    /// The task's name on a command line: `rte`, `mrpc`, …, `mnli-mm`.
    pub fn name(self) -> &'static str {
        match self {
            GlueTask::Rte => "rte",
            GlueTask::Mrpc => "mrpc",
            GlueTask::Stsb => "stsb",
            GlueTask::Sst2 => "sst2",
            GlueTask::Qnli => "qnli",
            GlueTask::Qqp => "qqp",
            GlueTask::Mnli => "mnli",
            GlueTask::MnliMismatched => "mnli-mm",
            GlueTask::Cola => "cola",
        }
    }

    /// The names of the classes, by class number; empty for a regression.
    ///
    /// The order is that of the Hub: `entailment` is 0 in RTE, QNLI and MNLI.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            GlueTask::Rte | GlueTask::Qnli => &["entailment", "not_entailment"],
            GlueTask::Mnli | GlueTask::MnliMismatched => {
                &["entailment", "neutral", "contradiction"]
            }
            GlueTask::Mrpc => &["not_equivalent", "equivalent"],
            GlueTask::Qqp => &["not_duplicate", "duplicate"],
            GlueTask::Sst2 => &["negative", "positive"],
            GlueTask::Cola => &["unacceptable", "acceptable"],
            GlueTask::Stsb => &[],
        }
    }

    /// The labels as the TSV files write them, and as GLUE's server takes predictions, by class number.
    pub fn written_labels(self) -> &'static [&'static str] {
        match self {
            GlueTask::Mrpc | GlueTask::Qqp | GlueTask::Sst2 | GlueTask::Cola => &["0", "1"],
            _ => self.labels(),
        }
    }

    /// Whether the answer is a score instead of a class.
    pub fn is_regression(self) -> bool {
        self == GlueTask::Stsb
    }

    /// Whether an example has two sentences.
    pub fn is_pair(self) -> bool {
        !matches!(self, GlueTask::Sst2 | GlueTask::Cola)
    }

    /// What a label may be, in words for an error.
    fn expected_label(self) -> String {
        if self.is_regression() {
            "a number in 0..=5".to_string()
        } else {
            format!("one of {}", self.written_labels().join(", "))
        }
    }

    /// `score` as a label, if it is a finite number in 0..=5.
    fn score(score: f32) -> Option<Label> {
        (0.0..=5.0).contains(&score).then_some(Label::Score(score))
    }

    /// The label that a TSV file writes as `text`.
    fn parse_label(self, text: &str) -> Option<Label> {
        if self.is_regression() {
            return text.trim().parse().ok().and_then(GlueTask::score);
        }
        let class = self.written_labels().iter().position(|&l| l == text)?;
        Some(Label::Class(class as u32))
    }
}

impl fmt::Display for GlueTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GlueTask {
    type Err = Error;

    /// Accepts [`GlueTask::name`] in any case, with or without `-` and `_`.
    fn from_str(text: &str) -> Result<Self> {
        let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
        let wanted = plain(text);
        GlueTask::all()
            .iter()
            .copied()
            .find(|task| {
                plain(task.name()) == wanted
                    || (*task == GlueTask::MnliMismatched && wanted == "mnlimismatched")
                    || (*task == GlueTask::Mnli && wanted == "mnlimatched")
            })
            .ok_or_else(|| Error::UnknownTask {
                got: crate::excerpt::cut(text),
                expected: GlueTask::all()
                    .iter()
                    .map(|task| task.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

/// Loads a split from a folder of either layout, or from the Hub where `data` is `None`.
///
/// In a folder the GLUE download layout is looked for first, then the parquet layout.
///
/// # Errors
/// If neither layout has the split, or for the reasons of [`load_folder`], [`load_parquet`] and
/// [`load_hub`].
pub fn load(data: Option<&Path>, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    Ok(load_with(data, task, split, Ragged::Refuse)?.rows)
}

/// [`load`] with a choice of what to do about rows of text files with a wrong number of fields.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    data: Option<&Path>,
    task: GlueTask,
    split: Split,
    ragged: Ragged,
) -> Result<Loaded> {
    let whole = |rows| Loaded { rows, skipped: 0 };
    let Some(dir) = data else {
        return load_hub(&Hub::from_env()?, task, split).map(whole);
    };
    if !dir.is_dir() {
        return Err(Error::NotFound {
            what: "folder".to_string(),
            dir: dir.to_path_buf(),
            tried: "a folder in the GLUE download layout or with parquet files".to_string(),
        });
    }
    match load_folder_with(dir, task, split, ragged) {
        Err(Error::NotFound { tried: texts, .. }) => match load_parquet_folder(dir, task, split) {
            Err(Error::NotFound { what, dir, tried }) => Err(Error::NotFound {
                what,
                dir,
                tried: format!("{texts}, {tried}"),
            }),
            other => other.map(whole),
        },
        other => other,
    }
}
