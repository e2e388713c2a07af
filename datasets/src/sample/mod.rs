//! Small data sets that come with the crate, so that examples and tests need no download.
//!
//! * SST-2: [`sentiment()`], generated film-review sentences, small enough for a model that starts
//!   from nothing and yet out of reach of word counts;
//! * QNLI: 800 real pairs, licence and attribution in the README beside the file. A model without
//!   pre-training learns little from them; they are for trying out pre-trained ones.

mod sentiment;

pub use sentiment::sentiment;

use crate::error::{Error, Place, Result};
use crate::glue::{GlueTask, Label, Row, Split};

/// `split, question, sentence, label`, tab-separated, with a header.
const QNLI: &str = include_str!("qnli.tsv");
/// What errors call that file.
const QNLI_NAME: &str = "sample/qnli.tsv";

/// Sentences for training in the generated SST-2.
const SST2_TRAIN: usize = 1600;
/// Sentences for validation in the generated SST-2.
const SST2_VALIDATION: usize = 400;
/// The seed of the generated SST-2.
const SST2_SEED: u64 = 0;

/// The sample of a task: SST-2 with 1,600 and 400 rows, QNLI with 600 and 200; `None` for other
/// tasks and for the test split.
///
/// # Errors
/// If the embedded file is damaged.
pub fn rows(task: GlueTask, split: Split) -> Result<Option<Vec<Row>>> {
    match (task, split) {
        (GlueTask::Sst2 | GlueTask::Qnli, Split::Test) => Ok(None),
        (GlueTask::Sst2, _) => {
            // One stream of different sentences, cut in two: no sentence is in both splits.
            let mut train = sentiment(SST2_SEED, SST2_TRAIN + SST2_VALIDATION);
            let validation = train.split_off(SST2_TRAIN);
            Ok(Some(if split == Split::Train {
                train
            } else {
                validation
            }))
        }
        (GlueTask::Qnli, _) => qnli(split).map(Some),
        _ => Ok(None),
    }
}

fn qnli(split: Split) -> Result<Vec<Row>> {
    let name = split.to_string();
    let mut rows = Vec::new();
    for (index, line) in QNLI.lines().enumerate().skip(1) {
        let place = Place::Line(index + 1);
        let fields: Vec<&str> = line.split('\t').collect();
        let [part, question, sentence, label] = fields[..] else {
            return Err(Error::FieldCount {
                path: QNLI_NAME.into(),
                place,
                expected: 4,
                got: fields.len(),
            });
        };
        if part != name {
            continue;
        }
        let labels = GlueTask::Qnli.labels();
        let class = labels.iter().position(|&l| l == label);
        let class = class.ok_or_else(|| Error::BadLabel {
            path: QNLI_NAME.into(),
            place,
            column: "label",
            expected: format!("one of {}", labels.join(", ")),
            got: label.to_string(),
        })?;
        rows.push(Row {
            first: question.to_string(),
            second: Some(sentence.to_string()),
            label: Some(Label::Class(class as u32)),
        });
    }
    Ok(rows)
}
