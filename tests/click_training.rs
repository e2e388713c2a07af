//! Training on clicks: a store, DLRM, AdaHessian beside Adagrad on the tables, checkpoints.

use adahessian::ops::Mode;
use adahessian::sparse::{Precision, SparseOptimizer, SparseRule};
use adahessian::{AdaHessian, Composite, Optim};
use anyhow::Result;
use candle_core::{Device, Tensor};
use datasets::criteo::{self, ClickBatch, ClickBatches, Preprocessing, Store};
use models::dlrm::{Config, Dlrm, Ids};
use models::{Model, Start};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testing::assert_says;
use trainers::{
    Ahead, Batches, Callback, Loss, Outcome, RunFolder, StepReport, Supervised, Task, TrainConfig,
    Trainer, checkpoint,
};

const ROWS: u64 = 600;

fn store(folder: &Path) -> Result<Store> {
    let text = folder.join("train.txt");
    criteo::generate(ROWS, 5, &mut std::fs::File::create(&text)?)?;
    let settings = Preprocessing {
        hash_modulo: Some(50),
        ..Preprocessing::default()
    };
    Ok(criteo::prepare(
        &[text],
        &folder.join("train.clicks"),
        &settings,
        |_| (),
    )?)
}

fn model(store: &Store, precision: Option<Precision>, file: &Path) -> Result<Dlrm> {
    let config = Config {
        bottom: vec![13, 8, 4],
        tables: store.table_sizes().to_vec(),
        top: vec![8, 1],
    };
    let start = Start::default();
    Ok(match precision {
        Some(precision) => Dlrm::new(&config, &start, precision)?,
        None => Dlrm::mapped(&config, &start, file)?,
    })
}

fn optimizer(model: &Dlrm) -> Result<Composite> {
    let dense = AdaHessian::builder().lr(0.05).hessian_power(0.5).every(2);
    let tables = SparseOptimizer::new([model.tables()], SparseRule::adagrad(), 0.05)?;
    Ok(Composite::new()
        .with("dense", dense.build(model.vars())?)
        .with("tables", tables)
        .covering(&model.vars())?
        .covering_tables([model.tables()])?)
}

fn batches(store: &Store, batch_size: usize) -> Result<ClickBatches> {
    Ok(ClickBatches {
        store: store.clone(),
        rows: store.days(7)?.train,
        batch_size,
        shuffle: Some(3),
        drop_last: false,
        device: Device::Cpu,
    })
}

fn task(model: &Dlrm, store: &Store) -> Result<impl Task<Batch = ClickBatch> + use<>> {
    let days = store.days(7)?;
    let evaluation = ClickBatches {
        rows: days.test.start..days.validation.end,
        shuffle: None,
        ..batches(store, 64)?
    };
    let model = model.clone();
    let forward = move |batch: &ClickBatch, mode: &Mode| {
        let logits = model.forward(&batch.dense, &Ids::Single(batch.ids.clone()), mode);
        logits.map_err(trainers::Error::user)
    };
    Ok(Supervised::new(forward, Loss::BinaryCrossEntropy, evaluation).metrics(&["clicks"])?)
}

/// Sets the flag after a step.
struct StopAt(u64, Arc<AtomicBool>);

impl Callback for StopAt {
    fn on_step(&mut self, report: &StepReport) -> trainers::Result<()> {
        self.1.store(report.step == self.0, Ordering::Relaxed);
        Ok(())
    }
}

fn trainer(
    store: &Store,
    model: &Dlrm,
    folder: &RunFolder,
    stop: u64,
) -> Result<Trainer<impl Task<Batch = ClickBatch> + use<>, Ahead<ClickBatches>>> {
    let flag = Arc::new(AtomicBool::new(false));
    let config = TrainConfig {
        epochs: 2,
        micro_batches: 2,
        eval_every: Some(6),
        checkpoint_every: Some(4),
        ..TrainConfig::default()
    };
    let task = task(model, store)?;
    let batches = Ahead::new(batches(store, 64)?, 2);
    let optimizer = Box::new(optimizer(model)?);
    let trainer = Trainer::new(task, batches, &model.vars(), optimizer, config)?;
    Ok(trainer
        .run_folder(folder, "")
        .stop_flag(flag.clone())
        .callback(StopAt(stop, flag)))
}

