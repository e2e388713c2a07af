//! What a task is trained on and judged by.

use std::path::Path;

use super::tsv::{Loaded, Ragged};
use super::{GlueTask, Row, Split, load_with};
use crate::error::{Error, Result};

/// The labelled rows of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct GlueCorpus {
    /// For training.
    pub train: Vec<Row>,
    /// For validation.
    pub validation: Vec<Row>,
    /// MNLI's second validation set, of other genres, where it is there.
    pub mismatched: Option<Vec<Row>>,
    /// Rows of the files that were left out: those of QQP's that are not whole.
    pub skipped: usize,
}

impl GlueCorpus {
    /// The splits of a task from a folder, or from the Hub where `data` is `None`; see [`load`](super::load()).
    ///
    /// # Errors
    /// As [`load`](super::load()); but a folder may lack MNLI's mismatched set, and rows of QQP that lack fields, as the
    /// published files have a few, are left out and counted.
    pub fn load(data: Option<&Path>, task: GlueTask) -> Result<Self> {
        let ragged = match task {
            GlueTask::Qqp => Ragged::SkipAndCount,
            _ => Ragged::Refuse,
        };
        let load = |task, split| load_with(data, task, split, ragged);
        let mismatched = match task {
            GlueTask::Mnli => match load(GlueTask::MnliMismatched, Split::Validation) {
                Err(Error::NotFound { .. }) => None,
                loaded => Some(loaded?.rows),
            },
            _ => None,
        };
        let [train, validation] = [Split::Train, Split::Validation].map(|split| load(task, split));
        let (train, validation): (Loaded, Loaded) = (train?, validation?);
        Ok(Self {
            skipped: train.skipped + validation.skipped,
            train: train.rows,
            validation: validation.rows,
            mismatched,
        })
    }

    /// Keeps the first rows: so many for training, so many of each set for validation, `None` for all.
    pub fn truncate(&mut self, train: Option<usize>, validation: Option<usize>) {
        self.train.truncate(train.unwrap_or(usize::MAX));
        let most = validation.unwrap_or(usize::MAX);
        self.validation.truncate(most);
        if let Some(rows) = &mut self.mismatched {
            rows.truncate(most);
        }
    }

    /// Every text for training, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let rows = self.train.iter();
        rows.flat_map(|row| std::iter::once(row.first.as_str()).chain(row.second.as_deref()))
    }
}
