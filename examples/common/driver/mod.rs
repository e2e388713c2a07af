//! From a command line to a report: the one driver of all programs.

mod effect;
mod plan;
mod resume;
mod run;
mod shared;

use crate::answers::ReaderGone;
use crate::experiment::Experiment;
use crate::layers::{self, Own};
use crate::{program, say, say_error};
use anyhow::{Result, bail};
use clap::ArgMatches;
use plan::Plan;
use std::process::ExitCode;

/// What a process ends with that was interrupted, as shells have it: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// A program without subcommands, from its process's arguments to its exit code.
pub fn main<E: Experiment>(experiment: &E, command: clap::Command) -> ExitCode {
    let matches = E::Args::augment(command).get_matches();
    exit(train(experiment, &matches))
}

/// The exit code of a result: errors are shown.
pub fn exit(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        if error.is::<ReaderGone>() {
            return ExitCode::SUCCESS;
        }
        say_error!("error: {}", shown(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes, without those whose text the one before ends with already.
pub fn shown(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |text, cause| {
            match (text.is_empty(), text.ends_with(&cause)) {
                (true, _) => cause,
                (false, true) => text,
                (false, false) => format!("{text}: {cause}"),
            }
        })
}

/// Adds the flags of a program to its command.
pub trait Augment {
    /// The command with all flags.
    fn augment(command: clap::Command) -> clap::Command;
}

impl<A: Own> Augment for A {
    fn augment(command: clap::Command) -> clap::Command {
        layers::augment::<A>(command)
    }
}

/// Makes the runs that the matches of [`Augment`]ed flags ask for, and their report.
///
/// With `--resume` runs that are complete stay, one that was interrupted goes on from its newest checkpoint, and
/// the rest is made. Of several, one that fails, for example because its loss is not a number any more, is
/// reported, and the others are made all the same.
///
/// # Errors
/// For settings that do not fit, data that cannot be loaded, and at the end if a run failed.
pub fn train<E: Experiment>(experiment: &E, matches: &ArgMatches) -> Result<ExitCode> {
    let plan = Plan::read(experiment, matches)?;
    if plan.dry_run {
        say!("{}", plan.text()?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    program::start(
        plan.cells
            .first()
            .and_then(|cell| cell.settings.run.threads),
    )?;
    let stop = program::stop_flag()?;
    let ended = plan.run(experiment, &stop)?;
    if ended.stopped && plan.find_lr.is_some() {
        say!("stopped; a range test is begun again, with another --out");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if ended.stopped {
        say!(
            "stopped; go on with: {} --resume {}",
            program::command_name(),
            program::quoted(&plan.out.display().to_string())
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    match ended.failed {
        0 => Ok(ExitCode::SUCCESS),
        // Of several rungs there are more runs than choices.
        failed if plan.halving => bail!("runs that failed, of all rungs: {failed}"),
        failed => bail!("{failed} of {} runs failed", plan.cells.len()),
    }
}
