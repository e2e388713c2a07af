//! `criteo train`: DLRM on a store of clicks.

use crate::parts;
use adahessian::ops::Mode;
use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use common::card::Card;
use common::experiment::{Column, Experiment, Parts, Remarks};
use common::flags::Settings;
use common::grid::Cell;
use common::layers::Asked;
use common::optimizers::{self, Family};
use common::program;
use common::session::Session;
use common::values::{above_zero, count, counts_text, steps};
use datasets::criteo::{ClickBatch, ClickBatches, Store, generate_store};
use datasets::{Ahead, Batches};
use models::dlrm::{Dlrm, Ids};
use models::{Model as _, Start};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trainers::{Loss, Summary, Supervised};

pub const ABOUT: &str = "Train DLRM: AdaHessian on the dense layers beside Adagrad on the tables.\n\n\
    The defaults are the paper's settings for Criteo Kaggle: batches of 128, one epoch, AdaHessian with rate 0.043, k \
    0.5 and betas 0.9, 0.98 on the networks 13-512-256-64-16 and 367-512-256-1, Adagrad with rate 0.01 on 26 tables of \
    width 16. Beside them there is a bound of 0.02 of each step, for every optimizer: --bound 0 is the paper's.";

/// The flags of this program.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClickArgs {
    /// The store that `criteo prepare` made
    #[arg(
        long,
        value_name = "STORE",
        conflicts_with = "synthetic",
        help_heading = "What to train"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Generate N rows of a known model instead, beside --out [N by default: 100000]
    #[arg(long, num_args = 0..=1, default_missing_value = "100000", value_name = "N", value_parser = steps, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<u64>,

    /// The store holds all rows of `criteo generate --seed SEED`: show what the model that made them
    /// reaches, too
    #[arg(long, value_name = "SEED", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planted: Option<u64>,

    /// Widths of the bottom network's layers, the last one being that of the tables' rows
    #[arg(long, value_name = "LIST", default_value = "512,256,64,16", value_parser = counts_text, help_heading = "What to train")]
    pub bottom: String,

    /// Widths of the top network's layers before the last
    #[arg(long, value_name = "LIST", default_value = "512,256", value_parser = counts_text, help_heading = "What to train")]
    pub top: String,

    /// What the tables are stored as
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16"], help_heading = "What to train")]
    pub precision: String,

    /// Keep the tables in this new file instead of in memory, for tables larger than memory (one run
    /// only)
    #[arg(long, value_name = "FILE", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_file: Option<PathBuf>,

    /// Where the tables are: on the device of --device, or cpu for tables that its memory has no room for, with
    /// their accumulators. Those of --table-file are on the CPU always
    #[arg(long, value_name = "PLACE", default_value = "device", value_parser = ["device", "cpu"], help_heading = "What to train")]
    #[serde(default = "device", skip_serializing_if = "is_device")]
    pub tables_on: String,

    /// Days of the store, equal consecutive parts of it: 24 for the terabyte. The last one is for tests
    /// and validation, the others for training
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = count, help_heading = "What to train")]
    pub days: usize,

    /// The rows of evaluations: validation or test (the halves of the last day), last-day, train or all.
    /// Settings and checkpoints are chosen by them, so that test rows are for `criteo evaluate`, once
    #[arg(long, value_name = "ROWS", default_value = "validation", value_parser = parts::ROWS, help_heading = "What to train")]
    pub eval_on: String,

    /// Optimizer of the tables: adagrad, adagrad-rows (one accumulator a row) or sgd [default: adagrad,
    /// with --optimizer sgd sgd]
    #[arg(long, value_name = "NAME", default_value = "adagrad", hide_default_value = true, value_parser = optimizers::TABLE_RULES, help_heading = "How to train")]
    pub table_optimizer: String,

    /// Learning rate of the tables [default: adagrad 0.01, sgd 0.1]
    #[arg(long, default_value_t = 0.01, hide_default_value = true, value_parser = above_zero, help_heading = "How to train")]
    pub table_lr: f64,

    /// Rows in another order each epoch; without it in that of the store, which is faster where the
    /// store is larger than memory [default: true]
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "How to train")]
    pub shuffle: bool,
}

/// Runs that were begun before there was such a flag go on.
fn device() -> String {
    "device".into()
}

fn is_device(place: &str) -> bool {
    place == "device"
}

pub struct Clicks;

impl Experiment for Clicks {
    type Args = ClickArgs;
    type Data = Store;

    const NAME: &'static str = "criteo";

    fn defaults(&self, asked: &Asked<ClickArgs>) -> Result<Settings<ClickArgs>> {
        let mut settings = asked.settings.clone();
        let optimizer = &mut settings.optimizer;
        optimizer.lr = optimizers::default_lr(&optimizer.optimizer, Family::Clicks)?;
        optimizer.bound = optimizers::default_bound(Family::Clicks);
        optimizer.hessian_power = 0.5;
        if optimizer.optimizer == "adahessian" {
            optimizer.betas = "0.9,0.98".into();
        }
        // Two times the steps 1 / (1 - 0.98) that the average of the curvature remembers: single probes are near
        // zero somewhere, and there the step is too long.
        optimizer.hessian_first = if optimizer.hessian_every > 1 {
            "100"
        } else {
            "0"
        }
        .into();
        let own = &mut settings.own;
        if !asked.has("table_optimizer") && optimizer.optimizer == "sgd" {
            own.table_optimizer = "sgd".into();
        }
        own.table_lr = if own.table_optimizer == "sgd" {
            0.1
        } else {
            0.01
        };
        if own.synthetic.is_some() {
            own.planted = Some(0);
        }
        settings.training.batch_size = 128;
        settings.run.log_every = settings.run.log_every.or(Some(100));
        Ok(settings)
    }

