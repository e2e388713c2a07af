//! Finds names of persons, places and organisations: a token classifier on CoNLL files, judged by whole names.
//!
//! The shortest complete program on the driver: flags, defaults, data, a run.

use adahessian::ops::Mode;
use anyhow::{Result, ensure};
use clap::{Args, Command};
use common::card::{Card, hub_id};
use common::experiment::{Experiment, Parts};
use common::flags::Settings;
use common::grid::Cell;
use common::layers::Asked;
use common::optimizers::{self, Family, Place};
use common::session::Session;
use common::values::{count, dropout};
use common::{driver, program, text};
use datasets::conll::{Corpus, Scheme, TokenBatch, TokenBatches, TokenDataset};
use datasets::{Ahead, Batcher, Batches, TextEncoder, hub, sample};
use models::{LoadReport, Model as _, Start, TokenClassifier, auto, bert};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use trainers::metrics::EntityMetric;
use trainers::{Loss, Summary, Supervised};

/// Pieces of words that are learned from the sentences where no checkpoint brings its own.
const VOCABULARY: usize = 800;

#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EntityArgs {
    /// A folder with config.json, model.safetensors and tokenizer.json, or a Hub id such as
    /// distilbert/distilroberta-base [default: a small BERT from scratch]
    #[arg(long, value_name = "ID_OR_DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,

    /// A folder with train.txt or eng.train and valid.txt, dev.txt or eng.testa, a word and its label a line, in IOB1 or
    /// IOB2 [default: a shipped sample]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,

    /// Replace the classifier that the checkpoint holds
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    new_head: bool,

    /// The probability of dropout everywhere in the model, which what is saved keeps [default: those of the model's configuration]
    #[arg(long, value_name = "P", value_parser = dropout, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,

    /// Longest sequence in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = count, help_heading = "What to train")]
    max_length: usize,
}

struct Entities;

fn main() -> ExitCode {
    let about = "Find names of persons, places and organisations in CoNLL files, with AdaHessian or a first-order optimizer.";
    driver::main(&Entities, Command::new("entities").about(about))
}

impl Experiment for Entities {
    type Args = EntityArgs;
    type Data = Corpus;

    const NAME: &'static str = "entities";

    fn defaults(&self, asked: &Asked<EntityArgs>) -> Result<Settings<EntityArgs>> {
        let mut settings = asked.settings.clone();
        let pretrained = settings.own.model.is_some();
        let family = match pretrained {
            true => Family::Pretrained,
            false => Family::Scratch,
        };
        text::defaults(&mut settings, family)?;
        settings.training.epochs = 10;
        Ok(settings)
    }

    fn check(&self, cell: &Cell<EntityArgs>) -> Result<()> {
        let own = &cell.settings.own;
        ensure!(
            own.model.is_some() || !own.new_head,
            "--new-head: without --model all weights are fresh; leave it out, or say which checkpoint's head to replace"
        );
        Ok(())
    }

    fn load(&self, settings: &Settings<EntityArgs>, _out: &Path) -> Result<Corpus> {
        let own = &settings.own;
        let mut corpus = match &own.data {
            None => sample::entity_corpus()?,
            Some(folder) => Corpus::from_folder(folder, Scheme::Iob1)?, // takes IOB2 as it is,
        };
        let training = &settings.training;
        corpus.train.truncate(training.limit.unwrap_or(usize::MAX));
        corpus
            .validation
            .truncate(training.limit_eval.unwrap_or(usize::MAX));
        Ok(corpus)
    }

