//! The process of one target.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::Target;

use crate::arguments::Arguments;
use crate::{folder, memory, mutate, save, watch};

/// Panics after which a target is left alone.
const ENOUGH: u64 = 20;

/// Runs a target until it has had its inputs or its time.
pub fn run(target: &Target, arguments: &Arguments) -> ExitCode {
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let corpus = corpus(target.name);
    let note = File::create(note(target.name)).expect("a place to note the input");
    watch::start();
    let start = Instant::now();
    let end = Duration::from_secs(arguments.seconds);
    let (mut inputs, mut taken, mut panics, mut largest) = (0, 0, 0, 0);
    let all = match arguments.only {
        Some(index) => index..index + 1,
        None => 0..arguments.inputs.max(corpus.len() as u64),
    };
    for index in all {
        // The seeds in any case.
        if index >= corpus.len() as u64 && (start.elapsed() > end || panics == ENOUGH) {
            break;
        }
        note.write_all_at(&index.to_le_bytes(), 0)
            .expect("room for a number");
        let input = input(target, &corpus, arguments.seed, index);
        memory::begin();
        watch::begin(index);
        let done = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        watch::end();
        largest = largest.max(memory::largest());
        inputs += 1;
        taken += u64::from(matches!(done, Ok(true)));
        if done.is_err() {
            panics += 1;
            let path = save(
                target.name,
                &format!("panic-{}-{index}", arguments.seed),
                &input,
            );
            eprintln!("{}: input {index} is {}", target.name, path.display());
        }
    }
    let rate = inputs as f64 / start.elapsed().as_secs_f64();
    let mebibytes = largest as f64 / (1 << 20) as f64;
    let share = 100.0 * taken as f64 / inputs.max(1) as f64;
    println!(
        "| {} | {inputs} | {rate:.0} | {share:.0} % | {panics} | {mebibytes:.1} MiB |",
        target.name
    );
    ExitCode::from(u8::from(panics > 0))
}

/// Where the process notes which input it is at.
fn note(target: &str) -> std::path::PathBuf {
    let folder = folder("artifacts");
    std::fs::create_dir_all(&folder).expect("a folder for artifacts");
    folder.join(format!(".{target}"))
}

/// The input that a process was at when it ended.
pub fn current(target: &str) -> u64 {
    let bytes = std::fs::read(note(target)).unwrap_or_default();
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// The seeds of a target, by name.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        panic!("{}: no seeds", folder.display());
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path| std::fs::read(path).expect("a seed");
    let corpus: Vec<Vec<u8>> = paths.into_iter().map(read).collect();
    assert!(!corpus.is_empty(), "{}: no seeds", folder.display());
    corpus
}

/// Input `index`: the seeds, then what is made of them.
pub fn input(target: &Target, corpus: &[Vec<u8>], seed: u64, index: u64) -> Vec<u8> {
    match corpus.get(index as usize) {
        Some(input) => input.clone(),
        None => mutate::input(corpus, target.words, seed, index),
    }
}
