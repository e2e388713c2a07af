//! `language_model train`: the flags, the defaults, and how a run is put together.

use crate::corpus::{self, Data, VOCABULARY};
use adahessian::ops::Mode;
use adahessian::without_graph;
use anyhow::{Result, bail, ensure};
use candle_core::{DType, Tensor};
use clap::Args;
use common::card::Card;
use common::experiment::{Column, Experiment, Parts};
use common::flags::Settings;
use common::grid::Cell;
use common::layers::Asked;
use common::optimizers::{self, Family, Place};
use common::program;
use common::session::Session;
use common::text::perplexity;
use common::values::{count, counts, counts_text, dropout, share};
use datasets::words::WordWindows;
use datasets::{Ahead, Batcher, Batches, LabelledBatch, TensorBatch};
use models::language_model::{Attention, Config};
use models::{LanguageModel, Model as _, Start};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trainers::{Scores, Summary, Task};

pub const ABOUT: &str = "Train a language model with AdaHessian or a first-order optimizer: a tensorized transformer, or with \
    --attention standard a transformer of its size.\n\n\
    Without --data: a small one on the sentences of the shipped sample, offline.";

/// As many words as a model may have.
const MOST_WORDS: usize = 1 << 24;

#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageArgs {
    /// A folder with ptb.train.txt, wiki.train.tokens or train.txt, and the like for valid and test, words with blanks
    /// between, plain or .gz [default: the shipped sample's sentences]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// ptb or wikitext-103 [default: ptb; of the sample a small one]
    #[arg(long, default_value = "ptb", hide_default_value = true, value_parser = ["ptb", "wikitext-103", "tiny"], help_heading = "What to train")]
    pub preset: String,

    /// block-term (multi-linear, Ma et al. 2019) or standard
    #[arg(long, default_value = "block-term", value_parser = ["block-term", "standard"], help_heading = "What to train")]
    pub attention: String,

    /// Cores of a block-term attention
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, help_heading = "What to train")]
    pub cores: usize,

    /// Layers [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,

    /// Words that are looked at at once [default: the preset's]
    #[arg(long, value_name = "WORDS", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,

    /// Words from each of these numbers on are foretold in two steps: an adaptive softmax; 0 for none
    /// [default: the preset's]
    #[arg(long, value_name = "LIST", value_parser = cutoffs_text, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutoffs: Option<String>,

    /// The most frequent words only, the others being <unk> [default: all]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,

    /// As the published code, which lets each word see the words to be foretold: its perplexities are none of a language
    /// model
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    pub reference_unmasked: bool,

    /// Dropout [default: the preset's, 0.3]
    #[arg(long, value_name = "SHARE", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,

    /// Probability mass spread over all words; 0 with an adaptive softmax [default: 0.1]
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, hide_default_value = true, value_parser = share, help_heading = "How to train")]
    pub label_smoothing: f64,
}

/// As [`counts_text`], or `0`.
fn cutoffs_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "0" => Ok("0".into()),
        text => counts_text(text),
    }
}

impl LanguageArgs {
    /// The model's configuration, for so many words.
    fn config(&self, vocab_size: usize) -> Result<Config> {
        let base = match self.preset.as_str() {
            "tiny" => Config {
                d_model: 64,
                num_layers: 2,
                rank: 16,
                ffn_dim: 128,
                window: 16,
                dropout: 0.1,
                ..Config::penn_treebank()
            },
            preset => Config::preset(preset)?,
        };
        let cutoffs = match self.cutoffs.as_deref() {
            None => base.cutoffs.clone(),
            Some("0") => Vec::new(),
            Some(text) => {
                let given = counts(text).map_err(anyhow::Error::msg)?;
                ensure!(
                    given.iter().all(|&at| at < vocab_size),
                    "--cutoffs {text}: the text has {vocab_size} different words; leave out what is beyond"
                );
                given
            }
        };
        Ok(Config {
            vocab_size,
            attention: match self.attention.as_str() {
                "standard" => Attention::Standard,
                _ => Attention::BlockTerm,
            },
            cores: self.cores,
            num_layers: self.layers.unwrap_or(base.num_layers),
            window: self.window.unwrap_or(base.window),
            reference_unmasked: self.reference_unmasked,
            dropout: self.dropout.unwrap_or(base.dropout),
            // A preset's, of a text that has fewer words.
            cutoffs: cutoffs.into_iter().filter(|&at| at < vocab_size).collect(),
            ..base
        })
    }
}