    fn run(&self, cell: &Cell<EntityArgs>, corpus: &Corpus, session: Session) -> Result<Summary> {
        let settings = &cell.settings;
        let device = program::device(&settings.run.device)?;
        let start = Start {
            seed: cell.seed,
            device: device.clone(),
            new_head: settings.own.new_head,
            ..Start::default()
        };
        let Model {
            model,
            encoder,
            report,
        } = model(&settings.own, corpus, &start)?;
        let model = Arc::new(model);
        let encode = |sentences| TokenDataset::encode(&encoder, &corpus.labels, sentences);
        let batcher = |batch_size, shuffle| Batcher {
            batch_size,
            seed: cell.seed,
            shuffle,
            ..Batcher::default()
        };
        let (train, validation) = (encode(&corpus.train)?, encode(&corpus.validation)?);
        // No metric of pieces sees them.
        let left_out = [train.left_out(), validation.left_out()];
        let train = TokenBatches::new(train, batcher(settings.training.batch_size, true), &device);
        let validation = TokenBatches::new(validation, batcher(32, false), &device);
        let batches = Ahead::new(train, settings.run.prefetch);
        let network = model.clone();
        let forward = move |batch: &TokenBatch, mode: &Mode| {
            let (types, mask) = (Some(&batch.token_type_ids), Some(&batch.attention_mask));
            let logits = network.forward(&batch.input_ids, types, mask, mode); // [B, T, labels]
            logits.map_err(trainers::Error::user)
        };
        let place = Place::of(cell, batches.len(0) as u64, model.blocks())?;
        let vars = model.vars();
        let sentences = corpus.train.iter().chain(&corpus.validation);
        let content = sentences.map(|s| format!("{:?} {:?}", s.tokens, s.labels));
        let content = content.chain([format!("{:?}", corpus.labels.names())]);
        let mark = Some(text::mark(&encoder, content)?);
        session.train(Parts {
            task: Supervised::new(forward, Loss::CROSS_ENTROPY, validation)
                .metric(EntityMetric::new(corpus.labels.names())),
            batches,
            optimizer: optimizers::build(&settings.optimizer, place, &vars)?,
            announce: format!(
                "{} training and {} validation sentences, {} + {} words behind their ends, {} labels, {} parameters, \
                 learning rate {}{}",
                corpus.train.len(),
                corpus.validation.len(),
                left_out[0],
                left_out[1],
                corpus.labels.len(),
                vars.elem_count(),
                settings.optimizer.rate_said(),
                text::loaded(report.as_ref()),
            ),
            vars,
            export: Some(Box::new(move |folder| {
                model.save(folder)?;
                Ok(encoder.save(folder)?)
            })),
            card: Card {
                what: "A classifier of words, which finds names in sentences".into(),
                pipeline: Some("token-classification"),
                base: settings.own.model.as_deref().and_then(hub_id),
                ..Card::default()
            },
            keep_checkpoints: 2,
            mark,
        })
    }
}

/// A classifier with its tokenizer, and what a checkpoint brought.
struct Model {
    model: TokenClassifier,
    encoder: TextEncoder,
    report: Option<LoadReport>,
}

/// The pretrained model, or a small BERT with a tokenizer learned from the training sentences.
fn model(own: &EntityArgs, corpus: &Corpus, start: &Start) -> Result<Model> {
    let labels = corpus.labels.len();
    let (model, encoder, report) = match &own.model {
        Some(model) => {
            let folder = hub::checkpoint_folder(model)?;
            let encoder = TextEncoder::from_folder(&folder, own.max_length)?.for_words();
            let checkpoint = text::checkpoint(&folder, own.dropout)?;
            let (model, report) = checkpoint.token_classifier(Some(labels), start)?;
            (model, encoder, Some(report))
        }
        None => {
            let texts: Vec<String> = corpus.train.iter().map(|s| s.tokens.join(" ")).collect();
            let texts = texts.iter().map(String::as_str);
            let encoder = text::learned(texts, VOCABULARY, own.max_length)?;
            let config = bert::Config {
                vocab_size: VOCABULARY,
                max_position_embeddings: own.max_length,
                initializer_range: 0.05,
                ..bert::Config::tiny()
            };
            let config = text::with_dropout(auto::Config::Bert(config), own.dropout);
            let model = TokenClassifier::new(&config.architecture()?, labels, start)?;
            (model, encoder, None)
        }
    };
    let model = model.with_label_names(corpus.labels.names())?;
    let architecture = model.encoder().architecture();
    encoder.check(architecture.vocabulary, architecture.positions)?;
    Ok(Model {
        model,
        encoder,
        report,
    })
}
