//! Nothing of a step outlives it: resident memory over 300 steps.

use adahessian::AdaHessian;
use adahessian::ops::{Mode, cross_entropy};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use models::{SequenceClassifier, Start, squeezebert};
use std::process::Command;

const CHILD: &str = "ADAHESSIAN_MEMORY_CHILD";

/// Resident memory in KiB, without the pages of the executable, which come and go as the kernel
/// likes; none where the system does not tell.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs the child below in a process of its own: other tests allocate, too.
#[test]
fn flat_over_300_steps() -> Result<()> {
    if resident().is_none() {
        println!("skipped: this system does not tell the resident memory");
        return Ok(());
    }
    let test = [
        "--exact",
        "memory::child",
        "--nocapture",
        "--test-threads=1",
    ];
    let output = Command::new(std::env::current_exe()?)
        .args(test)
        // By default glibc keeps what is freed, by thresholds that it adapts as it goes; with a
        // fixed one every tensor goes back at once, and what is resident between two steps is what
        // is alive.
        .env(
            "GLIBC_TUNABLES",
            "glibc.malloc.mmap_threshold=16384:glibc.malloc.arena_max=1",
        )
        // Each thread gets its scratch when work first comes its way, at any step.
        .env("RAYON_NUM_THREADS", "1")
        .env(CHILD, "300")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let figures = text
        .lines()
        .find_map(|l| l.split_once("resident KiB:"))
        .context("no figures")?
        .1;
    let kib: Vec<f64> = figures
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let most = |windows: &[f64]| windows.iter().copied().fold(0.0, f64::max);
    println!("least resident KiB in steps 21..=40, 41..=60, ...: {figures}");
    assert!(kib.len() == 14, "{figures}");
    // A process this small shows every scratch buffer that a library makes once, at whatever step,
    // and every 132 KiB by which the heap of small blocks grows: 2 MiB in all, 2 % after step 100. A
    // tensor kept each step would be ten times that.
    assert!(most(&kib) <= kib[0] + 2048.0, "memory grows: {figures}");
    assert!(most(&kib[4..]) <= 1.02 * kib[4], "memory grows: {figures}");
    Ok(())
}

/// Not a test by itself: prints the least resident memory in each window of 20 steps after the first
/// 20. The least, since threads and small blocks come and go by a few pages.
#[test]
fn child() -> Result<()> {
    let Ok(steps) = std::env::var(CHILD) else {
        return Ok(());
    };
    let config = squeezebert::Config {
        vocab_size: 12_000,
        hidden_size: 128,
        embedding_size: 128,
        intermediate_size: 512,
        num_hidden_layers: 2,
        ..squeezebert::Config::mini()
    };
    let architecture = config.architecture()?;
    let model = SequenceClassifier::new(&architecture, 2, &Start::default())?;
    let mut opt = AdaHessian::builder()
        .lr(1e-3)
        .every(2)
        .blocks(model.blocks())
        .build(model.vars())?;
    let ids: Vec<u32> = (0..4 * 16).map(|i| (i * 7 + 3) % 499).collect();
    let ids = Tensor::from_vec(ids, (4, 16), &Device::Cpu)?;
    let labels = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu)?;
    let (mut figures, mut least) = (Vec::new(), f64::INFINITY);
    for step in 1..=steps.parse::<u64>()? {
        let mode = Mode::Train {
            seed: 0,
            step,
            micro: 0,
        };
        let logits = model.forward(&ids, None, None, &mode)?;
        opt.backward_step(&cross_entropy(&logits, &labels, 0.0, None)?)?;
        least = least.min(resident().context("no RssAnon")?);
        if step % 20 == 0 {
            if step > 20 {
                figures.push(least.to_string());
            }
            least = f64::INFINITY;
        }
    }
    println!("resident KiB:{}", figures.join(" "));
    Ok(())
}