fn expect_no_smoothing(own: &LanguageArgs, adaptive: bool) -> Result<()> {
    ensure!(
        !adaptive || own.label_smoothing == 0.0,
        "--label-smoothing: an adaptive softmax, as --cutoffs and --preset wikitext-103 have it, spreads nothing; leave it \
         out, or take --cutoffs 0"
    );
    Ok(())
}

const COLUMNS: [Column; 4] = [
    Column::new("loss", "loss", 1.0, 4),
    Column::new("perplexity", "perplexity", 1.0, 2),
    Column::new("test_loss", "test loss", 1.0, 4),
    Column::new("test_perplexity", "test ppl", 1.0, 2),
];

pub struct Language;

impl Experiment for Language {
    type Args = LanguageArgs;
    type Data = Data;

    const NAME: &'static str = "language_model";

    fn default_optimizer(own: &LanguageArgs) -> &'static str {
        match own.data {
            Some(_) => "adahessian",
            None => "adahessian,adamw",
        }
    }

    fn defaults(&self, asked: &Asked<LanguageArgs>) -> Result<Settings<LanguageArgs>> {
        let mut settings = asked.settings.clone();
        let preset = match (asked.has("preset"), &settings.own.data) {
            (true, _) => settings.own.preset.clone(),
            (false, Some(_)) => "ptb".into(),
            (false, None) => "tiny".into(),
        };
        let optimizer = &mut settings.optimizer;
        optimizer.lr = optimizers::default_lr(&optimizer.optimizer, Family::Language)?;
        optimizer.bound = optimizers::default_bound(Family::Language);
        optimizer.hessian_power = 0.5;
        let training = &mut settings.training;
        (training.batch_size, training.epochs) = match preset.as_str() {
            "wikitext-103" => {
                if optimizer.optimizer == "adahessian" {
                    optimizer.lr = 1.0;
                }
                (120, 30)
            }
            "tiny" => (32, 4),
            _ => (60, 30),
        };
        // 4,000 steps of the paper's 30 epochs on Penn Treebank.
        training.schedule = "warmup:0.28+inverse_sqrt".into();
        let own = &mut settings.own;
        let cutoffs = asked
            .settings
            .own
            .cutoffs
            .as_deref()
            .map(|text| text != "0");
        if cutoffs.unwrap_or(preset == "wikitext-103") {
            own.label_smoothing = 0.0;
        }
        own.preset = preset;
        Ok(settings)
    }

    fn check(&self, cell: &Cell<LanguageArgs>) -> Result<()> {
        let (own, training) = (&cell.settings.own, &cell.settings.training);
        if training.limit.is_some() || training.limit_eval.is_some() {
            bail!("--limit, --limit-eval: a text has no examples; --max-steps ends a run earlier");
        }
        ensure!(
            own.attention != "standard" || own.cores == 1,
            "--cores: those are of block-term attention; leave it out with --attention standard"
        );
        // All but what the number of words decides.
        let mut config = own.config(usize::MAX)?;
        config.vocab_size = MOST_WORDS;
        config.cutoffs.retain(|&at| at < MOST_WORDS);
        config.check()?;
        let words = own.vocabulary.unwrap_or(MOST_WORDS);
        expect_no_smoothing(own, config.cutoffs.iter().any(|&at| at < words))
    }

    fn load(&self, settings: &Settings<LanguageArgs>, out: &Path) -> Result<Data> {
        corpus::load(&settings.own, out)
    }

    fn run(&self, cell: &Cell<LanguageArgs>, data: &Data, session: Session) -> Result<Summary> {
        let (settings, own) = (&cell.settings, &cell.settings.own);
        let start = Start {
            seed: cell.seed,
            device: program::device(&settings.run.device)?,
            ..Start::default()
        };
        let vocabulary = data.vocabulary.clone();
        let config = own.config(vocabulary.len())?;
        expect_no_smoothing(own, !config.cutoffs.is_empty())?;
        let model = LanguageModel::new(&config, &start)?;
        let (window, end, batch_size) = (
            config.window,
            vocabulary.end(),
            settings.training.batch_size,
        );
        let batcher = Batcher {
            batch_size,
            seed: cell.seed,
            ..Batcher::default()
        };
        let batches = WordWindows::shuffled(data.train.clone(), end, window, batcher)?;
        let batches = Ahead::new(batches, settings.run.prefetch);
        let in_order = |text: &datasets::words::WordStore| {
            WordWindows::in_order(text.clone(), end, window, batch_size)
        };
        let task = Telling {
            model: model.clone(),
            label_smoothing: own.label_smoothing,
            validation: in_order(&data.validation)?,
            test: data.test.as_ref().map(in_order).transpose()?,
        };
        let (vars, blocks) = (model.vars(), model.blocks());
        let place = Place::of(cell, batches.len(0) as u64, blocks)?;
        session.train(Parts {
            task,
            batches,
            optimizer: optimizers::build(&settings.optimizer, place, &vars)?,
            announce: format!(
                "{} words to train on, {} for validation, {} different ones, {:.2} M parameters, learning rate {}",
                data.train.len(),
                data.validation.len(),
                vocabulary.len(),
                vars.elem_count() as f64 / 1e6,
                settings.optimizer.rate_said(),
            ),
            vars,
            export: Some(Box::new(move |folder| {
                model.save(folder)?;
                Ok(vocabulary.write(&folder.join(VOCABULARY))?)
            })),
            card: Card {
                what: "A language model, for `language_model generate`".into(),
                ..Card::default()
            },
            keep_checkpoints: 2,
            mark: Some(data.mark()),
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
}

/// Telling the next word.
struct Telling {
    model: LanguageModel,
    label_smoothing: f64,
    validation: WordWindows,
    test: Option<WordWindows>,
}

impl Telling {
    /// The mean of -log p over all words of a text, in nats.
    fn mean(&self, text: &WordWindows) -> trainers::Result<f64> {
        let mut sum = 0.0;
        for index in 0..text.len(0) {
            let batch = text.get(0, index)?;
            let (words, next) = (&batch.inputs, &batch.labels);
            let loss = without_graph(|| self.model.loss(words, next, 0.0, &Mode::Eval));
            let loss = loss.map_err(trainers::Error::user)?.detach();
            let loss = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            sum += loss * batch.labels.elem_count() as f64;
        }
        Ok(sum / text.words() as f64)
    }
}

impl Task for Telling {
    type Batch = TensorBatch;

    fn size(&self, batch: &TensorBatch) -> usize {
        batch.size()
    }

    fn weight(&self, batch: &TensorBatch) -> trainers::Result<f64> {
        Ok(batch.weight()?)
    }

    fn narrow(
        &self,
        batch: &TensorBatch,
        start: usize,
        len: usize,
    ) -> trainers::Result<TensorBatch> {
        Ok(batch.narrow(start, len)?)
    }

    fn loss(&self, batch: &TensorBatch, mode: &Mode) -> trainers::Result<Tensor> {
        let loss = self
            .model
            .loss(&batch.inputs, &batch.labels, self.label_smoothing, mode);
        loss.map_err(trainers::Error::user)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        let loss = self.mean(&self.validation)?;
        let scores = Scores::lower_is_better("loss", loss).with("perplexity", perplexity(loss));
        match &self.test {
            None => Ok(scores),
            Some(test) => {
                let loss = self.mean(test)?;
                Ok(scores
                    .with("test_loss", loss)
                    .with("test_perplexity", perplexity(loss)))
            }
        }
    }
}