    fn check(&self, cell: &Cell<ClickArgs>) -> Result<()> {
        let own = &cell.settings.own;
        if own.table_file.is_some() && !cell.alone {
            bail!("--table-file: one file cannot hold the tables of several runs");
        }
        if cell.settings.run.keep == "models" {
            bail!(
                "--keep models: this program saves no model apart from its checkpoints, and nothing would be left to \
                 evaluate; expected all or figures"
            );
        }
        Ok(())
    }

    fn load(&self, settings: &Settings<ClickArgs>, out: &Path) -> Result<Store> {
        let Some(rows) = settings.own.synthetic else {
            let store = parts::store(&settings.own)?;
            parts::expect_planted(&store, &settings.own)?;
            return Ok(store);
        };
        let name = format!("planted-{rows}.clicks");
        // Beside the run's folder, the comparison's, or that of the comparison whose rung it is of. `.` has none above it.
        let out = std::path::absolute(out)?;
        let mut above = out.ancestors().skip(1).take(3);
        let there = above.find(|folder| folder.join(&name).is_file());
        let folder = there.or(out.parent()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        Ok(generate_store(&folder.join(name), rows, 0)?)
    }

    fn run(&self, cell: &Cell<ClickArgs>, store: &Store, session: Session) -> Result<Summary> {
        let (own, training) = (&cell.settings.own, &cell.settings.training);
        // The dense features'; ids are checked and sorted on the CPU.
        let device = program::device(&cell.settings.run.device)?;
        let there = |batches| ClickBatches {
            device: device.clone(),
            ..batches
        };
        let train = there(parts::train_batches(cell, store)?);
        let evaluation = parts::evaluation(store, own, &own.eval_on, training.limit_eval)?;
        let evaluation = there(evaluation);
        let start = Start {
            seed: cell.seed,
            device: device.clone(),
            ..Start::default()
        };
        let model = parts::model(own, &start, store, session.from.is_none())?;
        let announce = format!(
            "{} rows to train on, {} of {}, {} parameters and {} rows of tables, learning rates {} and {}",
            train.rows.len(),
            evaluation.rows.len(),
            own.eval_on,
            model.vars().elem_count(),
            model.config().rows(),
            cell.settings.optimizer.rate_said(),
            own.table_lr,
        );
        let task = Supervised::new(forward(&model), Loss::BinaryCrossEntropy, evaluation);
        let steps = train.len(0) as u64;
        let batches = Arc::new(Ahead::new(train, cell.settings.run.prefetch));
        let summary = session.train(Parts {
            task: task.metrics(&["clicks"])?,
            batches: batches.clone(),
            vars: model.vars(),
            optimizer: Box::new(parts::optimizer(cell, &model, steps)?),
            announce,
            export: None,
            card: Card::default(),
            keep_checkpoints: 1, // with the tables they are large
            mark: parts::mark(own)?,
        })?;
        program::waited(&batches.waited());
        Ok(summary)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn remarks(&self, cell: &Cell<ClickArgs>) -> Result<Remarks> {
        let own = &cell.settings.own;
        if own.planted.is_none() {
            return Ok(Remarks::default());
        }
        let out = match cell.place.is_empty() {
            true => cell.folder.as_path(),
            false => cell.folder.parent().unwrap_or(Path::new(".")),
        };
        let store = self.load(&cell.settings, out)?;
        let limit = cell.settings.training.limit_eval;
        let scores = parts::planted(&store, own, &own.eval_on, limit)?;
        let rows = scores.map(|scores| ("the model that made them".to_string(), scores));
        Ok(Remarks {
            rows: rows.into_iter().collect(),
        })
    }
}

/// Shares in percent.
pub const COLUMNS: [Column; 6] = [
    Column::new("auc", "AUC", 100.0, 3),
    Column::new("accuracy", "accuracy", 100.0, 3),
    Column::new("loss", "log loss", 1.0, 5),
    Column::new("normalised_entropy", "norm. entropy", 1.0, 5),
    Column::new("prediction_rate", "predicted", 100.0, 2),
    Column::new("label_rate", "clicks", 100.0, 2),
];

/// The model as a function from a batch to logits.
pub fn forward(model: &Dlrm) -> impl Fn(&ClickBatch, &Mode) -> trainers::Result<Tensor> + use<> {
    let model = model.clone();
    move |batch, mode| {
        let ids = Ids::Single(batch.ids.clone());
        let logits = model.forward(&batch.dense, &ids, mode);
        logits.map_err(trainers::Error::user)
    }
}
