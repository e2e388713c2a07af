//! Data, model and optimizer of a run, from its settings.

use crate::train::ClickArgs;
use adahessian::sparse::{Precision, SparseOptimizer};
use adahessian::{Composite, Rules};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use common::grid::Cell;
use common::optimizers::{self, Place};
use datasets::criteo::{ClickBatches, INTEGERS, Store};
use models::dlrm::{Config, Dlrm};
use models::{Model, Start};
use std::ops::Range;
use std::path::Path;

/// Rows in a batch of an evaluation: few enough that the peak memory is that of training.
const EVALUATION_BATCH: usize = 1024;

pub fn store(own: &ClickArgs) -> Result<Store> {
    let path = own.data.as_deref().context(
        "where are the clicks? Make a store with `criteo prepare train.txt --out kaggle.clicks` and give it \
         with --data, or try without data with --synthetic",
    )?;
    Store::open(path).with_context(|| {
        let path = path.display();
        format!("--data {path}: expected a store that `criteo prepare FILE... --out {path}` made")
    })
}

/// Some of a store's days by name.
pub fn rows(store: &Store, own: &ClickArgs, name: &str) -> Result<Range<usize>> {
    let days = store.days(own.days)?;
    Ok(match name {
        "all" => 0..store.len(),
        "train" => days.train,
        "test" => days.test,
        "validation" => days.validation,
        "last-day" => days.test.start..days.validation.end,
        other => bail!("--eval-on {other}: expected test, validation, last-day, train or all"),
    })
}

pub fn train_batches(cell: &Cell<ClickArgs>, store: &Store) -> Result<ClickBatches> {
    let (own, training) = (&cell.settings.own, &cell.settings.training);
    let mut rows = rows(store, own, "train")?;
    rows.end = rows.start + rows.len().min(training.limit.unwrap_or(usize::MAX));
    Ok(ClickBatches {
        store: store.clone(),
        rows,
        batch_size: training.batch_size,
        shuffle: own.shuffle.then_some(cell.seed),
        drop_last: false,
        device: Device::Cpu,
    })
}

/// The rows of an evaluation, at most the first `limit` of them.
pub fn evaluation(
    store: &Store,
    own: &ClickArgs,
    name: &str,
    limit: Option<usize>,
) -> Result<ClickBatches> {
    let mut rows = rows(store, own, name)?;
    rows.end = rows.start + rows.len().min(limit.unwrap_or(usize::MAX));
    Ok(ClickBatches {
        store: store.clone(),
        rows,
        batch_size: EVALUATION_BATCH,
        shuffle: None,
        drop_last: false,
        device: Device::Cpu,
    })
}

/// The model with its first weights; `fresh` refuses a table file that is there already.
pub fn model(own: &ClickArgs, seed: u64, store: &Store, fresh: bool) -> Result<Dlrm> {
    let mut bottom = vec![INTEGERS];
    bottom.extend(widths("--bottom", &own.bottom)?);
    let mut top = widths("--top", &own.top)?;
    top.push(1);
    let config = Config {
        bottom,
        tables: store.table_sizes().to_vec(),
        top,
    };
    let start = Start {
        seed,
        ..Start::default()
    };
    let precision = match own.precision.as_str() {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    match &own.table_file {
        None => Ok(Dlrm::new(&config, &start, precision)?),
        Some(path) => mapped(&config, &start, precision, path, fresh),
    }
}

fn mapped(
    config: &Config,
    start: &Start,
    precision: Precision,
    path: &Path,
    fresh: bool,
) -> Result<Dlrm> {
    if precision != Precision::F32 {
        bail!("--precision bf16: the tables of a --table-file are f32");
    }
    if fresh && path.exists() {
        bail!(
            "--table-file {}: is there already and may hold a trained model's tables; remove it or give \
             another name",
            path.display()
        );
    }
    Ok(Dlrm::mapped(config, start, path)?)
}

fn widths(flag: &str, text: &str) -> Result<Vec<usize>> {
    let parts = text.split(',').map(|part| part.trim().parse::<usize>());
    let widths = parts.collect::<Result<Vec<_>, _>>();
    widths.with_context(|| format!("{flag} {text}: expected widths separated by commas"))
}

/// The dense layers' optimizer beside the tables'.
pub fn optimizer(cell: &Cell<ClickArgs>, model: &Dlrm, steps_per_epoch: u64) -> Result<Composite> {
    let own = &cell.settings.own;
    let rule = optimizers::table_rule(&own.table_optimizer)?;
    let tables = SparseOptimizer::new([model.tables()], rule, own.table_lr)?;
    let mut rules = Rules::default();
    rules.sgd.momentum = 0.0;
    let place = Place {
        seed: cell.seed,
        steps_per_epoch,
        blocks: model.blocks(),
        rules,
    };
    let dense = optimizers::build(&cell.settings.optimizer, place, &model.vars())?;
    Ok(Composite::new()
        .with_boxed("dense", dense)
        .with("tables", tables)
        .covering(&model.vars())?
        .covering_tables([model.tables()])?)
}
