//! Trains a SqueezeBERT or a BERT on text without labels: a share of the tokens is hidden, and the model is to say them.
//!
//! What it saves is a checkpoint that `glue` and transformers fine-tune.

mod parts;
mod task;
mod words;

use anyhow::{Context, Result};
use candle_core::DType;
use clap::{Args, Command};
use common::card::Card;
use common::experiment::{Column, Experiment, Parts};
use common::flags::Settings;
use common::grid::Cell;
use common::layers::Asked;
use common::optimizers::{self, Family, Place};
use common::session::Session;
use common::values::{count, dropout, not_negative, share};
use common::{driver, program, text};
use datasets::{Ahead, Batcher, Batches, MaskedBatches, Masking, Packed};
use models::Model as _;
use parts::Data;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use task::Hidden;
use trainers::Summary;

const ABOUT: &str = "Train a SqueezeBERT or a BERT on text without labels, with LAMB, AdaHessian or another optimizer: a share of \
    the tokens is hidden, and the model is to say them.\n\n\
    Without --data: a tiny one on the sentences of the shipped sample, offline.";
const EXAMPLES: &str = "Examples:\n  \
    pretrain --data ./wikitext-2 --preset squeezebert-mini --layers 6 --vocabulary 5000 --positions 256 --epochs 100 --out runs/mini\n  \
    pretrain --data ./wikitext-2 --model runs/mini/model --max-length 256 --out runs/longer   # a second phase\n  \
    pretrain --data ./wikitext-2 --model runs/mini/model --pairs next --out runs/pairs       # and a second head: is it what follows?\n  \
    glue --model runs/mini/model --task qnli";

/// Sequences in a batch of an evaluation.
const EVALUATION_BATCH: usize = 32;
/// The seed of what is hidden in an evaluation: the same for all runs.
const EVALUATION_SEED: u64 = 0;

#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PretrainArgs {
    /// A folder with train.txt and valid.txt, or WikiText's wiki.train.tokens (or .raw) and wiki.valid.tokens, plain or .gz, or the
    /// Hub's train-NNNNN-of-NNNNN.parquet and validation-NNNNN-of-NNNNN.parquet with a column `text`; their tokens are kept in
    /// OUT-data, four bytes each [default: the shipped sample's sentences]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,

    /// Go on from a folder with config.json, model.safetensors and tokenizer.json; the rate is that of fresh weights unless
    /// --lr says otherwise [default: fresh weights]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,

    /// squeezebert (base), squeezebert-mini (4 layers, width 256), squeezebert-tiny (2 layers, width 64), bert (base),
    /// bert-mini or bert-tiny [default: squeezebert-mini, of the sample squeezebert-tiny]
    #[arg(long, default_value = "squeezebert-mini", hide_default_value = true, value_parser = parts::PRESETS, help_heading = "What to train")]
    preset: String,

    /// Width of the hidden states, a multiple of the heads and of the groups: of 4, or 12 for the base models [default: the
    /// preset's]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,

    /// Layers [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,

    /// Pieces of words that are learned from the text [default: 8000, of the sample 1000]
    #[arg(long, value_name = "N", default_value_t = 8000, hide_default_value = true, value_parser = count, help_heading = "What to train")]
    vocabulary: usize,

    /// Length of the sequences in tokens [default: 128, of the sample 32]
    #[arg(long, value_name = "TOKENS", default_value_t = 128, hide_default_value = true, value_parser = count, help_heading = "What to train")]
    max_length: usize,

    /// Longest sequence that the model can ever take [default: 128, or --max-length where that is more]
    #[arg(long, value_name = "TOKENS", default_value_t = 128, hide_default_value = true, value_parser = count, help_heading = "What to train")]
    positions: usize,

    /// Share of the tokens that are to be said
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = share, help_heading = "How to train")]
    mask_share: f64,

    /// Hide all pieces of a word, or none
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "How to train")]
    whole_words: bool,

    /// Cut sequences in two, and learn what the parts are to each other, too: whether the second is what follows in the text
    /// (next), whether their order is the text's (order), or whether the first is words of the second (excerpt)
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = parts::PAIRS, help_heading = "How to train")]
    #[serde(
        default = "parts::no_pairs",
        skip_serializing_if = "parts::is_no_pairs"
    )]
    pairs: String,

    /// Save the model in half precision: half the bytes, and read as any other
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "The run")]
    #[serde(default, skip_serializing_if = "is_off")]
    half: bool,

    /// Dropout of hidden states and attention [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,

    /// Begin with attention to words that are alike, this strong, as 0.8; 0: all weights are drawn independently, as is
    /// published
    #[arg(long, value_name = "STRENGTH", default_value_t = 0.0, value_parser = not_negative, help_heading = "How to train")]
    #[serde(default, skip_serializing_if = "is_nothing")]
    mimetic: f64,
}

