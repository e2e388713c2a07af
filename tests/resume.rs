//! A run that is killed again and again ends with the same bits as one that is left in peace.

use adahessian::ops::{Dropout, Mode, dropout};
use adahessian::random::Stream;
use adahessian::{AdaHessian, AdamW, Composite, NamedVars, Optim, Rule};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trainers::callbacks::JsonLines;
use trainers::{Batches, Callback, Error, RunFolder, StepReport, TrainConfig, Trainer};
use trainers::{FixedBatches, Loss, Supervised, TensorBatch};

const KIND: &str = "ADAHESSIAN_RESUME_KIND";
const FOLDER: &str = "ADAHESSIAN_RESUME_FOLDER";
/// Milliseconds of sleep after each step, so that kills find the run at work.
const SLEEP: &str = "ADAHESSIAN_RESUME_SLEEP";

const STEPS: u64 = 36;
const EXAMPLES: usize = 8;

fn random(name: &str, step: u64, shape: &[usize]) -> adahessian::Result<Tensor> {
    Stream::new(3, name, step, 0).normal_tensor(shape, DType::F32, &Device::Cpu)
}

fn network() -> Result<NamedVars> {
    let shapes: [(&str, &[usize]); 4] = [
        ("hidden.weight", &[16, 6]),
        ("hidden.bias", &[16]),
        ("head.weight", &[2, 16]),
        ("head.bias", &[2]),
    ];
    let vars = shapes.map(|(name, shape)| -> Result<(String, Var)> {
        let value = (random(name, 0, shape)? * 0.3)?;
        Ok((name.into(), Var::from_tensor(&value)?))
    });
    Ok(NamedVars::new(
        vars.into_iter().collect::<Result<Vec<_>>>()?,
    )?)
}

fn forward(vars: &NamedVars, inputs: &Tensor, mode: &Mode) -> adahessian::Result<Tensor> {
    let linear = |x: &Tensor, name: &str| -> adahessian::Result<Tensor> {
        let weight = vars.get(&format!("{name}.weight"))?.t()?;
        Ok(x.matmul(&weight)?
            .broadcast_add(vars.get(&format!("{name}.bias"))?)?)
    };
    let hidden = linear(inputs, "hidden")?.tanh()?; // [n, 16]
    linear(
        &dropout(&hidden, &Dropout::new(0.2, "hidden", mode))?,
        "head",
    ) // [n, 2]
}

const SMOOTHED: Loss = Loss::CrossEntropy {
    label_smoothing: 0.1,
};

/// Five batches an epoch, other ones in each epoch.
struct Made;

impl Batches for Made {
    type Batch = TensorBatch;

    fn len(&self, _epoch: usize) -> usize {
        5
    }

    fn get(&self, epoch: usize, index: usize) -> datasets::Result<TensorBatch> {
        let inputs = random("inputs", (epoch * 100 + index) as u64, &[EXAMPLES, 6]);
        let inputs = inputs.map_err(datasets::Error::user)?;
        let labels = inputs.sum(1)?.gt(0f32)?.to_dtype(DType::U32)?;
        Ok(TensorBatch { inputs, labels })
    }
}

fn optimizer(kind: &str, vars: &NamedVars) -> Result<Box<dyn Optim>> {
    let adahessian = |vars: &NamedVars| AdaHessian::builder().lr(0.05).every(3).seed(4).build(vars);
    let adamw = |vars: &NamedVars| AdamW::default().lr(1e-2).build(vars);
    Ok(match kind {
        "adahessian" => Box::new(adahessian(vars)?),
        "adamw" => Box::new(adamw(vars)?),
        "composite" => {
            let (head, rest) = vars.partition(|name| name.starts_with("head"));
            let both = Composite::new()
                .with("head", adahessian(&head)?)
                .with("rest", adamw(&rest)?);
            Box::new(both.covering(vars)?)
        }
        other => bail!("no optimizer {other}"),
    })
}

struct Sleep(u64);

impl Callback for Sleep {
    fn on_step(&mut self, _: &StepReport) -> trainers::Result<()> {
        std::thread::sleep(Duration::from_millis(self.0));
        Ok(())
    }
}

