//! Data, model and optimizer of a run, from its settings.

use crate::train::ClickArgs;
use adahessian::sparse::{Precision, SparseOptimizer};
use adahessian::{Composite, Rules};
use anyhow::{Context, Result, bail};
use common::grid::Cell;
use common::optimizers::{self, Place};
use common::values;
use datasets::criteo::{ClickBatches, INTEGERS, Part, Planted, Store};
use models::dlrm::{Config, Dlrm};
use models::{Model, Start};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use trainers::Scores;
use trainers::metrics::clicks;

/// The parts of a store that can be evaluated on.
pub const ROWS: [&str; 5] = ["validation", "test", "last-day", "train", "all"];

/// Of so many rows the labels that another model drew differ somewhere, but for one chance in 10⁵⁰.
const PLANTED_ROWS: usize = 1000;

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

/// A checksum of a store: of its length, its beginning, which says how it was made, and its end. All of it may be a
/// terabyte. A generated one is what its name says.
pub fn mark(own: &ClickArgs) -> Result<Option<String>> {
    const ENDS: u64 = 1 << 20;
    let Some(path) = own.data.as_deref().filter(|_| own.synthetic.is_none()) else {
        return Ok(None);
    };
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = length.to_le_bytes().to_vec();
        file.by_ref().take(ENDS).read_to_end(&mut bytes)?;
        file.seek(SeekFrom::Start(length.saturating_sub(ENDS)))?;
        file.take(ENDS).read_to_end(&mut bytes)?;
        Ok(format!("{:08x}", crc32fast::hash(&bytes)))
    };
    let mark = read().with_context(|| format!("--data {}", path.display()))?;
    Ok(Some(mark))
}

/// A part of a store by its name, at most the first `limit` rows of it.
fn batches(
    store: &Store,
    own: &ClickArgs,
    name: &str,
    limit: Option<usize>,
) -> Result<ClickBatches> {
    let rows = match name.parse()? {
        // Days or none.
        Part::All => 0..store.len(),
        part => store.days(own.days)?.rows(part),
    };
    Ok(ClickBatches::in_order(store, rows, EVALUATION_BATCH).first(limit))
}

pub fn train_batches(cell: &Cell<ClickArgs>, store: &Store) -> Result<ClickBatches> {
    let (own, training) = (&cell.settings.own, &cell.settings.training);
    Ok(ClickBatches {
        batch_size: training.batch_size,
        shuffle: own.shuffle.then_some(cell.seed),
        ..batches(store, own, "train", training.limit)?
    })
}

/// The rows of an evaluation, at most the first `limit` of them.
pub fn evaluation(
    store: &Store,
    own: &ClickArgs,
    name: &str,
    limit: Option<usize>,
) -> Result<ClickBatches> {
    batches(store, own, name, limit).with_context(|| format!("rows to evaluate on: {name}"))
}

/// Refuses a store that the model of `--planted` did not make, by some of the rows of the evaluation: before the training,
/// and not in its report.
pub fn expect_planted(store: &Store, own: &ClickArgs) -> Result<()> {
    planted(store, own, &own.eval_on, Some(PLANTED_ROWS)).map(|_| ())
}

/// The scores on some of a store's rows of the model that made them, if the flags name one: nobody can do
/// better, on average.
pub fn planted(
    store: &Store,
    own: &ClickArgs,
    name: &str,
    limit: Option<usize>,
) -> Result<Option<Scores>> {
    let Some(seed) = own.planted else {
        return Ok(None);
    };
    let rows = evaluation(store, own, name, limit)?.rows;
    let scored = Planted::new(seed).logits(store, rows);
    let (logits, labels) = scored.with_context(|| format!("--planted {seed}"))?;
    Ok(Some(clicks(&logits, &labels)?.0))
}

/// The model with its first weights; `fresh` refuses a table file that is there already.
pub fn model(own: &ClickArgs, start: &Start, store: &Store, fresh: bool) -> Result<Dlrm> {
    let mut bottom = vec![INTEGERS];
    let widths = |text: &str| values::counts(text).map_err(anyhow::Error::msg);
    bottom.extend(widths(&own.bottom).context("--bottom")?);
    let mut top = widths(&own.top).context("--top")?;
    top.push(1);
    let config = Config {
        bottom,
        tables: store.table_sizes().to_vec(),
        top,
    };
    let precision = match own.precision.as_str() {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    match &own.table_file {
        None => {
            let model = Dlrm::new(&config, start, precision)?;
            match own.tables_on.as_str() {
                "cpu" => Ok(model),
                _ => Ok(model.with_tables_on(&start.device).context(
                    "tables on the device of --device (--tables-on cpu leaves them on the CPU)",
                )?),
            }
        }
        Some(path) => mapped(&config, start, precision, path, fresh),
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

/// The dense layers' optimizer beside the tables'.
pub fn optimizer(cell: &Cell<ClickArgs>, model: &Dlrm, steps_per_epoch: u64) -> Result<Composite> {
    let own = &cell.settings.own;
    let rule = optimizers::table_rule(&own.table_optimizer)?;
    let tables = SparseOptimizer::new([model.tables()], rule, own.table_lr)?;
    let mut rules = Rules::default();
    rules.sgd.momentum = 0.0;
    let place = Place {
        rules,
        ..Place::of(cell, steps_per_epoch, model.blocks())?
    };
    let dense = optimizers::build(&cell.settings.optimizer, place, &model.vars())?;
    Ok(Composite::new()
        .with_boxed("dense", dense)
        .with("tables", tables)
        .covering(&model.vars())?
        .covering_tables([model.tables()])?)
}
