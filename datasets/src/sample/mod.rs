//! Small data sets that come with the crate, so that examples and tests need no download.
//!
//! * SST-2: [`sentiment()`], generated film-review sentences, small enough for a model that starts
//!   from nothing and yet out of reach of word counts;
//! * names of persons, places and organisations: [`entities()`], generated sentences in which most
//!   names could be any of these;
//! * translation: [`number_pairs()`], German numbers and English ones, generated;
//! * QNLI: 2,400 real pairs, licence and attribution in the README beside the file. A model without
//!   pre-training learns little from them; they are for trying out pre-trained ones.

mod entities;
mod numbers;
mod sentiment;

pub use entities::entities;
pub use numbers::{english, german, number_pairs};
pub use sentiment::sentiment;

use crate::conll::{Corpus, LabelSet};
use crate::error::{Error, Place, Result};
use crate::glue::{GlueCorpus, GlueTask, Label, Row, Split};
use crate::random::Random;

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

/// Sentences for training with generated names.
const NAMES_TRAIN: usize = 400;
/// Sentences for validation with generated names.
const NAMES_VALIDATION: usize = 150;
/// The seed of the generated names.
const NAMES_SEED: u64 = 0;

/// One of `words`.
fn pick(random: &mut Random, words: &[&'static str]) -> &'static str {
    words.get(random.below(words.len())).copied().unwrap_or("")
}

/// The sample of labelled words: 400 sentences for training and 150 others for validation.
///
/// # Errors
/// None in practice: the sentences have all labels.
pub fn entity_corpus() -> Result<Corpus> {
    let mut train = entities(NAMES_SEED, NAMES_TRAIN + NAMES_VALIDATION);
    let validation = train.split_off(NAMES_TRAIN);
    Ok(Corpus {
        labels: LabelSet::of(&train)?,
        train,
        validation,
    })
}

/// The sample of a GLUE task, both of its splits; `None` where [`rows`] has none.
///
/// # Errors
/// If the embedded file is damaged.
pub fn glue_corpus(task: GlueTask) -> Result<Option<GlueCorpus>> {
    let splits = (rows(task, Split::Train)?, rows(task, Split::Validation)?);
    let (Some(train), Some(validation)) = splits else {
        return Ok(None);
    };
    Ok(Some(GlueCorpus {
        train,
        validation,
        mismatched: None,
        skipped: 0,
    }))
}

/// The sample of a task: SST-2 with 1,600 and 400 rows, QNLI with 2,000 and 400; `None` for other
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
