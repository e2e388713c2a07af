//! The parts of a run: rows, tokenizer, model, task.

use adahessian::NamedVars;
use adahessian::ops::Mode;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use common::settings::Settings;
use datasets::{
    GlueTask, Hub, RepoKind, Row, Split, TextBatch, TextDataset, TextEncoder, glue, sample,
    wordpiece,
};
use models::auto;
use models::squeezebert;
use models::{LoadReport, Model as _, SequenceClassifier, Start};
use std::path::{Path, PathBuf};
use trainers::metrics::ClassMetric;
use trainers::tasks::{Classification, Regression, TextBatches};
use trainers::{Scores, Task};

/// Vocabulary of the tokenizer that is learned from the sample.
const SAMPLE_VOCABULARY: usize = 1000;

/// The rows of one task: for training, and each validation set under its name.
pub struct Rows {
    pub train: Vec<Row>,
    pub validation: Vec<(&'static str, Vec<Row>)>,
}

/// From the shipped sample, a folder or the Hub.
pub fn rows(settings: &Settings, task: GlueTask) -> Result<Rows> {
    let load = |task: GlueTask, split: Split| -> Result<Vec<Row>> {
        if settings.data.is_none() && settings.model.is_none() {
            return sample::rows(task, split)?.with_context(|| {
                format!("the shipped sample has sst2 and qnli, not {task}: give --data DIR, or --model for the Hub's data")
            });
        }
        Ok(glue::load(settings.data.as_deref(), task, split)?)
    };
    let mut train = load(task, Split::Train)?;
    train.truncate(settings.limit.unwrap_or(usize::MAX));
    let mut validation = vec![("", load(task, Split::Validation)?)];
    if task == GlueTask::Mnli {
        // A folder may hold one of the two sets only.
        match load(GlueTask::MnliMismatched, Split::Validation) {
            Ok(rows) => validation.push(("_mismatched", rows)),
            Err(error) => tracing::warn!("MNLI is evaluated on the matched set only: {error}"),
        }
    }
    Ok(Rows { train, validation })
}

/// The folder of a checkpoint: the path itself, or the files of a Hub id in the cache.
pub fn checkpoint_folder(model: &str) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.into());
    }
    // A Hub id is OWNER/NAME; everything else that is no folder is a path mistyped.
    let id = model.split('/').count() == 2 && !model.starts_with(['.', '/', '~']);
    if !id {
        bail!("--model {model}: is no folder here, and no Hub id (OWNER/NAME)");
    }
    let hub = Hub {
        progress: true,
        ..Hub::from_env()?
    };
    let get = |file: &str| hub.get(RepoKind::Model, model, None, file);
    let config = get("config.json").with_context(|| {
        format!("--model {model} is no folder here, so it is taken for a Hub id")
    })?;
    get("model.safetensors")?;
    if get("tokenizer.json").is_err() {
        get("vocab.txt")?;
    }
    let folder = config
        .parent()
        .context("the cache gave a file without a folder")?;
    Ok(folder.into())
}

/// A classifier with its tokenizer.
pub struct Model {
    pub classifier: SequenceClassifier,
    pub encoder: TextEncoder,
    pub report: Option<LoadReport>,
}

