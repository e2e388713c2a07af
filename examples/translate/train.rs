//! `translate train`: the flags, the defaults, and how a run is put together.

use super::corpus::{self, Data, Preparation};
use super::translator::{Languages, Translator};
use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::Tensor;
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
use common::values::{count, dropout, one_or_more, share};
use datasets::translation::{
    Filter, Subwords, TokenBatcher, TranslationBatch, TranslationBatches, remove_marks,
};
use datasets::{Ahead, Batches, LabelledBatch, UNLABELLED};
use models::transformer::Config;
use models::{Model as _, Start, Transformer};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trainers::generation::{BeamSearch, multi_bleu};
use trainers::{Loss, Scores, Summary, Supervised, Task};

pub const ABOUT: &str = "Train a translator on parallel text with AdaHessian or a first-order optimizer.\n\n\
    Without --data: German numbers to English ones, offline.";
/// Tokens of an evaluation's batch.
const EVALUATION_TOKENS: usize = 2048;

#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TranslateArgs {
    /// A folder with train.LANGUAGE and valid.LANGUAGE (or val, validation, dev), a sentence a line, plain or .gz
    /// [default: generated numbers]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// The language that is translated
    #[arg(
        long,
        value_name = "CODE",
        default_value = "de",
        help_heading = "What to train"
    )]
    pub source: String,

    /// The language that it is translated into
    #[arg(
        long,
        value_name = "CODE",
        default_value = "en",
        help_heading = "What to train"
    )]
    pub target: String,

    /// Split punctuation off, as Moses does, and put it back behind; with a dictionary of escaped text (&apos;s), escaped
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    pub tokenize: bool,

    /// Drop case
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    pub lower_case: bool,

    /// Subwords that are learned from both languages together [default: 10000, of numbers 200]
    #[arg(long, value_name = "N", default_value_t = 10_000, hide_default_value = true, value_parser = count, help_heading = "What to train")]
    pub vocabulary: usize,

    /// A folder with tokenizer.json, or with fairseq's dict.txt and codes, instead of learned subwords
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subwords: Option<PathBuf>,

    /// small (3 + 3 layers of width 256 and 512), iwslt (6 + 6, 512 and 1024), base (6 + 6, 512 and 2048) or tiny
    /// (2 + 2, 64 and 128) [default: small, of numbers tiny]
    #[arg(long, default_value = "small", hide_default_value = true, value_parser = ["tiny", "small", "iwslt", "base"], help_heading = "What to train")]
    pub preset: String,

    /// Dropout of the hidden states [default: the preset's: 0.3, of base 0.1, of tiny 0]
    #[arg(long, value_name = "SHARE", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,

    /// Dropout of attention's weights [default: the preset's: 0.1, of base and tiny 0]
    #[arg(long, value_name = "SHARE", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_dropout: Option<f64>,

    /// Dropout behind the ReLU of a layer [default: the preset's: 0.1, of base and tiny 0]
    #[arg(long, value_name = "SHARE", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_dropout: Option<f64>,

    /// Probability that is spread over all words while training
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, help_heading = "How to train")]
    pub label_smoothing: f64,

    /// Tokens of a step on either side, padding included [default: 4096, of numbers 1024]
    #[arg(long, value_name = "N", default_value_t = 4096, hide_default_value = true, value_parser = count, help_heading = "How to train")]
    pub max_tokens: usize,

    /// Train on pairs of at most so many subwords a side
    #[arg(long, value_name = "N", default_value_t = 175, value_parser = count, help_heading = "What to train")]
    pub max_length: usize,

    /// Train on pairs of which one side has at most so many times the other's subwords [default: any]
    #[arg(long, value_name = "RATIO", value_parser = one_or_more, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pair_ratio: Option<f64>,

    /// Validation sentences that are translated word by word at each evaluation, for BLEU
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        help_heading = "The run"
    )]
    pub translate: usize,

    /// Checkpoints that are kept besides the best one, for `translate average`
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count, help_heading = "The run")]
    pub keep_checkpoints: usize,
}

impl TranslateArgs {
    /// What is done to lines, for the subwords that were given.
    pub fn preparation(&self, subwords: Option<&Subwords>) -> Preparation {
        Preparation {
            tokenize: self.tokenize,
            lower_case: self.lower_case,
            escape: self.tokenize && subwords.is_some_and(Subwords::are_escaped),
        }
    }

