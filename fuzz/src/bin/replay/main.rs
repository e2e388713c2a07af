//! Replays the seeds of `corpus/`, then inputs that are made from them, against every target: fuzzing
//! without nightly, coverage or luck. Input I of seed K is always the same one.
//!
//! ```text
//! replay [TARGET...] [--inputs N] [--seconds S] [--seed K]
//! replay TARGET --only I [--seed K]        one input, to be debugged
//! replay TARGET --file PATH                a file, of artifacts/ say
//! ```
//!
//! Each target runs in a process of its own, within [`memory::MOST`] bytes and [`watch::LONGEST`] an input.
//! What panics, takes more, or ends the process is written to `artifacts/`, and the exit status is 1.

mod arguments;
mod child;
mod memory;
mod mutate;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use arguments::Arguments;
use fuzz::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let chosen = |target: &&Target| arguments.wants(target.name);
    let chosen: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    match (&arguments.file, arguments.child, chosen.as_slice()) {
        (Some(file), _, [target]) => {
            let taken = (target.run)(&std::fs::read(file).expect("a file to replay"));
            println!("{}", if taken { "taken" } else { "refused" });
            ExitCode::SUCCESS
        }
        (None, true, [target]) => child::run(target, &arguments),
        (None, false, targets) if !targets.is_empty() => parent(targets, &arguments),
        _ => {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("no such target; the targets are {}", names.join(", "));
            ExitCode::from(2)
        }
    }
}

/// Runs each target in a process of its own, and says what became of it.
fn parent(targets: &[&Target], arguments: &Arguments) -> ExitCode {
    println!("| target | inputs | inputs/s | taken | panics | largest memory | end |");
    println!("|---|---|---|---|---|---|---|");
    let mut failed = false;
    for target in targets {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let output = command.args(arguments.of_child(target.name)).output();
        let output = output.expect("a process of its own");
        let row = String::from_utf8_lossy(&output.stdout);
        let end = match output.status.code() {
            Some(0) => "well",
            Some(1) => "panics",
            Some(memory::EXIT) => "memory",
            Some(watch::EXIT) => "time",
            _ => "crash",
        };
        match row.trim() {
            "" => println!("| {} | | | | | | {end} |", target.name),
            row => println!("{row} {end} |"),
        }
        if !output.status.success() {
            failed = true;
            eprintln!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
            // A process that was ended could not tell which input did it.
            if end != "panics" {
                let index = child::current(target.name);
                let input =
                    child::input(target, &child::corpus(target.name), arguments.seed, index);
                let path = save(
                    target.name,
                    &format!("{end}-{}-{index}", arguments.seed),
                    &input,
                );
                eprintln!("{}: input {index} is {}", target.name, path.display());
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// A folder of this crate.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Writes an input to `artifacts/`.
fn save(target: &str, name: &str, input: &[u8]) -> PathBuf {
    let folder = folder("artifacts").join(target);
    std::fs::create_dir_all(&folder).expect("a folder for artifacts");
    let path = folder.join(name);
    std::fs::write(&path, input).expect("room for an artifact");
    path
}