fn bits(model: &Dlrm, optimizer: &dyn Optim) -> Result<Vec<u32>> {
    let state = optimizer.state()?;
    let vars = model.vars();
    let mut tensors: Vec<Tensor> = vars.iter().map(|(_, v)| v.as_tensor().clone()).collect();
    tensors.extend(state.tensors.into_values());
    tensors.push(model.tables().to_tensor()?);
    let mut bits = Vec::new();
    for tensor in tensors {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        bits.extend(values.into_iter().map(f32::to_bits));
    }
    Ok(bits)
}

/// A run that is stopped, and one that is killed after its last checkpoint, end with the bits of a run
/// that nothing happened to: with tables in memory, in half precision, and in a file that has gone on
/// since the checkpoint.
#[test]
fn interrupted_runs_with_tables_end_with_the_same_bits() -> Result<()> {
    for precision in [Some(Precision::F32), Some(Precision::Bf16), None] {
        let dir = tempfile::tempdir()?;
        let (dir, store) = (dir.path(), store(dir.path())?);
        let run = |name: &str, stop: u64, resume: Option<&Path>| -> Result<_> {
            let file = dir.join(format!("{name}.map"));
            let model = model(&store, precision, &file)?;
            let folder = match resume {
                None => RunFolder::create(dir.join(name), "")?,
                Some(_) => RunFolder::open(dir.join(name))?,
            };
            let mut trainer = trainer(&store, &model, &folder, stop)?;
            if let Some(path) = resume {
                trainer.resume(path)?;
            }
            let summary = trainer.fit()?;
            Ok((bits(&model, trainer.optimizer())?, summary))
        };
        let (undisturbed, summary) = run("whole", u64::MAX, None)?;
        assert_eq!(summary.outcome, Outcome::Completed);
        assert_eq!(summary.steps, 2 * 515u64.div_ceil(64));

        let (_, summary) = run("stopped", 5, None)?;
        assert!(matches!(summary.outcome, Outcome::Interrupted { .. }));
        let (bits, _) = run("stopped", u64::MAX, Some(&dir.join("stopped")))?;
        assert_eq!(bits, undisturbed, "stopped, {precision:?}");

        // What a process leaves that is killed after step 10: the checkpoint of step 8, and a mapped
        // file with the numbers of step 10.
        run("killed", 10, None)?;
        let checkpoints = RunFolder::open(dir.join("killed"))?.checkpoints();
        std::fs::remove_dir_all(checkpoints.folder().join("stop-00000010"))?;
        let latest = checkpoints.latest()?;
        assert!(latest.is_some_and(|path| path.ends_with("step-00000008")));
        let (bits, _) = run("killed", u64::MAX, Some(&dir.join("killed")))?;
        assert_eq!(bits, undisturbed, "killed, {precision:?}");
    }
    Ok(())
}

#[test]
fn tables_that_do_not_fit_or_are_damaged_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (dir, store) = (dir.path(), store(dir.path())?);
    let folder = RunFolder::create(dir.join("run"), "")?;
    let first = model(&store, Some(Precision::F32), dir)?;
    trainer(&store, &first, &folder, 4)?.fit()?;
    let path = folder.checkpoints().latest()?.unwrap_or_default();
    let loaded = checkpoint::load(&path)?;

    let other = model(&store, Some(Precision::Bf16), dir)?;
    let mut opt = optimizer(&other)?;
    let before = bits(&other, &opt)?;
    let outcome = loaded.restore(&other.vars(), &mut opt);
    assert_says(
        outcome,
        &["table `emb_l`", "BF16 [1300, 4]", "F32 [1300, 4]"],
    );
    assert_eq!(bits(&other, &opt)?, before);
    let mut alone = AdaHessian::builder().build(other.vars())?;
    let outcome = loaded.restore(&other.vars(), &mut alone);
    assert_says(outcome, &["tables.safetensors", "0 sparse tables"]);

    // For an evaluation the parts are enough.
    let again = model(&store, Some(Precision::F32), dir)?;
    loaded.restore_vars(&again.vars())?;
    loaded.restore_tables(&[again.tables().clone()])?;
    assert_eq!(
        task(&again, &store)?.evaluate()?,
        task(&first, &store)?.evaluate()?
    );

    let file = path.join("tables.safetensors");
    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes)?;
    assert_says(checkpoint::load(&path), &["tables.safetensors", "checksum"]);
    std::fs::write(&file, &bytes[..middle])?;
    assert_says(checkpoint::load(&path), &["tables.safetensors", "bytes"]);
    std::fs::remove_file(&file)?;
    assert_says(
        checkpoint::load(&path),
        &["tables.safetensors", "cannot be read"],
    );
    Ok(())
}