    /// What is trained on.
    pub fn filter(&self) -> Filter {
        Filter {
            max_length: self.max_length,
            max_ratio: self.max_pair_ratio.unwrap_or(f64::INFINITY),
        }
    }

    fn config(&self, vocab_size: usize) -> Result<Config> {
        let mut config = match self.preset.as_str() {
            "tiny" => Config {
                d_model: 64,
                ffn_dim: 128,
                max_position_embeddings: 1024,
                ..Config::tiny()
            },
            name => Config::preset(name)?,
        };
        config.vocab_size = vocab_size;
        config.dropout = self.dropout.unwrap_or(config.dropout);
        config.attention_dropout = self.attention_dropout.unwrap_or(config.attention_dropout);
        config.activation_dropout = self.activation_dropout.unwrap_or(config.activation_dropout);
        config.check()?;
        Ok(config)
    }
}

const COLUMNS: [Column; 3] = [
    Column::new("loss", "loss", 1.0, 4),
    Column::new("perplexity", "perplexity", 1.0, 2),
    Column::new("bleu", "BLEU", 1.0, 2),
];

pub struct Translate;

impl Experiment for Translate {
    type Args = TranslateArgs;
    type Data = Data;

    const NAME: &'static str = "translate";

    fn default_optimizer(own: &TranslateArgs) -> &'static str {
        match own.data {
            Some(_) => "adahessian",
            None => "adahessian,adamw",
        }
    }

    fn defaults(&self, asked: &Asked<TranslateArgs>) -> Result<Settings<TranslateArgs>> {
        let mut settings = asked.settings.clone();
        let is_sample = settings.own.data.is_none();
        let optimizer = &mut settings.optimizer;
        optimizer.lr = optimizers::default_lr(&optimizer.optimizer, Family::Translation)?;
        optimizer.bound = optimizers::default_bound(Family::Translation);
        // The paper's program steps with sums over tokens; with means, its 1e-4 is a token's share of that.
        optimizer.eps = 2.5e-8;
        optimizer.weight_decay = 1e-4;
        optimizer.betas = "0.9,0.98".into();
        let training = &mut settings.training;
        training.epochs = if is_sample { 12 } else { 55 };
        training.schedule = match settings.own.preset.as_str() {
            "iwslt" | "base" => "warmup:8000+inverse_sqrt".into(),
            _ => "warmup:0.1+inverse_sqrt".into(),
        };
        // No limit but that of tokens.
        training.batch_size = 4096;
        if is_sample {
            settings.own.vocabulary = 200;
            settings.own.preset = "tiny".into();
            settings.own.max_tokens = 1024;
        }
        Ok(settings)
    }

    fn check(&self, cell: &Cell<TranslateArgs>) -> Result<()> {
        corpus::check(&cell.settings.own)
    }

    fn load(&self, settings: &Settings<TranslateArgs>, out: &Path) -> Result<Data> {
        let training = &settings.training;
        corpus::load(&settings.own, [training.limit, training.limit_eval], out)
    }

    fn run(&self, cell: &Cell<TranslateArgs>, data: &Data, session: Session) -> Result<Summary> {
        let (settings, own) = (&cell.settings, &cell.settings.own);
        let device = program::device(&settings.run.device)?;
        let start = Start {
            seed: cell.seed,
            device: device.clone(),
            ..Start::default()
        };
        let config = own.config(data.subwords.vocab_size())?;
        let longest = data.longest(config.max_position_embeddings)?;
        let model = Transformer::new(&config, &start)?;
        let (blocks, vars) = (model.blocks(), model.vars());
        let translator = Translator {
            model,
            subwords: data.subwords.clone(),
            languages: Languages {
                source: own.source.clone(),
                target: own.target.clone(),
                preparation: data.preparation,
            },
        };
        let pad = data.subwords.pad();
        let batcher = TokenBatcher {
            max_tokens: own.max_tokens,
            max_sentences: Some(settings.training.batch_size),
            seed: cell.seed,
            ..TokenBatcher::default()
        };
        let in_order = TokenBatcher {
            max_tokens: EVALUATION_TOKENS.max(longest),
            shuffle: false,
            ..TokenBatcher::default()
        };
        let batches = TranslationBatches::new(data.train.clone(), batcher, pad, &device)?;
        let validation = TranslationBatches::new(data.validation.clone(), in_order, pad, &device)?;
        let batches = Ahead::new(batches, settings.run.prefetch);
        let announce = format!(
            "{} training pairs ({} were left out) and {}, {} subwords, {} parameters, learning rate {}",
            data.train.len(),
            data.left_out,
            data.judged_by(),
            data.subwords.vocab_size(),
            vars.elem_count(),
            settings.optimizer.rate_said(),
        );
        let place = Place::of(cell, batches.len(0) as u64, blocks)?;
        let network = translator.model.clone();
        let forward = move |batch: &TranslationBatch, mode: &Mode| {
            let logits = network.forward(&batch.source, &batch.previous, mode); // [B, T, V]
            logits.map_err(trainers::Error::user)
        };
        session.train(Parts {
            task: Translating {
                likelihood: Supervised::new(forward, Loss::CROSS_ENTROPY, validation),
                translator: translator.clone(),
                label_smoothing: own.label_smoothing,
                pairs: data.pairs.iter().take(own.translate).cloned().collect(),
            },
            batches,
            optimizer: optimizers::build(&settings.optimizer, place, &vars)?,
            vars,
            announce,
            export: Some(Box::new(move |folder| translator.save(folder))),
            card: Card {
                what: "A transformer that translates, for `translate decode`".into(),
                ..Card::default()
            },
            keep_checkpoints: own.keep_checkpoints,
            mark: Some(data.mark()),
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
}

/// The likelihood of the right words, judged by translations, too.
struct Translating<F> {
    likelihood: Supervised<F, TranslationBatches>,
    translator: Translator,
    label_smoothing: f64,
    /// What is translated at each evaluation.
    pairs: Vec<datasets::translation::Pair>,
}

impl<F> Task for Translating<F>
where
    F: Fn(&TranslationBatch, &Mode) -> trainers::Result<Tensor>,
{
    type Batch = TranslationBatch;

    fn size(&self, batch: &TranslationBatch) -> usize {
        self.likelihood.size(batch)
    }

    fn weight(&self, batch: &TranslationBatch) -> trainers::Result<f64> {
        self.likelihood.weight(batch)
    }

    fn narrow(
        &self,
        batch: &TranslationBatch,
        start: usize,
        len: usize,
    ) -> trainers::Result<TranslationBatch> {
        self.likelihood.narrow(batch, start, len)
    }

    /// As `likelihood`'s, without an array of all logits.
    fn loss(&self, batch: &TranslationBatch, mode: &Mode) -> trainers::Result<Tensor> {
        let sides = (&batch.source, &batch.previous, batch.labels()?);
        let padding = Some(i64::from(UNLABELLED));
        let model = &self.translator.model;
        let loss = model.loss(sides, self.label_smoothing, padding, mode);
        loss.map_err(trainers::Error::user)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        let scores = self.likelihood.evaluate()?;
        let perplexity = perplexity(scores.main());
        let scores = scores.with("perplexity", perplexity);
        // Of numbers that are not finite no search makes a sentence, and the loss says it.
        if self.pairs.is_empty() || !scores.main().is_finite() {
            return Ok(scores);
        }
        let sources: Vec<&str> = self.pairs.iter().map(|pair| pair.source.as_str()).collect();
        // Of text that is in pieces already, the words.
        let references = self.pairs.iter().map(|pair| remove_marks(&pair.target));
        let references: Vec<String> = references.collect();
        // What does not end soon is not worth waiting for.
        let search = BeamSearch {
            max_ratio: 2.0,
            max_extra: 10,
            ..self.translator.search().greedy()
        };
        let found = self.translator.translate(&sources, &search);
        // What is no answer of the model is told from what else can fail.
        let found = found.map_err(|error| {
            let known = error.downcast::<trainers::Error>();
            known.unwrap_or_else(trainers::Error::user)
        })?;
        let texts: Vec<&str> = found.iter().map(|best| best[0].text.as_str()).collect();
        Ok(scores.with("bleu", multi_bleu(&texts, &[references.as_slice()])?.score))
    }
}