/// Starts or goes on with the run in this folder, to its end.
fn run(kind: &str, path: &Path, sleep: u64) -> Result<()> {
    let vars = network()?;
    let model = vars.clone();
    let forward = move |b: &TensorBatch, mode: &Mode| Ok(forward(&model, &b.inputs, mode)?);
    let task = Supervised::new(forward, SMOOTHED, FixedBatches(vec![Made.get(1000, 0)?]))
        .metrics(&["accuracy"])?;
    let config = TrainConfig {
        epochs: 100,
        max_steps: Some(STEPS),
        micro_batches: 2,
        schedule: "warmup:5+cosine".parse()?,
        eval_every: Some(4),
        checkpoint_every: Some(2),
        log_every: 1,
        plateau: Some(trainers::Plateau {
            factor: 0.7,
            patience: 2,
        }),
        seed: 9,
        ..TrainConfig::default()
    };
    let resume = RunFolder::open(path)
        .is_ok_and(|run| run.checkpoints().latest().is_ok_and(|c| c.is_some()));
    let folder = match resume {
        true => RunFolder::open(path)?,
        // Killed before the first checkpoint: from the start.
        false => RunFolder::create(path, "")?,
    };
    let optimizer = optimizer(kind, &vars)?;
    let mut trainer = Trainer::new(task, Made, &vars, optimizer, config)?
        .run_folder(&folder, "")
        .callback(JsonLines::new(folder.metrics()))
        .callback(Sleep(sleep))
        .unsaved_at_most(Duration::ZERO);
    if resume {
        trainer.resume(path)?;
    }
    trainer.fit()?;
    Ok(())
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() -> Result<()> {
    let (Ok(kind), Some(folder)) = (std::env::var(KIND), std::env::var_os(FOLDER)) else {
        return Ok(());
    };
    run(&kind, Path::new(&folder), std::env::var(SLEEP)?.parse()?)
}

fn spawn(kind: &str, folder: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "resume::child", "--test-threads=1"]);
    command.env(KIND, kind).env(FOLDER, folder).env(SLEEP, "4");
    Ok(command.stdout(Stdio::null()).spawn()?)
}

fn newest(folder: &Path) -> Option<PathBuf> {
    RunFolder::open(folder).ok()?.checkpoints().latest().ok()?
}

/// Lets the child work until it has published a new checkpoint and a little longer, then kills it.
/// Whether it ended by itself before.
fn kill_at_some_moment(child: &mut Child, folder: &Path, delay: Duration) -> Result<bool> {
    let (before, began) = (newest(folder), Instant::now());
    while newest(folder) == before {
        if let Some(status) = child.try_wait()? {
            assert!(status.success(), "the child failed by itself");
            return Ok(true);
        }
        if began.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            bail!("the child takes no steps");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    if let Some(status) = child.try_wait()? {
        assert!(status.success(), "the child failed by itself");
        return Ok(true);
    }
    child.kill()?; // SIGKILL
    child.wait()?;
    Ok(false)
}

type Bits = BTreeMap<String, Vec<u32>>;

fn final_weights(folder: &Path) -> Result<Bits> {
    let path = newest(folder).context("a checkpoint")?;
    assert!(path.ends_with(format!("step-{STEPS:08}")), "{path:?}");
    let loaded = trainers::checkpoint::load(&path)?;
    let values = loaded.model.into_iter().chain(loaded.optimizer.tensors);
    let bits = values.map(|(name, value)| {
        let values = value.flatten_all()?.to_vec1::<f32>()?;
        Ok((name, values.into_iter().map(f32::to_bits).collect()))
    });
    bits.collect()
}

/// (kind, step, numbers) of every line; the times differ from run to run.
fn lines(folder: &Path) -> Result<Vec<(String, u64, String)>> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl"))?;
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let step = line["step"].as_u64().context("a step")?;
        Ok((
            line["kind"].to_string(),
            step,
            ["loss", "lr", "scores", "curvature_max", "curvature_step"]
                .map(|key| line[key].to_string())
                .join(" "),
        ))
    };
    text.lines().map(line).collect()
}

fn killed_equals_undisturbed(kind: &str, seed: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (peace, war) = (folder.path().join("peace"), folder.path().join("war"));
    run(kind, &peace, 0)?;
    let delays = Stream::new(seed, kind, 0, 0).uniform(200);
    let mut kills = 0;
    loop {
        let mut child = spawn(kind, &war)?;
        let delay = Duration::from_micros((25_000.0 * delays[kills]) as u64);
        if kill_at_some_moment(&mut child, &war, delay)? {
            break;
        }
        kills += 1;
        // Whatever the moment was, the newest checkpoint is whole.
        let newest = newest(&war).context("a checkpoint")?;
        trainers::checkpoint::load(&newest)
            .map_err(|e| Error::user(format!("after kill {kills}: {e}")))?;
    }
    assert!(
        kills >= 3,
        "only {kills} kills: the child is too fast for this test"
    );
    assert_eq!(final_weights(&war)?, final_weights(&peace)?, "{kind}");
    assert_eq!(lines(&war)?, lines(&peace)?, "{kind}");
    Ok(())
}

#[test]
fn adahessian_with_a_delayed_hessian() -> Result<()> {
    killed_equals_undisturbed("adahessian", 1)
}

#[test]
fn adamw() -> Result<()> {
    killed_equals_undisturbed("adamw", 2)
}

#[test]
fn composite() -> Result<()> {
    killed_equals_undisturbed("composite", 3)
}
