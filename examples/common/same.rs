//! What makes a run the same run, and runs comparable.

use crate::flags::{FREE, LENGTH};
use crate::grid::Cell;
use crate::layers::{self, Own};
use crate::plateau;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use toml::Table;
use trainers::RunFolder;

/// The setting that [`Parts::mark`](crate::experiment::Parts::mark) becomes.
pub const MARK: &str = "data_mark";

/// Refuses settings that would make another run of the one that was begun.
///
/// # Errors
/// Naming the setting.
pub fn steps(folder: &Path, before: &Table, now: &Table) -> Result<()> {
    let names = before
        .keys()
        .chain(now.keys().filter(|name| !before.contains_key(*name)));
    // Where a checksum says what is read, it may lie elsewhere.
    let same_data = before.contains_key(MARK) && now.contains_key(MARK);
    let counts = judged(before) || judged(now);
    let is_free = |name: &str| match name {
        "data" => same_data,
        "eval_every" => !counts,
        name => FREE.contains(&name),
    };
    for name in names.filter(|name| !is_free(name)) {
        if before.get(name) != now.get(name) {
            if name == MARK {
                // Runs of older versions have none, or one of what they are trained on alone.
                match before.get(name) {
                    Some(mark) if !begins_with(now.get(name), mark) => bail!(
                        "{}: what the run was begun on has changed since, its text, labels or vocabulary: bring it \
                         back, or begin another run with another --out",
                        folder.display()
                    ),
                    _ => continue,
                }
            }
            bail!(
                "{}: the run was begun with {name} = {}, and cannot go on with {}: its first steps would be \
                 another run's; leave the flag out, or begin another run with another --out",
                folder.display(),
                shown(before.get(name)),
                shown(now.get(name)),
            );
        }
    }
    Ok(())
}

/// Refuses a complete run of a comparison that its settings would not make any more: it is not made again, and would be
/// compared with others.
///
/// # Errors
/// Naming the setting; if the run's files cannot be read.
pub fn run<A: Own>(cell: &Cell<A>) -> Result<()> {
    let before = layers::of_run(&RunFolder::open(&cell.folder)?.settings()?)?;
    let now = layers::table(&cell.settings)?;
    let (same_data, counts) = (before.contains_key(MARK), judged(&before) || judged(&now));
    let is_free = |name: &str| match name {
        MARK => true,
        "data" => same_data,
        "eval_every" => !counts,
        name => FREE.contains(&name) && !LENGTH.contains(&name),
    };
    let names = before.keys().chain(now.keys());
    match names
        .filter(|name| !is_free(name))
        .find(|name| before.get(*name) != now.get(*name))
    {
        None => Ok(()),
        Some(name) => bail!(
            "{}: the run was made with {name} = {}, and those to come would be with {}: a default has changed since; begin \
             another comparison with another --out",
            cell.folder.display(),
            shown(before.get(name)),
            shown(now.get(name)),
        ),
    }
}

/// Another of these runs with the program's own flags and the limits of this one, and the checksum of what it was made on.
pub fn other<A: Own>(cells: &[Cell<A>], cell: &Cell<A>) -> Option<(PathBuf, String)> {
    let key = |cell: &Cell<A>| {
        let own = Table::try_from(&cell.settings.own).ok()?;
        let training = &cell.settings.training;
        Some((own, training.limit, training.limit_eval))
    };
    let (this, others) = (key(cell)?, cells.iter().filter(|c| c.folder != cell.folder));
    let mut marked = others.filter(|other| key(other).as_ref() == Some(&this));
    marked.find_map(|other| {
        let settings = RunFolder::open(&other.folder).ok()?.settings().ok()?;
        let settings = layers::parse(&settings).ok()?;
        let mark = settings.get(MARK)?.as_str()?.to_string();
        Some((other.folder.clone(), mark))
    })
}

/// Refuses data with another checksum than another run of the comparison has.
///
/// # Errors
/// Naming that run.
pub fn data(mark: &str, other: Option<&(PathBuf, String)>) -> Result<()> {
    match other {
        Some((folder, theirs)) if theirs != mark => bail!(
            "the text, labels or vocabulary are not those that {} was made on, which this run would be compared with: bring \
             them back, or begin another comparison with another --out",
            folder.display()
        ),
        _ => Ok(()),
    }
}

/// Whether a checksum of several parts has this one for its first part.
fn begins_with(mark: Option<&toml::Value>, first: &toml::Value) -> bool {
    let parts = mark
        .and_then(toml::Value::as_str)
        .and_then(|mark| mark.split_once('-'));
    parts.is_some_and(|(part, _)| Some(part) == first.as_str())
}

fn shown(value: Option<&toml::Value>) -> String {
    value.map_or("none".into(), ToString::to_string)
}

/// Whether evaluations decide how long a run goes on, or at what rate.
fn judged(table: &Table) -> bool {
    let schedule = table.get("schedule").and_then(toml::Value::as_str);
    let has_plateau = |text| plateau::parts(text).is_ok_and(|(_, plateau)| plateau.is_some());
    table.contains_key("patience") || schedule.is_some_and(has_plateau)
}
