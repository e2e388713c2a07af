//! Fine-tunes a Hugging Face checkpoint on GLUE, with AdaHessian or a first-order optimizer.
//!
//! Without arguments it needs no network: the mini SqueezeBERT that comes with it is fine-tuned on a
//! shipped sample, AdaHessian beside AdamW.

mod parts;
mod shipped;

use adahessian::ops::Mode;
use anyhow::{Result, ensure};
use clap::{Args, Command};
use common::experiment::{Experiment, Parts};
use common::flags::Settings;
use common::grid::{Axis, Cell};
use common::layers::Asked;
use common::optimizers::{self, Family, Place};
use common::session::Session;
use common::values::{count, dropout, list_text};
use common::{driver, program, text};
use datasets::GlueTask;
use datasets::{Ahead, Batcher, Batches, FixedBatches, TextBatch, TextBatches, TextDataset};
use models::Model as _;
use parts::{Checkpoint, Data, Model};
use serde::{Deserialize, Serialize};
use shipped::MINI;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use trainers::{Loss, Summary, Supervised};

const ABOUT: &str = "Fine-tune a BERT, DistilBERT, RoBERTa or SqueezeBERT checkpoint on GLUE tasks with AdaHessian or \
    a first-order optimizer.\n\n\
    Without arguments: the mini SqueezeBERT that comes with the program on a shipped sample of QNLI, offline, AdaHessian \
    beside AdamW, in less than three minutes.";
const EXAMPLES: &str = "Examples:\n  \
    glue --model squeezebert/squeezebert-uncased --task rte,mrpc\n  \
    glue --model ./minilm --data ./glue_data --task sst2 --optimizer adahessian,adamw --seed 0,1,2 --out runs/sst2\n  \
    glue --optimizer adahessian,adamw --sweep lr-scale=0.1,0.3,1,3 --seed 0,1,2\n  \
    glue --model ./minilm --task rte --sweep lr=3e-3,1e-2,3e-2 --sweep dropout=0,0.1,0.2 --halving\n  \
    glue --scratch --seed 0,1,2                                   # the same without what it was pretrained on\n  \
    glue --resume runs/sst2\n\n\
    A run's model/ is a checkpoint that transformers opens as it is, of its last step; model-best/ is that of its best \
    evaluation, where that is another.";

/// Examples in a batch of an evaluation.
const EVALUATION_BATCH: usize = 32;

/// The flags of this program.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct GlueArgs {
    /// A folder with config.json, model.safetensors and tokenizer.json, a Hub id such as squeezebert/squeezebert-uncased, or
    /// `mini`, the SqueezeBERT of 1.6 million parameters that comes with the program; one in a folder that is no wider than 256
    /// has mini's rates, schedule and epochs [default: mini on the shipped sample of qnli, else a smaller one from fresh weights]
    #[arg(long, value_name = "ID_OR_DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,

    /// A folder in the GLUE download layout or with the Hub's parquet files [default: the
    /// shipped sample for mini on qnli and without a model, else the Hub]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,

    /// Tasks, separated by commas, or `all`: rte, mrpc, stsb, sst2, qnli, qqp, mnli, cola
    #[arg(long, value_name = "LIST", default_value = "qnli", value_parser = list_text, help_heading = "What to train")]
    task: String,

    /// Longest sequence in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = count, help_heading = "What to train")]
    max_length: usize,

    /// Replace the classifier that the checkpoint holds: MNLI's three labels before RTE, say
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    new_head: bool,

    /// Fresh weights, with the configuration and the tokenizer of the model, and with the rates and the epochs of fresh
    /// weights: what does its training bring?
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    #[serde(default, skip_serializing_if = "is_off")]
    scratch: bool,

    /// The probability of dropout everywhere in the model, which what is saved keeps [default: those of the model's configuration]
    #[arg(long, value_name = "P", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,

    /// Sort by length within windows of so many batches: less padding [default: off]
    #[arg(long, value_name = "BATCHES", value_parser = count, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<usize>,
}

/// Not written where it is off: runs that were begun before there was such a flag go on.
fn is_off(flag: &bool) -> bool {
    !flag
}

struct Glue;

fn main() -> ExitCode {
    let command = Command::new("glue").about(ABOUT).after_help(EXAMPLES);
    driver::main(&Glue, command)
}

impl Experiment for Glue {
    type Args = GlueArgs;
    type Data = Data;

    const NAME: &'static str = "glue";

    fn axes(own: &GlueArgs) -> Result<Vec<Axis>> {
        let tasks = GlueTask::list(&own.task)?;
        Ok(vec![Axis {
            name: "task".into(),
            values: tasks.iter().map(GlueTask::to_string).collect(),
        }])
    }

