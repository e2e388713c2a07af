//! Nothing of a step outlives it: memory over 300 steps.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use adahessian::AdaHessian;
use adahessian::ops::{Mode, cross_entropy};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use models::{Model, SequenceClassifier, Start, squeezebert};
use std::process::Command;

const CHILD: &str = "ADAHESSIAN_MEMORY_CHILD";

/// What the allocator has handed out and not got back, in KiB. It is exact, where resident memory
/// also counts the executable's pages, caches and the holes of the heap.
fn alive() -> f64 {
    // SAFETY: mallinfo2 reads the allocator's counters under its own lock.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64 / 1024.0
}

/// Runs the child below in a process of its own: other tests allocate, too.
#[test]
fn flat_over_300_steps() -> Result<()> {
    let test = ["--exact", "memory::child", "--nocapture"];
    let output = Command::new(std::env::current_exe()?)
        .args(test)
        // One arena, since the counters are those of the first; no caches of threads, which count as
        // handed out. With a fixed threshold every tensor goes back to the system when it is freed.
        .env(
            "GLIBC_TUNABLES",
            "glibc.malloc.mmap_threshold=16384:glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0",
        )
        // Each thread gets its scratch when work first comes its way, at any step.
        .env("RAYON_NUM_THREADS", "1")
        .env(CHILD, "300")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let found = text.lines().find_map(|l| l.split_once("alive KiB:"));
    let list = found.context("no figures")?.1.split_whitespace();
    let alive = list.map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    println!("KiB alive after steps 20, 40, ..., 300: {alive:?}");
    assert_eq!(alive.len(), 15);
    let growth = alive.iter().copied().fold(0.0, f64::max) - alive[0];
    // 1 KiB a step would be 280 KiB.
    assert!(growth <= 64.0, "memory grows: {alive:?}");
    Ok(())
}

/// Not a test by itself: prints the figure after every 20 steps.
#[test]
fn child() -> Result<()> {
    let Ok(steps) = std::env::var(CHILD) else {
        return Ok(());
    };
    let config = squeezebert::Config {
        vocab_size: 4_000,
        hidden_size: 128,
        embedding_size: 128,
        intermediate_size: 512,
        num_hidden_layers: 2,
        ..squeezebert::Config::mini()
    };
    let model = SequenceClassifier::new(&config.architecture()?, 2, &Start::default())?;
    let builder = AdaHessian::builder()
        .lr(1e-3)
        .every(2)
        .blocks(model.blocks());
    let mut opt = builder.build(model.vars())?;
    let ids: Vec<u32> = (0..4 * 16).map(|i| (i * 7 + 3) % 499).collect();
    let ids = Tensor::from_vec(ids, (4, 16), &Device::Cpu)?;
    let labels = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu)?;
    let mut figures = Vec::new();
    for step in 1..=steps.parse::<u64>()? {
        let mode = Mode::Train {
            seed: 0,
            step,
            micro: 0,
        };
        let logits = model.forward(&ids, None, None, &mode)?;
        opt.backward_step(&cross_entropy(&logits, &labels, 0.0, None)?)?;
        drop(logits);
        if step % 20 == 0 {
            figures.push(format!("{:.1}", alive()));
        }
    }
    println!("\nalive KiB: {}", figures.join(" "));
    Ok(())
}