/// Two epochs on six hundred rows: better than the constant prediction of the label rate on rows it has
/// seen, which takes gradients that reach networks and tables.
#[test]
fn adahessian_beside_adagrad_learns_clicks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = store(dir.path())?;
    let model = model(&store, Some(Precision::F32), dir.path())?;
    let folder = RunFolder::create(dir.path().join("run"), "")?;
    let tables = model.tables().to_tensor()?;
    trainer(&store, &model, &folder, u64::MAX)?.fit()?;
    let changed = (model.tables().to_tensor()? - tables)?.abs()?.sum_all()?;
    assert!(changed.to_scalar::<f32>()? > 0.0);
    let seen = ClickBatches {
        shuffle: None,
        ..batches(&store, 100)?
    };
    let network = model.clone();
    let forward = move |batch: &ClickBatch, mode: &Mode| {
        let logits = network.forward(&batch.dense, &Ids::Single(batch.ids.clone()), mode);
        logits.map_err(trainers::Error::user)
    };
    let scores = Supervised::new(forward, Loss::BinaryCrossEntropy, seen)
        .metrics(&["clicks"])?
        .evaluate()?;
    let score = |name: &str| scores.get(name).unwrap_or(f64::NAN);
    assert!(score("auc") > 0.7, "{scores}");
    assert!(score("normalised_entropy") < 0.95, "{scores}");
    assert_eq!(score("says_nothing"), 0.0);
    Ok(())
}

#[test]
fn batches_made_ahead_are_the_batches() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = batches(&store(dir.path())?, 100)?;
    let (none, ahead) = (Ahead::new(plain.clone(), 0), Ahead::new(plain.clone(), 3));
    assert_eq!(ahead.len(0), 6);
    // In order over the end of an epoch, then a leap back, then the same one twice.
    for (epoch, index) in [
        (0, 3),
        (0, 4),
        (0, 5),
        (1, 0),
        (1, 1),
        (0, 2),
        (0, 3),
        (0, 3),
    ] {
        let wanted = plain.get(epoch, index)?;
        for batch in [none.get(epoch, index)?, ahead.get(epoch, index)?] {
            assert_eq!(batch.ids, wanted.ids, "{epoch}, {index}");
            let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            assert_eq!(values(&batch.dense)?, values(&wanted.dense)?);
        }
    }
    assert_eq!(ahead.waited().batches, 8);
    assert_eq!(none.waited().batches, 0);
    assert_says(ahead.get(0, 6), &["batch 6", "6 batches"]);
    assert_eq!(ahead.get(0, 1)?.ids, plain.get(0, 1)?.ids);
    let part = plain.get(0, 0)?.narrow(98, 2)?;
    assert_eq!(part.ids, plain.get(0, 0)?.ids[98 * 26..]);
    assert_says(
        plain.get(0, 0)?.narrow(99, 2),
        &["rows 99 to 101", "of 100"],
    );
    Ok(())
}

#[test]
fn rows_without_labels_are_not_evaluated() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let labelled = std::fs::read_to_string(store(dir.path())?.path().with_extension("txt"))?;
    let lines = labelled.lines().filter_map(|line| line.split_once('\t'));
    let text: String = lines.map(|(_, rest)| format!("{rest}\n")).collect();
    let path = dir.path().join("test.txt");
    std::fs::write(&path, text)?;
    let settings = Preprocessing {
        labelled: false,
        hash_modulo: Some(50),
        ..Preprocessing::default()
    };
    let store = criteo::prepare(&[path], &dir.path().join("test.clicks"), &settings, |_| ())?;
    let model = model(&store, Some(Precision::F32), dir.path())?;
    let outcome = task(&model, &store)?.evaluate();
    assert_says(outcome, &["labels 0 and 1", "NaN", "test.txt"]);
    Ok(())
}
