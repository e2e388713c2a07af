//! The parts of a run: rows, tokenizer, model.

use crate::GlueArgs;
use crate::shipped::{self, MINI};
use anyhow::{Context, Result};
use candle_core::Device;
use common::card::{Card, hub_id};
use common::flags::Settings;
use common::grid::Cell;
use common::optimizers::Family;
use common::text;
use datasets::{GlueCorpus, GlueTask, TextEncoder, hub, sample};
use models::{LoadReport, Model as _, Problem, SequenceClassifier, Start, auto, squeezebert};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Vocabulary of the tokenizer that is learned from the sample.
const SAMPLE_VOCABULARY: usize = 1000;

/// Rows of one task, and the checkpoint to start from.
pub struct Data {
    pub corpus: GlueCorpus,
    pub checkpoint: Option<Checkpoint>,
}

/// Where a checkpoint's files lie.
pub enum Checkpoint {
    Folder(PathBuf),
    /// The shipped one.
    Shipped(TempDir),
}

impl Checkpoint {
    /// What `--model` names: the shipped one, a folder, or an id of the Hub.
    pub fn named(model: &str) -> Result<Self> {
        Ok(match model {
            MINI => Self::Shipped(shipped::folder()?),
            _ => Self::Folder(hub::checkpoint_folder(model)?),
        })
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Shipped(folder) => folder.path(),
        }
    }
}

/// The width up to which a checkpoint learns at the rates of the shipped model rather than of the large ones.
const MINI_WIDTH: usize = 256;

/// What the weights begin as: fresh, or those of a checkpoint, whose size says at what rates it learns.
pub fn family(own: &GlueArgs) -> Family {
    let is_mini = |model: &str| {
        let width =
            || -> Result<usize> { Ok(auto::Config::read(Path::new(model))?.architecture()?.width) };
        // What cannot be read is an error where it is loaded; of the Hub's models nothing is here yet.
        model == MINI || width().is_ok_and(|width| width <= MINI_WIDTH)
    };
    match &own.model {
        Some(model) if !own.scratch && is_mini(model) => Family::Mini,
        Some(_) if !own.scratch => Family::Pretrained,
        _ => Family::Scratch,
    }
}

/// The task, where its rows are those that come with the program.
fn sampled(own: &GlueArgs) -> Option<GlueTask> {
    let task: GlueTask = own.task.parse().ok()?;
    let fits = match own.model.as_deref() {
        // The generated sentences of the other sample are none that its words were learned from.
        Some(MINI) => task == GlueTask::Qnli,
        model => model.is_none(),
    };
    (fits && own.data.is_none()).then_some(task)
}

/// From the shipped sample, a folder or the Hub.
pub fn corpus(settings: &Settings<GlueArgs>) -> Result<GlueCorpus> {
    let (own, training) = (&settings.own, &settings.training);
    let task: GlueTask = own.task.parse()?;
    let mut corpus = match sampled(own) {
        Some(task) => sample::glue_corpus(task)?.with_context(|| {
            format!("the shipped sample has sst2 and qnli, not {task}: give --data DIR, or --model for the Hub's data")
        })?,
        None => GlueCorpus::load(own.data.as_deref(), task)?,
    };
    if task == GlueTask::Mnli && corpus.mismatched.is_none() {
        tracing::warn!("MNLI is evaluated on the matched set only: the folder has no other");
    }
    corpus.truncate(training.limit, training.limit_eval);
    Ok(corpus)
}

/// All rows, for a checksum.
pub fn content(corpus: &GlueCorpus) -> impl Iterator<Item = String> {
    let rows = corpus.train.iter().chain(&corpus.validation);
    let rows = rows.chain(corpus.mismatched.iter().flatten());
    rows.map(|row| format!("{:?}\t{:?}\t{:?}", row.first, row.second, row.label))
}

/// A classifier with its tokenizer.
pub struct Model {
    pub classifier: SequenceClassifier,
    pub encoder: TextEncoder,
    pub report: Option<LoadReport>,
}

