//! GLUE: tab-separated files and parquet.

use datasets::Split;
use datasets::glue::{self, GlueTask, Ragged};

use crate::{Scratch, parts, settings};

const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

fn task(byte: u8) -> GlueTask {
    let all = GlueTask::all();
    all[usize::from(byte) % all.len()]
}

/// The folder and file of a task's split.
fn place(task: GlueTask, split: Split) -> (&'static str, &'static str) {
    let folder = match task {
        GlueTask::Rte => "RTE",
        GlueTask::Mrpc => "MRPC",
        GlueTask::Stsb => "STS-B",
        GlueTask::Sst2 => "SST-2",
        GlueTask::Qnli => "QNLI",
        GlueTask::Qqp => "QQP",
        GlueTask::Mnli | GlueTask::MnliMismatched => "MNLI",
        GlueTask::Cola => "CoLA",
    };
    let file = match (split, task) {
        (Split::Train, _) => "train.tsv",
        (Split::Validation, GlueTask::Mnli) => "dev_matched.tsv",
        (Split::Validation, GlueTask::MnliMismatched) => "dev_mismatched.tsv",
        (Split::Validation, _) => "dev.tsv",
        (Split::Test, GlueTask::Mnli) => "test_matched.tsv",
        (Split::Test, GlueTask::MnliMismatched) => "test_mismatched.tsv",
        (Split::Test, _) => "test.tsv",
    };
    (folder, file)
}

/// A file of the GLUE download: task; split (two bits), ragged rows skipped (4), gzipped (8), MRPC in the
/// corpus's own files (16); the file, or the corpus and the list of its development pairs.
pub fn glue_tsv(data: &[u8]) -> bool {
    let ([first, second], file) = settings(data);
    let scratch = Scratch::new();
    let split = SPLITS[usize::from(second & 3) % 3];
    let ragged = match second & 4 {
        0 => Ragged::Refuse,
        _ => Ragged::SkipAndCount,
    };
    let ending = if second & 8 == 0 { "" } else { ".gz" };
    let mut task = task(first);
    if second & 16 != 0 {
        task = GlueTask::Mrpc;
        let [pairs, corpus] = parts(file);
        scratch.put("MRPC/dev_ids.tsv", pairs);
        let part = if split == Split::Test {
            "test"
        } else {
            "train"
        };
        scratch.put(&format!("MRPC/msr_paraphrase_{part}.txt{ending}"), corpus);
    } else {
        let (folder, name) = place(task, split);
        scratch.put(&format!("{folder}/{name}{ending}"), file);
    }
    let loaded = glue::load_folder_with(scratch.path(), task, split, ragged);
    loaded.is_ok_and(|loaded| {
        assert!(!loaded.rows.is_empty(), "no rows, and no error");
        true
    })
}

/// A parquet file of a task: task, split, file.
pub fn glue_parquet(data: &[u8]) -> bool {
    let ([first, second], file) = settings(data);
    let scratch = Scratch::new();
    let path = scratch.put("x.parquet", file);
    let split = SPLITS[usize::from(second) % 3];
    let rows = glue::load_parquet(&path, task(first), split);
    rows.is_ok_and(|rows| {
        assert!(!rows.is_empty(), "no rows, and no error");
        true
    })
}
