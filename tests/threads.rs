//! Training from every kind of thread: no hang, and the same bits.
//!
//! Each program runs in a process of its own that is killed if it takes too long, so that a hang is a
//! failure and not the end of the test run.

use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Dropout};
use adahessian::random::Stream;
use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{AdaHessian, Composite, Hessian, LinearOperator, NamedVars, Optim, VarVec};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testing::dropped_norm;

const CHILD: &str = "ADAHESSIAN_THREADS_CHILD";
const PATIENCE: Duration = Duration::from_secs(240);
const SIZE: usize = 96;

fn variables(seed: u64) -> Result<NamedVars> {
    let var = |name: &str, shape: &[usize]| -> Result<(String, Var)> {
        let values =
            Stream::new(seed, name, 0, 0).normal_tensor(shape, DType::F32, &Device::Cpu)?;
        Ok((name.to_string(), Var::from_tensor(&(values * 0.1)?)?))
    };
    Ok(NamedVars::new([
        var("w1", &[SIZE, SIZE])?,
        var("w2", &[SIZE, SIZE])?,
        var("norm", &[SIZE])?,
    ])?)
}

/// Large enough that its loops are cut into pieces for several threads.
fn loss(vars: &NamedVars, seed: u64) -> adahessian::Result<Tensor> {
    let stream = Stream::new(seed, "x", 0, 0);
    let x = stream.normal_tensor(&[8, 32, SIZE], DType::F32, &Device::Cpu)?;
    let x = Handle::enter(&x)?;
    let norm = vars.get("norm")?;
    let a = ops::linear(&x, vars.get("w1")?, None, 1, Activation::Gelu)?;
    let a = dropped_norm(&a, Some(&x), &Dropout::none(), norm, norm, 1e-6)?;
    let b = ops::attention([&a, &a, &a], 4, None, true, &Dropout::none())?;
    let c = ops::linear(&b, vars.get("w2")?, None, 1, Activation::Tanh)?.exit()?;
    // Operations of candle's own, too.
    Ok(c.matmul(&c.transpose(1, 2)?.contiguous()?)?
        .sin()?
        .mean_all()?)
}

/// Three steps and a product; a checksum of all bits.
fn train(seed: u64) -> Result<u64> {
    let vars = variables(seed)?;
    let mut optimizer = AdaHessian::builder().lr(0.01).seed(seed).build(&vars)?;
    for _ in 0..3 {
        optimizer.backward_step(&loss(&vars, seed)?)?;
    }
    let hessian = Hessian::of(&loss(&vars, seed)?, &vars)?;
    let probe = VarVec::from_fn(&vars, |_, shape, dtype, device| {
        Ok(Tensor::ones(shape, dtype, device)?)
    })?;
    let mut sum = 0u64;
    for tensor in hessian
        .apply(&probe)?
        .tensors()
        .iter()
        .chain(vars.snapshot()?.tensors())
    {
        for x in tensor.flatten_all()?.to_vec1::<f32>()? {
            sum = sum.rotate_left(5) ^ u64::from(x.to_bits());
        }
    }
    Ok(sum)
}

const MODELS: u64 = 8;

fn on_threads() -> Result<Vec<u64>> {
    let threads: Vec<_> = (0..MODELS)
        .map(|seed| std::thread::spawn(move || train(seed)))
        .collect();
    threads
        .into_iter()
        .map(|t| t.join().expect("no panic"))
        .collect()
}

fn in_a_scope() -> Result<Vec<u64>> {
    let mut all: Vec<Result<u64>> = Vec::new();
    rayon::scope(|_| all.extend((0..MODELS).map(train)));
    all.into_iter().collect()
}

fn spawned_in_a_scope() -> Result<Vec<u64>> {
    let mut all: Vec<Result<u64>> = (0..MODELS).map(|_| Ok(0)).collect();
    rayon::scope(|scope| {
        for (seed, place) in all.iter_mut().enumerate() {
            scope.spawn(move |_| *place = train(seed as u64));
        }
    });
    all.into_iter().collect()
}

fn by_par_iter() -> Result<Vec<u64>> {
    (0..MODELS).into_par_iter().map(train).collect()
}

fn in_another_pool() -> Result<Vec<u64>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(by_par_iter)
}