/// The pretrained model, or a small SqueezeBERT with a tokenizer learned from the training rows.
pub fn model(cell: &Cell<GlueArgs>, data: &Data, device: &Device) -> Result<Model> {
    let own = &cell.settings.own;
    let task: GlueTask = own.task.parse()?;
    let labels = task.labels().len().max(1); // a score is one number
    let start = Start {
        seed: cell.seed,
        device: device.clone(),
        new_head: own.new_head,
        ..Start::default()
    };
    let (classifier, encoder, report) = match data.checkpoint.as_ref().map(Checkpoint::path) {
        Some(folder) => {
            let encoder = TextEncoder::from_folder(folder, own.max_length)?;
            let checkpoint = text::checkpoint(folder, own.dropout)?;
            if own.scratch {
                let architecture = checkpoint.config().architecture()?;
                let classifier = SequenceClassifier::new(&architecture, labels, &start)?;
                (classifier, encoder, None)
            } else {
                let (classifier, report) = checkpoint.sequence_classifier(Some(labels), &start)?;
                (classifier, encoder, Some(report))
            }
        }
        None => {
            let encoder = text::learned(data.corpus.texts(), SAMPLE_VOCABULARY, own.max_length)?;
            let config = auto::Config::SqueezeBert(sample_model());
            let architecture = text::with_dropout(config, own.dropout).architecture()?;
            let classifier = SequenceClassifier::new(&architecture, labels, &start)?;
            (classifier, encoder, None)
        }
    };
    let problem = match task.labels().len() {
        0 => Problem::Regression,
        _ => Problem::SingleLabel,
    };
    let classifier = classifier.with_problem(problem);
    let names: Vec<String> = task.labels().iter().map(ToString::to_string).collect();
    let classifier = match names.is_empty() {
        true => classifier, // a score
        false => classifier.with_label_names(&names)?,
    };
    let architecture = classifier.encoder().architecture();
    encoder.check(architecture.vocabulary, architecture.positions)?;
    Ok(Model {
        classifier,
        encoder,
        report,
    })
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

/// What is worth saying before the first step.
pub fn announce(
    cell: &Cell<GlueArgs>,
    corpus: &GlueCorpus,
    classifier: &SequenceClassifier,
    report: Option<&LoadReport>,
) -> String {
    let mismatched = corpus.mismatched.as_ref();
    let mismatched = mismatched.map(|rows| format!(" + {}", rows.len()));
    let skipped = match corpus.skipped {
        0 => String::new(),
        rows => format!(" ({rows} rows that are not whole left out)"),
    };
    // Beside it in a comparison may be a task whose rows are the Hub's.
    let sample = sampled(&cell.settings.own).map_or("", |_| " of the shipped sample");
    format!(
        "{} training and {}{} validation examples{sample}{skipped}, {:.1} M parameters, learning rate {}{}",
        corpus.train.len(),
        corpus.validation.len(),
        mismatched.unwrap_or_default(),
        classifier.vars().elem_count() as f64 / 1e6,
        cell.settings.optimizer.rate_said(),
        text::loaded(report),
    )
}

/// What the trained classifier is.
pub fn card(settings: &Settings<GlueArgs>) -> Card {
    let own = &settings.own;
    let checkpoint = own.model.as_deref().filter(|_| !own.scratch);
    let base = checkpoint.filter(|model| *model != MINI).and_then(hub_id);
    let began = match (&own.model, &base) {
        _ if own.scratch => "Fresh weights".to_string(),
        (None, _) => "A small SqueezeBERT from fresh weights".to_string(),
        (Some(model), _) if model == MINI => "The mini SqueezeBERT of `glue`".to_string(),
        (Some(_), Some(id)) => format!("`{id}`"),
        (Some(_), None) => "A checkpoint".to_string(),
    };
    Card {
        what: match sampled(own) {
            Some(GlueTask::Qnli) => {
                format!("{began}, fine-tuned on a small sample of `qnli` of GLUE")
            }
            Some(task) => {
                format!("{began}, fine-tuned on generated sentences in the manner of `{task}`")
            }
            None => format!("{began}, fine-tuned on `{}` of GLUE", own.task),
        },
        pipeline: Some("text-classification"),
        base,
        datasets: match sampled(own) {
            None | Some(GlueTask::Qnli) => vec!["nyu-mll/glue"],
            // The generated sentences are none of GLUE's.
            Some(_) => Vec::new(),
        },
        ..Card::default()
    }
}