const COLUMNS: [Column; 4] = [
    Column::new("loss", "loss", 1.0, 4),
    Column::new("perplexity", "perplexity", 1.0, 2),
    Column::new("accuracy", "accuracy", 100.0, 2),
    Column::new("pair_accuracy", "pairs", 100.0, 2),
];

/// Not written where it is off: runs that were begun before there was such a flag go on.
fn is_off(flag: &bool) -> bool {
    !flag
}

fn is_nothing(strength: &f64) -> bool {
    *strength == 0.0
}

struct Pretrain;

fn main() -> ExitCode {
    let command = Command::new("pretrain").about(ABOUT).after_help(EXAMPLES);
    driver::main(&Pretrain, command)
}

impl Experiment for Pretrain {
    type Args = PretrainArgs;
    type Data = Data;

    const NAME: &'static str = "pretrain";

    fn default_optimizer(_own: &PretrainArgs) -> &'static str {
        "lamb"
    }

    fn defaults(&self, asked: &Asked<PretrainArgs>) -> Result<Settings<PretrainArgs>> {
        let mut settings = asked.settings.clone();
        text::defaults(&mut settings, Family::Scratch)?;
        let (training, own) = (&mut settings.training, &mut settings.own);
        training.batch_size = 32;
        training.epochs = 10;
        let (preset, vocabulary) = parts::default_sizes(own);
        (own.preset, own.vocabulary) = (preset.into(), vocabulary);
        if own.data.is_none() {
            own.max_length = 32;
        }
        own.positions = asked.settings.own.max_length.max(own.positions);
        settings.run.prefetch = 3;
        Ok(settings)
    }

    fn check(&self, cell: &Cell<PretrainArgs>) -> Result<()> {
        parts::check(&cell.settings.own)
    }

    fn load(&self, settings: &Settings<PretrainArgs>, out: &Path) -> Result<Data> {
        parts::load(settings, out)
    }

    fn run(&self, cell: &Cell<PretrainArgs>, data: &Data, session: Session) -> Result<Summary> {
        let (settings, own) = (&cell.settings, &cell.settings.own);
        let device = program::device(&settings.run.device)?;
        let (model, report) = parts::model(cell, data, &device)?;
        let model = Arc::new(model);
        let batches = |text: &Packed, seed, batcher| -> Result<MaskedBatches> {
            let masking = Masking::new(own.mask_share, own.whole_words, seed)?;
            let batches = MaskedBatches::new(text.clone(), masking, batcher);
            Ok(match parts::pairing(&own.pairs) {
                Some(pairing) => batches.paired(pairing)?,
                None => batches,
            })
        };
        let shuffled = Batcher {
            batch_size: settings.training.batch_size,
            seed: cell.seed,
            shuffle: true,
            ..Batcher::default()
        };
        let in_order = Batcher {
            batch_size: EVALUATION_BATCH,
            shuffle: false,
            ..Batcher::default()
        };
        let train = batches(&data.train, cell.seed, shuffled)?;
        let validation = batches(&data.validation, EVALUATION_SEED, in_order)?;
        let batches = Ahead::new(train, settings.run.prefetch);
        let half = own.half;
        let place = Place::of(cell, batches.len(0) as u64, model.blocks())?;
        let (vars, encoder) = (model.vars(), data.encoder.clone());
        session.train(Parts {
            task: Hidden {
                model: model.clone(),
                validation,
            },
            batches,
            optimizer: optimizers::build(&settings.optimizer, place, &vars)?,
            announce: format!(
                "{} training and {} validation sequences of {} tokens, {} words, {:.2} M parameters, learning rate {}{}",
                data.train.len(),
                data.validation.len(),
                data.train.length(),
                encoder.vocab_size(),
                vars.elem_count() as f64 / 1e6,
                settings.optimizer.rate_said(),
                text::loaded(report.as_ref()),
            ),
            vars,
            mark: Some(text::mark(&encoder, data.content())?),
            export: Some(Box::new(move |folder| {
                match half {
                    true => model.save_as(folder, DType::F16).context("--half")?,
                    false => model.save(folder)?,
                }
                Ok(encoder.save(folder)?)
            })),
            card: Card {
                what: "An encoder that was trained to say hidden words, to be fine-tuned".into(),
                pipeline: Some("fill-mask"),
                ..Card::default()
            },
            keep_checkpoints: 2,
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
}
