//! The parts of a run: tasks, rows, tokenizer, model.

use crate::{Data, GlueArgs};
use anyhow::{Context, Result};
use candle_core::Device;
use common::flags::Settings;
use common::grid::Cell;
use datasets::{GlueTask, Row, Split, TextEncoder, glue, sample, wordpiece};
use models::{LoadReport, Model as _, SequenceClassifier, Start, auto, squeezebert};

/// Vocabulary of the tokenizer that is learned from the sample.
const SAMPLE_VOCABULARY: usize = 1000;

/// The tasks of a list.
pub fn tasks(text: &str) -> Result<Vec<GlueTask>> {
    // MNLI is evaluated on both of its validation sets in one run.
    let all = [
        GlueTask::Rte,
        GlueTask::Mrpc,
        GlueTask::Stsb,
        GlueTask::Sst2,
        GlueTask::Qnli,
        GlueTask::Qqp,
        GlueTask::Mnli,
        GlueTask::Cola,
    ];
    let tasks = text.split(',').map(|name| match name {
        "all" => Ok(all.to_vec()),
        name => Ok(vec![name.parse()?]),
    });
    Ok(tasks.collect::<Result<Vec<_>>>()?.concat())
}

/// The rows of one task.
pub struct Rows {
    pub train: Vec<Row>,
    pub validation: Vec<Row>,
    /// MNLI's second validation set.
    pub mismatched: Option<Vec<Row>>,
}

/// From the shipped sample, a folder or the Hub.
pub fn rows(settings: &Settings<GlueArgs>) -> Result<Rows> {
    let (own, training) = (&settings.own, &settings.training);
    let task: GlueTask = own.task.parse()?;
    let load = |task: GlueTask, split: Split| -> Result<Vec<Row>> {
        if own.data.is_none() && own.model.is_none() {
            return sample::rows(task, split)?.with_context(|| {
                format!("the shipped sample has sst2 and qnli, not {task}: give --data DIR, or --model for the Hub's data")
            });
        }
        Ok(glue::load(own.data.as_deref(), task, split)?)
    };
    let limited = |mut rows: Vec<Row>, limit: Option<usize>| {
        rows.truncate(limit.unwrap_or(usize::MAX));
        rows
    };
    let validation = |task| Ok(limited(load(task, Split::Validation)?, training.limit_eval));
    let mismatched = match task {
        // A folder may hold one of the two sets only.
        GlueTask::Mnli => match validation(GlueTask::MnliMismatched) as Result<_> {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::warn!("MNLI is evaluated on the matched set only: {error}");
                None
            }
        },
        _ => None,
    };
    Ok(Rows {
        train: limited(load(task, Split::Train)?, training.limit),
        validation: validation(task)?,
        mismatched,
    })
}

/// A classifier with its tokenizer.
pub struct Model {
    pub classifier: SequenceClassifier,
    pub encoder: TextEncoder,
    pub report: Option<LoadReport>,
}

/// The pretrained model, or a mini SqueezeBERT with a tokenizer learned from the training rows.
pub fn model(cell: &Cell<GlueArgs>, data: &Data, device: &Device) -> Result<Model> {
    let own = &cell.settings.own;
    let task: GlueTask = own.task.parse()?;
    let labels = if task.is_regression() {
        1
    } else {
        task.labels().len()
    };
    let start = Start {
        seed: cell.seed,
        device: device.clone(),
        new_head: own.new_head,
        ..Start::default()
    };
    let Some(folder) = &data.checkpoint else {
        let rows = data.rows.train.iter();
        let texts = rows.flat_map(|r| std::iter::once(r.first.as_str()).chain(r.second.as_deref()));
        let tokenizer = wordpiece::learn_wordpiece(texts, SAMPLE_VOCABULARY)?;
        let config = sample_model();
        // The sample has fewer words than the model has room for.
        let encoder = TextEncoder::new(tokenizer, own.max_length)?.allow_small_vocabulary();
        let classifier = SequenceClassifier::new(&config.architecture()?, labels, &start)?;
        return checked(classifier, encoder, None);
    };
    let encoder = TextEncoder::from_folder(folder, own.max_length)?;
    let (classifier, report) = auto::sequence_classifier(folder, Some(labels), &start)?;
    checked(classifier, encoder, Some(report))
}

/// Small enough to learn the sample from nothing in a minute.
fn sample_model() -> squeezebert::Config {
    squeezebert::Config {
        vocab_size: SAMPLE_VOCABULARY,
        hidden_size: 64,
        embedding_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 256,
        max_position_embeddings: 128,
        initializer_range: 0.05,
        ..squeezebert::Config::base()
    }
}

fn checked(
    classifier: SequenceClassifier,
    encoder: TextEncoder,
    report: Option<LoadReport>,
) -> Result<Model> {
    let architecture = classifier.encoder().architecture();
    encoder.check(architecture.vocabulary, architecture.positions)?;
    Ok(Model {
        classifier,
        encoder,
        report,
    })
}

/// What is worth saying before the first step.
pub fn announce(
    cell: &Cell<GlueArgs>,
    rows: &Rows,
    classifier: &SequenceClassifier,
    report: Option<&LoadReport>,
) -> String {
    let mismatched = rows
        .mismatched
        .as_ref()
        .map(|rows| format!(" + {}", rows.len()));
    let text = format!(
        "{} training and {}{} validation examples, {:.1} M parameters, learning rate {}",
        rows.train.len(),
        rows.validation.len(),
        mismatched.unwrap_or_default(),
        classifier.vars().elem_count() as f64 / 1e6,
        cell.settings.optimizer.rate(),
    );
    let or_none = |names: &[String]| match names {
        [] => "none".to_string(),
        names => names.join(", "),
    };
    match report {
        None => text,
        Some(report) => format!(
            "{text}\n  {} tensors loaded, fresh: {}, not used: {}",
            report.loaded.len(),
            or_none(&report.initialised),
            or_none(&report.unused)
        ),
    }
}
