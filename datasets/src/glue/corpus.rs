//! What a task is trained on and judged by.

use std::path::Path;

use super::{GlueTask, Row, Split, load};
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
}

impl GlueCorpus {
    /// The splits of a task from a folder, or from the Hub where `data` is `None`; see [`load`].
    ///
    /// # Errors
    /// As [`load`]; but a folder may lack MNLI's mismatched set.
    pub fn load(data: Option<&Path>, task: GlueTask) -> Result<Self> {
        let mismatched = match task {
            GlueTask::Mnli => match load(data, GlueTask::MnliMismatched, Split::Validation) {
                Err(Error::NotFound { .. }) => None,
                rows => Some(rows?),
            },
            _ => None,
        };
        Ok(Self {
            train: load(data, task, Split::Train)?,
            validation: load(data, task, Split::Validation)?,
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
