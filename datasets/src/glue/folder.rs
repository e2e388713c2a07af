//! The folder layout of the GLUE download, and which file in it is which split.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::tsv::{self, Loaded, Ragged};
use super::{GlueTask, Row, Split};
use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::limits::Budget;
use crate::lines::Lines;

/// The task's folder in the GLUE download.
fn folder_name(task: GlueTask) -> &'static str {
    match task {
        GlueTask::Rte => "RTE",
        GlueTask::Mrpc => "MRPC",
        GlueTask::Stsb => "STS-B",
        GlueTask::Sst2 => "SST-2",
        GlueTask::Qnli => "QNLI",
        GlueTask::Qqp => "QQP",
        GlueTask::Mnli | GlueTask::MnliMismatched => "MNLI",
        GlueTask::Cola => "CoLA",
    }
}

/// The names, without ending, that the split's file may have, best first.
fn stems(task: GlueTask, split: Split) -> &'static [&'static str] {
    match (split, task) {
        (Split::Train, _) => &["train", "train.sample"],
        (Split::Validation, GlueTask::Mnli) => &["dev_matched", "dev.sample"],
        (Split::Validation, GlueTask::MnliMismatched) => &["dev_mismatched"],
        (Split::Validation, _) => &["dev", "dev.sample"],
        (Split::Test, GlueTask::Mnli) => &["test_matched"],
        (Split::Test, GlueTask::MnliMismatched) => &["test_mismatched"],
        (Split::Test, _) => &["test"],
    }
}

/// `dir/name` or `dir/name.gz`, whichever is there.
fn plain_or_gzipped(dir: &Path, name: &str) -> Option<PathBuf> {
    [dir.join(name), dir.join(format!("{name}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

/// Loads a split from the layout of the GLUE download.
///
/// `dir` holds the folders RTE, MRPC, STS-B, SST-2, QNLI, QQP, MNLI and CoLA, or is itself the
/// task's folder. Files are `{train,dev,test}.tsv`, plain or with `.gz`; MNLI's are
/// `dev_matched`, `dev_mismatched`, `test_matched`, `test_mismatched`. Where they are absent,
/// `train.sample.tsv` and `dev.sample.tsv` serve, and for MRPC the corpus's own
/// `msr_paraphrase_train.txt` (split by `dev_ids.tsv`) and `msr_paraphrase_test.txt`.
///
/// Columns are found by their names in the header. Quote characters are ordinary text.
///
/// # Errors
/// If no such file exists, or a file is unreadable, empty, not UTF-8, cut off, lacks a column, or
/// has a row with a wrong number of fields or a wrong label. Every error names file and line.
pub fn load_folder(dir: &Path, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    Ok(load_folder_with(dir, task, split, Ragged::Refuse)?.rows)
}

/// [`load_folder`] with a choice of what to do about rows with a wrong number of fields.
///
/// # Errors
/// As [`load_folder`].
pub fn load_folder_with(
    dir: &Path,
    task: GlueTask,
    split: Split,
    ragged: Ragged,
) -> Result<Loaded> {
    let named = dir.join(folder_name(task));
    let is_own_folder = dir
        .file_name()
        .is_some_and(|name| name.eq_ignore_ascii_case(folder_name(task)));
    let folder = if !named.is_dir() && is_own_folder {
        dir.to_path_buf()
    } else {
        named
    };
    let found = stems(task, split)
        .iter()
        .find_map(|stem| plain_or_gzipped(&folder, &format!("{stem}.tsv")));
    if let Some(path) = found {
        return tsv::read(&path, task, split, ragged, |_| true);
    }
    if task == GlueTask::Mrpc
        && let Some(loaded) = load_msr(&folder, split, ragged)?
    {
        return Ok(loaded);
    }
    Err(not_found(dir, task, split))
}

fn not_found(dir: &Path, task: GlueTask, split: Split) -> Error {
    let mut tried: Vec<String> = stems(task, split)
        .iter()
        .map(|stem| format!("{}/{stem}.tsv[.gz]", folder_name(task)))
        .collect();
    if task == GlueTask::Mrpc {
        let part = if split == Split::Test {
            "test"
        } else {
            "train"
        };
        tried.push(format!("MRPC/msr_paraphrase_{part}.txt[.gz]"));
    }
    Error::NotFound {
        what: format!("{split} split of {task}"),
        dir: dir.to_path_buf(),
        tried: tried.join(", "),
    }
}

/// MRPC from the files of the Microsoft corpus, `None` if they are not there.
///
/// The corpus knows train and test only; GLUE's development set is the pairs of ids listed in
/// `dev_ids.tsv`, taken out of train.
fn load_msr(folder: &Path, split: Split, ragged: Ragged) -> Result<Option<Loaded>> {
    let name = match split {
        Split::Test => "msr_paraphrase_test.txt",
        Split::Train | Split::Validation => "msr_paraphrase_train.txt",
    };
    let Some(path) = plain_or_gzipped(folder, name) else {
        return Ok(None);
    };
    if split == Split::Test {
        return tsv::read(&path, GlueTask::Mrpc, split, ragged, |_| true).map(Some);
    }
    let ids_path = plain_or_gzipped(folder, "dev_ids.tsv").ok_or_else(|| Error::NotFound {
        what: "list of MRPC's development pairs".to_string(),
        dir: folder.to_path_buf(),
        tried: "dev_ids.tsv[.gz], which divides msr_paraphrase_train.txt".to_string(),
    })?;
    let mut pairs = read_pairs(&ids_path)?;
    let loaded = tsv::read(&path, GlueTask::Mrpc, split, ragged, |fields| {
        // Quality, id of the first sentence, id of the second, the two sentences.
        let listed = match fields {
            [_, first, second, ..] => pairs.get_mut(&(first.to_string(), second.to_string())),
            _ => None,
        };
        match listed {
            Some(seen) => {
                *seen = true;
                split == Split::Validation
            }
            None => split == Split::Train,
        }
    })?;
    let mut missing: Vec<_> = pairs.iter().filter(|(_, seen)| !**seen).collect();
    missing.sort();
    if let Some(((first, second), _)) = missing.first() {
        return Err(Error::Inconsistent {
            reason: format!(
                "{} of {} pairs, first {} {}, are not in {}; take both files from one source",
                missing.len(),
                pairs.len(),
                excerpt(first),
                excerpt(second),
                path.display()
            ),
            path: ids_path,
        });
    }
    Ok(Some(loaded))
}

/// The pairs of sentence ids in a two-column file without header, none of them seen yet.
fn read_pairs(path: &Path) -> Result<HashMap<(String, String), bool>> {
    let mut lines = Lines::open(path)?;
    let (mut pairs, mut budget) = (HashMap::new(), Budget::default());
    while let Some((number, text)) = lines.next()? {
        // A blank last line.
        if text.is_empty() && lines.next()?.is_none() {
            break;
        }
        let fields: Vec<&str> = text.split('\t').collect();
        match fields.as_slice() {
            [first, second] => {
                budget.take(path, text.len())?;
                pairs.insert((first.to_string(), second.to_string()), false);
            }
            _ => {
                return Err(Error::FieldCount {
                    path: path.to_path_buf(),
                    place: Place::Line(number),
                    expected: 2,
                    got: fields.len(),
                });
            }
        }
    }
    if pairs.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
            expected: "two sentence ids a line".to_string(),
        });
    }
    Ok(pairs)
}