fn one_after_the_other() -> Result<Vec<u64>> {
    (0..MODELS).map(train).collect()
}

type Program = fn() -> Result<Vec<u64>>;

const PROGRAMS: [(&str, Program); 6] = [
    ("one after the other", one_after_the_other),
    ("on eight threads", on_threads),
    ("in rayon::scope", in_a_scope),
    ("spawned in rayon::scope", spawned_in_a_scope),
    ("by par_iter", by_par_iter),
    ("in a pool of one thread", in_another_pool),
];

const READING: (&str, Program) = ("while the pool reads", while_the_pool_reads);

/// Runs a program in a process with so many threads; what it printed.
fn run(program: &str, threads: &str) -> Result<String> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "threads::child", "--nocapture"])
        .env("RAYON_NUM_THREADS", threads)
        .env(CHILD, program)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("{program}, {threads} threads: hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let found = text.lines().find_map(|l| l.split_once("bits:"));
    let (_, bits) = found.with_context(|| format!("{program}, {threads} threads: {text}"))?;
    Ok(bits.trim().to_string())
}

#[test]
fn no_hang_and_the_same_bits_from_every_kind_of_thread() -> Result<()> {
    let expected = run(PROGRAMS[0].0, "2")?;
    for threads in ["1", "2", "4"] {
        for (program, _) in PROGRAMS {
            assert_eq!(
                run(program, threads)?,
                expected,
                "{program}, {threads} threads"
            );
        }
    }
    Ok(())
}

/// A step holds a variable's lock while its loops run. All threads of the pool may wait for it meanwhile, to read the
/// variable, and come to no other work before the step has ended.
fn while_the_pool_reads() -> Result<Vec<u64>> {
    let table = SparseTable::from_fn("rows", [20_000, 4], Precision::F32, |_, row| row.fill(1.0))?;
    let var = Var::ones((4, 50_000), DType::F32, &Device::Cpu)?;
    let ids: Vec<u32> = (0..10_000).collect();
    let (all, of_table) = (var.as_tensor().clone(), table.clone());
    let done = Arc::new(AtomicBool::new(false));
    let until = done.clone();
    let reads = ids.clone();
    let readers = std::thread::spawn(move || {
        let read = |_: u64| -> Result<()> {
            (&all * 2.0)?;
            of_table.read(&reads)?;
            Ok(())
        };
        // Some for each thread, which goes from one to the next.
        let mut outcome: Result<()> = Ok(());
        while outcome.is_ok() && !until.load(Ordering::Relaxed) {
            outcome = (0..32).into_par_iter().try_for_each(read);
        }
        outcome
    });
    let dense = AdaHessian::builder().lr(0.01).build(vec![var.clone()])?;
    let tables = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
    let mut optimizer = Composite::new().with("dense", dense).with("tables", tables);
    for _ in 0..30 {
        let rows = table.lookup(&ids)?.rows;
        let loss = (var.sqr()?.sum_all()? + rows.sqr()?.sum_all()?)?;
        optimizer.accumulate_loss(&loss, 1.0)?;
        optimizer.apply()?;
    }
    done.store(true, Ordering::Relaxed);
    readers.join().expect("no panic")?;
    let bits =
        |x: &Tensor| -> Result<u64> { Ok(u64::from(x.mean_all()?.to_scalar::<f32>()?.to_bits())) };
    Ok(vec![bits(&var)?, bits(&table.to_tensor()?)?])
}

#[test]
fn a_step_ends_while_all_threads_read_what_it_changes() -> Result<()> {
    let expected = run(READING.0, "1")?;
    for threads in ["2", "4"] {
        assert_eq!(run(READING.0, threads)?, expected, "{threads} threads");
    }
    Ok(())
}

/// Not a test of its own: what the processes above run.
#[test]
fn child() -> Result<()> {
    let Some(name) = std::env::var_os(CHILD) else {
        return Ok(());
    };
    let named = |(program, _): &&(&str, Program)| *program == name.to_string_lossy();
    let mut programs = PROGRAMS.iter().chain([&READING]);
    let (_, program) = programs.find(named).context("no such program")?;
    println!("bits:{:x?}", program()?);
    Ok(())
}