    fn default_optimizer(own: &GlueArgs) -> &'static str {
        match own.model {
            Some(_) => "adahessian",
            None => "adahessian,adamw",
        }
    }

    fn default_seeds(own: &GlueArgs) -> &'static str {
        match own.model {
            Some(_) => "0",
            None => "0,1",
        }
    }

    fn defaults(&self, asked: &Asked<GlueArgs>) -> Result<Settings<GlueArgs>> {
        let mut settings = asked.settings.clone();
        let (own, task) = (&mut settings.own, asked.settings.own.task.parse()?);
        if own.model.is_none() && own.data.is_none() && task == GlueTask::Qnli {
            own.model = Some(MINI.into());
        }
        let family = parts::family(own);
        text::defaults(&mut settings, family)?;
        settings.training.epochs = match (family, task) {
            (Family::Mini, _) => 2,
            (Family::Pretrained, GlueTask::Rte | GlueTask::Stsb) => 10,
            (Family::Pretrained, _) => 5,
            _ => 8,
        };
        settings.run.log_every = settings.run.log_every.or(Some(10));
        Ok(settings)
    }

    fn check(&self, cell: &Cell<GlueArgs>) -> Result<()> {
        let own = &cell.settings.own;
        ensure!(
            !own.scratch || own.model.is_some(),
            "--scratch: is without --model as it is, from fresh weights; leave it out, or say whose configuration to take"
        );
        ensure!(
            !own.scratch || !own.new_head,
            "--new-head: all weights are fresh with --scratch; leave one of the two out"
        );
        ensure!(
            own.model.is_some() || !own.new_head,
            "--new-head: without --model all weights are fresh; leave it out, or say which checkpoint's head to replace"
        );
        Ok(())
    }

    fn load(&self, settings: &Settings<GlueArgs>, _out: &Path) -> Result<Data> {
        let own = &settings.own;
        // First the model: a mistyped path shows before anything is downloaded.
        let checkpoint = own.model.as_deref().map(Checkpoint::named);
        Ok(Data {
            checkpoint: checkpoint.transpose()?,
            corpus: parts::corpus(settings)?,
        })
    }

    fn run(&self, cell: &Cell<GlueArgs>, data: &Data, session: Session) -> Result<Summary> {
        let (settings, corpus) = (&cell.settings, &data.corpus);
        let device = program::device(&settings.run.device)?;
        let Model {
            classifier,
            encoder,
            report,
        } = parts::model(cell, data, &device)?;
        let classifier = Arc::new(classifier);
        let train = TextDataset::encode(&encoder, &corpus.train)?;
        let batcher = Batcher {
            batch_size: settings.training.batch_size,
            seed: cell.seed,
            bucket: settings.own.bucket,
            ..Batcher::default()
        };
        let batches = Ahead::new(
            TextBatches::new(train, batcher, &device),
            settings.run.prefetch,
        );

        let model = classifier.clone();
        let forward = move |batch: &TextBatch, mode: &Mode| {
            let (types, mask) = (Some(&batch.token_type_ids), Some(&batch.attention_mask));
            let logits = model.forward(&batch.input_ids, types, mask, mode);
            logits.map_err(trainers::Error::user)
        };
        let (loss, metric) = objective(settings.own.task.parse()?);
        let validation = |rows| -> Result<FixedBatches<TextBatch>> {
            let dataset = TextDataset::encode(&encoder, rows)?;
            let batches = TextBatches::in_order(&dataset, EVALUATION_BATCH, &device)?;
            Ok(FixedBatches(batches))
        };
        let mut task =
            Supervised::new(forward, loss, validation(&corpus.validation)?).metrics(&[metric])?;
        if let Some(rows) = &corpus.mismatched {
            task = task.also("_mismatched", validation(rows)?);
        }
        let place = Place::of(cell, batches.len(0) as u64, classifier.blocks())?;
        let mark = Some(text::mark(&encoder, parts::content(corpus))?);
        let optimizer = optimizers::build(&settings.optimizer, place, &classifier.vars())?;
        session.train(Parts {
            task,
            batches,
            vars: classifier.vars(),
            optimizer,
            announce: parts::announce(cell, corpus, &classifier, report.as_ref()),
            export: Some(Box::new(move |folder| {
                classifier.save(folder)?;
                Ok(encoder.save(folder)?)
            })),
            card: parts::card(settings),
            keep_checkpoints: 2,
            mark,
        })
    }
}

/// What a task's model is trained for, and judged by.
fn objective(task: GlueTask) -> (Loss, &'static str) {
    match task {
        GlueTask::Stsb => (Loss::SquaredError, "pearson_spearman"),
        GlueTask::Mrpc | GlueTask::Qqp => (Loss::CROSS_ENTROPY, "accuracy_f1"),
        GlueTask::Cola => (Loss::CROSS_ENTROPY, "matthews"),
        _ => (Loss::CROSS_ENTROPY, "accuracy"),
    }
}
