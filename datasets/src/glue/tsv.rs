//! Tab-separated files as GLUE writes them: quote characters are text, there is no escaping, a
//! record is a line.

use std::path::Path;

use super::{GlueTask, Row, Split};
use crate::error::{Error, Place, Result};
use crate::excerpt::{cut, excerpt};
use crate::limits::Budget;
use crate::lines::Lines;

/// What to do with a row whose number of fields is not that of the header.
///
/// The published QQP files have a few such rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ragged {
    /// Report it as an error.
    #[default]
    Refuse,
    /// Leave it out and count it.
    SkipAndCount,
}

/// Rows, and how many were left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// The rows in the order of the file.
    pub rows: Vec<Row>,
    /// Rows left out by [`Ragged::SkipAndCount`].
    pub skipped: usize,
}

/// The spellings of the columns a task needs, lower case, best first.
struct Names {
    first: &'static [&'static str],
    second: &'static [&'static str],
    label: &'static [&'static str],
}

fn names(task: GlueTask) -> Names {
    let (first, second, label): (&[_], &[_], &[_]) = match task {
        GlueTask::Rte => (&["sentence1"], &["sentence2"], &["label"]),
        GlueTask::Mrpc => (
            &["#1 string", "sentence1"],
            &["#2 string", "sentence2"],
            &["quality", "label"],
        ),
        GlueTask::Stsb => (&["sentence1"], &["sentence2"], &["score", "label"]),
        GlueTask::Sst2 | GlueTask::Cola => (&["sentence"], &[], &["label"]),
        GlueTask::Qnli => (&["question"], &["sentence"], &["label"]),
        GlueTask::Qqp => (&["question1"], &["question2"], &["is_duplicate", "label"]),
        GlueTask::Mnli | GlueTask::MnliMismatched => {
            (&["sentence1"], &["sentence2"], &["gold_label", "label"])
        }
    };
    Names {
        first,
        second,
        label,
    }
}

/// Where the task's columns are in a file.
struct Columns {
    width: usize,
    first: usize,
    second: Option<usize>,
    label: Option<usize>,
    label_name: &'static str,
    /// Whether a label of -1 is one that is kept secret.
    secret: bool,
}

impl Columns {
    /// CoLA's files have no header: source, label, star of the source, sentence.
    fn of_cola() -> Self {
        Self {
            width: 4,
            first: 3,
            second: None,
            label: Some(1),
            label_name: "label",
            secret: false,
        }
    }

    fn from_header(path: &Path, task: GlueTask, split: Split, header: &str) -> Result<Self> {
        let cells: Vec<String> = header
            .split('\t')
            .map(|c| c.trim().to_lowercase())
            .collect();
        let find = |spellings: &[&str]| {
            let place = |&name: &&str| cells.iter().position(|cell| cell == name);
            spellings.iter().find_map(place)
        };
        let need = |spellings: &[&str]| {
            find(spellings).ok_or_else(|| Error::MissingColumn {
                path: path.to_path_buf(),
                task: task.name(),
                column: spellings.join(" / "),
                found: found(&cells, header),
            })
        };
        let names = names(task);
        let label = match split {
            Split::Test => find(names.label),
            Split::Train | Split::Validation => Some(need(names.label)?),
        };
        Ok(Self {
            width: cells.len(),
            first: need(names.first)?,
            second: match names.second {
                [] => None,
                spellings => Some(need(spellings)?),
            },
            label_name: names
                .label
                .iter()
                .find(|&&name| label.is_some_and(|i| cells[i] == name))
                .copied()
                .unwrap_or_default(),
            label,
            secret: split == Split::Test,
        })
    }

    /// `fields` has `width` entries.
    fn row(&self, path: &Path, task: GlueTask, line: usize, fields: &[&str]) -> Result<Row> {
        let label = match self.label {
            None => None,
            Some(column) if self.secret && fields[column].parse() == Ok(-1.0) => None,
            Some(column) => {
                Some(
                    task.parse_label(fields[column])
                        .ok_or_else(|| Error::BadLabel {
                            path: path.to_path_buf(),
                            place: Place::Line(line),
                            column: self.label_name,
                            expected: task.expected_label(),
                            got: cut(fields[column]),
                        })?,
                )
            }
        };
        Ok(Row {
            first: fields[self.first].to_string(),
            second: self.second.map(|column| fields[column].to_string()),
            label,
        })
    }
}

/// The columns of a header as an error shows them.
fn found(cells: &[String], header: &str) -> String {
    let names = excerpt(&cells.join(", "));
    match header.contains('\r') {
        true => format!("{names} (its lines end in CR alone: convert them to LF)"),
        false => names,
    }
}

/// Reads one file; `keep` sees the fields of each row and says whether it belongs to the split.
pub(super) fn read(
    path: &Path,
    task: GlueTask,
    split: Split,
    ragged: Ragged,
    mut keep: impl FnMut(&[&str]) -> bool,
) -> Result<Loaded> {
    let empty = || Error::Empty {
        path: path.to_path_buf(),
        expected: format!("the {split} rows of {task}, tab-separated"),
    };
    let mut lines = Lines::open(path)?;
    let (mut number, mut text) = lines.next()?.ok_or_else(empty)?;
    // CoLA's test file does have a header, its other files have none.
    let cells = text.to_lowercase();
    let headless = task == GlueTask::Cola && !cells.split('\t').any(|c| c.trim() == "sentence");
    let columns = if headless {
        Columns::of_cola()
    } else {
        let columns = Columns::from_header(path, task, split, &text)?;
        (number, text) = lines.next()?.ok_or_else(empty)?;
        columns
    };
    let (mut loaded, mut budget) = (Loaded::default(), Budget::default());
    loop {
        let fields: Vec<&str> = text.split('\t').collect();
        let following = lines.next()?;
        if fields.len() == columns.width {
            if keep(&fields) {
                budget.take(path, text.len())?;
                loaded.rows.push(columns.row(path, task, number, &fields)?);
            }
        } else if text.is_empty() && following.is_none() {
            // One blank line at the end of the file is no row.
        } else if ragged == Ragged::SkipAndCount {
            loaded.skipped += 1;
        } else {
            return Err(Error::FieldCount {
                path: path.to_path_buf(),
                place: Place::Line(number),
                expected: columns.width,
                got: fields.len(),
            });
        }
        match following {
            Some(next) => (number, text) = next,
            None => break,
        }
    }
    if loaded.rows.is_empty() {
        return Err(empty());
    }
    Ok(loaded)
}