/// The pretrained model, or a mini SqueezeBERT with a tokenizer learned from the training rows.
pub fn model(
    settings: &Settings,
    checkpoint: Option<&Path>,
    task: GlueTask,
    rows: &Rows,
    device: &Device,
) -> Result<Model> {
    let labels = if task.is_regression() {
        1
    } else {
        task.labels().len()
    };
    let max_length = settings.max_length.unwrap_or(128);
    let start = Start {
        seed: settings.seed.unwrap_or(0),
        device: device.clone(),
        new_head: settings.new_head.unwrap_or(false),
        ..Start::default()
    };
    let Some(folder) = checkpoint else {
        let texts = rows
            .train
            .iter()
            .flat_map(|r| std::iter::once(r.first.as_str()).chain(r.second.as_deref()));
        let tokenizer = wordpiece::learn_wordpiece(texts, SAMPLE_VOCABULARY)?;
        let config = sample_model();
        let encoder = TextEncoder::new(tokenizer, max_length)?;
        let classifier = SequenceClassifier::new(&config.architecture()?, labels, &start)?;
        return checked(classifier, encoder, None);
    };
    let encoder = TextEncoder::from_folder(folder, max_length)?;
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

type Forward = Box<dyn Fn(&TextBatch, &Mode) -> trainers::Result<Tensor>>;

/// One validation set with its loss and metrics.
enum Part {
    Classes(Classification<TextBatch, Forward>),
    Values(Regression<TextBatch, Forward>),
}

/// A GLUE task: it trains on the first part's loss and evaluates all parts.
pub struct Glue {
    parts: Vec<(&'static str, Part)>,
    pub vars: NamedVars,
}

impl Glue {
    pub fn new(
        task: GlueTask,
        model: Model,
        rows: &Rows,
        device: &Device,
    ) -> Result<(Self, SequenceClassifierHandle)> {
        let Model {
            classifier,
            encoder,
            ..
        } = model;
        let classifier = std::sync::Arc::new(classifier);
        let mut parts = Vec::new();
        for (name, rows) in &rows.validation {
            let dataset = TextDataset::encode(&encoder, rows)?;
            let batches = TextBatches::in_order(&dataset, 32, device)?;
            parts.push((*name, part(task, forward(classifier.clone()), batches)));
        }
        let vars = classifier.vars();
        Ok((
            Self { parts, vars },
            SequenceClassifierHandle {
                classifier,
                encoder,
            },
        ))
    }
}

/// What is needed of the model after training: to save it with its tokenizer.
pub struct SequenceClassifierHandle {
    classifier: std::sync::Arc<SequenceClassifier>,
    encoder: TextEncoder,
}

impl SequenceClassifierHandle {
    /// Writes config.json, model.safetensors and tokenizer.json as transformers reads them.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.classifier.save(folder)?;
        let path = folder.join("tokenizer.json");
        let saved = self.encoder.tokenizer().save(&path, true);
        saved.map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
    }
}

fn forward(classifier: std::sync::Arc<SequenceClassifier>) -> Forward {
    Box::new(move |batch, mode| {
        let (types, mask) = (Some(&batch.token_type_ids), Some(&batch.attention_mask));
        let logits = classifier.forward(&batch.input_ids, types, mask, mode);
        logits.map_err(trainers::Error::user)
    })
}

fn part(task: GlueTask, forward: Forward, batches: Vec<TextBatch>) -> Part {
    let metric = match task {
        GlueTask::Stsb => return Part::Values(Regression::new(forward, batches)),
        GlueTask::Mrpc | GlueTask::Qqp => ClassMetric::AccuracyF1,
        GlueTask::Cola => ClassMetric::Matthews,
        _ => ClassMetric::Accuracy,
    };
    Part::Classes(Classification::new(forward, batches).metric(metric))
}

impl Part {
    fn task(&self) -> &dyn Task<Batch = TextBatch> {
        match self {
            Part::Classes(task) => task,
            Part::Values(task) => task,
        }
    }
}

impl Task for Glue {
    type Batch = TextBatch;

    fn size(&self, batch: &TextBatch) -> usize {
        self.parts[0].1.task().size(batch)
    }

    fn narrow(&self, batch: &TextBatch, start: usize, len: usize) -> trainers::Result<TextBatch> {
        self.parts[0].1.task().narrow(batch, start, len)
    }

    fn loss(&self, batch: &TextBatch, mode: &Mode) -> trainers::Result<Tensor> {
        self.parts[0].1.task().loss(batch, mode)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        let mut scores = self.parts[0].1.task().evaluate()?;
        for (suffix, part) in &self.parts[1..] {
            for (name, value) in part.task().evaluate()?.iter() {
                scores = scores.with(&format!("{name}{suffix}"), value);
            }
        }
        Ok(scores)
    }
}
