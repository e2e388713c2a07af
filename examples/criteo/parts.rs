//! Data, model and optimizer of a run, from its settings.

use crate::plan::Plan;
use crate::settings::Settings;
use adahessian::sparse::{Precision, SparseOptimizer};
use adahessian::{Block, Blocks, Composite, Optim};
use adahessian::{Rules, optimizer_by_name};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use common::choose::{self, set};
use common::settings::list;
use datasets::criteo::{ClickBatches, INTEGERS, Store};
use models::dlrm::{Config, Dlrm};
use models::{Model, Start};
use std::ops::Range;
use std::path::Path;

/// Rows in a batch of an evaluation: few enough that the peak memory is that of training.
const EVALUATION_BATCH: usize = 1024;

pub fn store(settings: &Settings) -> Result<Store> {
    let path = settings.data.as_deref().context(
        "where are the clicks? Make a store with `criteo prepare train.txt --out kaggle.clicks` and give it \
         with --data, or try without data with --synthetic",
    )?;
    Store::open(path).with_context(|| {
        let path = path.display();
        format!("--data {path}: expected a store that `criteo prepare FILE... --out {path}` made")
    })
}

/// Some of a store's days by name.
pub fn rows(store: &Store, settings: &Settings, name: &str) -> Result<Range<usize>> {
    let days = store.days(settings.days.unwrap_or(7))?;
    Ok(match name {
        "all" => 0..store.len(),
        "train" => days.train,
        "test" => days.test,
        "validation" => days.validation,
        "last-day" => days.test.start..days.validation.end,
        other => bail!("--eval-on {other}: expected test, validation, last-day, train or all"),
    })
}

pub fn train_batches(plan: &Plan, store: &Store) -> Result<ClickBatches> {
    let settings = &plan.settings;
    let mut rows = rows(store, settings, "train")?;
    rows.end = rows.start + rows.len().min(settings.limit.unwrap_or(usize::MAX));
    Ok(ClickBatches {
        store: store.clone(),
        rows,
        batch_size: settings.batch_size.unwrap_or(128),
        shuffle: settings.shuffle.unwrap_or(true).then_some(plan.seed),
        drop_last: false,
    })
}

/// The rows of an evaluation, at most the first `limit` of them.
pub fn evaluation(
    store: &Store,
    settings: &Settings,
    name: &str,
    limit: Option<usize>,
) -> Result<(ClickBatches, Device)> {
    let mut rows = rows(store, settings, name)?;
    rows.end = rows.start + rows.len().min(limit.unwrap_or(usize::MAX));
    let batches = ClickBatches {
        store: store.clone(),
        rows,
        batch_size: EVALUATION_BATCH,
        shuffle: None,
        drop_last: false,
    };
    Ok((batches, Device::Cpu))
}

/// The model with its first weights; `fresh` refuses a table file that is there already.
pub fn model(plan: &Plan, store: &Store, fresh: bool) -> Result<Dlrm> {
    let settings = &plan.settings;
    let mut bottom = vec![INTEGERS];
    bottom.extend(widths(
        "--bottom",
        settings.bottom.as_deref().unwrap_or("512,256,64,16"),
    )?);
    let mut top = widths("--top", settings.top.as_deref().unwrap_or("512,256"))?;
    top.push(1);
    let config = Config {
        bottom,
        tables: store.table_sizes().to_vec(),
        top,
    };
    let start = Start {
        seed: plan.seed,
        ..Start::default()
    };
    let precision = match settings.precision.as_deref().unwrap_or("f32") {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => bail!("--precision {other}: expected f32 or bf16"),
    };
    match &settings.table_file {
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
    let parts = list(text).into_iter().map(|part| part.parse::<usize>());
    let widths = parts.collect::<Result<Vec<_>, _>>();
    widths.with_context(|| format!("{flag} {text}: expected widths separated by commas"))
}

/// The dense layers' optimizer beside the tables'.
pub fn optimizer(plan: &Plan, model: &Dlrm) -> Result<Composite> {
    let settings = &plan.settings;
    let rule = choose::table_rule(settings.table_optimizer.as_deref().unwrap_or("adagrad"))?;
    let lr = settings.table_lr.unwrap_or(0.01);
    let tables = SparseOptimizer::new([model.tables()], rule, lr)?;
    Ok(Composite::new()
        .with_boxed("dense", dense(plan, model)?)
        .with("tables", tables)
        .covering(&model.vars())?
        .covering_tables([model.tables()])?)
}

fn dense(plan: &Plan, model: &Dlrm) -> Result<Box<dyn Optim>> {
    let (settings, vars) = (&plan.settings, &model.vars());
    let blocks = match settings.block_size.as_deref() {
        None | Some("single") => model.blocks(),
        Some(text) => Blocks::matrices(text.parse::<Block>()?),
    };
    let average = settings.average.as_deref().map(choose::average);
    let average = average.transpose()?;
    let mut rules = Rules::default();
    rules.sgd.momentum = 0.0;
    set(&mut rules.adahessian.eps, settings.eps);
    rules.adahessian.hessian_power = settings.hessian_power.unwrap_or(0.5);
    rules.adahessian.betas = betas(settings.betas.as_deref().unwrap_or("0.9,0.98"))?;
    let optimizer = optimizer_by_name(&plan.optimizer, &rules, vars, |common, curvature| {
        common.lr = settings.lr.unwrap_or_default();
        common.weight_decay = settings.weight_decay.unwrap_or_default();
        common.clip_norm = settings.clip_norm;
        curvature.blocks = blocks;
        set(&mut curvature.average, average);
        set(&mut curvature.every, settings.hessian_every);
        set(&mut curvature.always_first, settings.hessian_first);
        set(&mut curvature.samples, settings.samples);
        curvature.seed = plan.seed;
    });
    Ok(optimizer?)
}

fn betas(text: &str) -> Result<(f64, f64)> {
    let betas = list(text).into_iter().map(|part| part.parse::<f64>());
    let betas = betas.collect::<Result<Vec<_>, _>>();
    match betas.as_deref() {
        Ok([beta1, beta2]) => Ok((*beta1, *beta2)),
        _ => bail!("--betas {text}: expected two numbers separated by a comma"),
    }
}
