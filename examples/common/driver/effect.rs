//! Settings of the optimizer that have no effect on the optimizers that were asked for.
//!
//! A sweep over one of them would make the same run several times, and call the copies choices.

use crate::grid::Cell;
use crate::layers::Own;
use anyhow::{Result, bail};
use toml::Table;

/// Which optimizers read a setting; those that are not here all of them do.
const READERS: [(&[&str], &[&str]); 3] = [
    (&["eps", "hessian_power", "unseen"], &["adahessian"]),
    (
        &[
            "hessian_every",
            "hessian_first",
            "hessian_floor",
            "average",
            "block_size",
            "samples",
            "curvature_fraction",
        ],
        &["adahessian", "sophiah"],
    ),
    (&["betas"], &["adahessian", "adamw", "adam", "lamb"]),
];

fn readers(setting: &str) -> Option<&'static [&'static str]> {
    let found = READERS
        .iter()
        .find(|(settings, _)| settings.contains(&setting));
    found.map(|(_, readers)| *readers)
}

/// Whether a setting has an effect on one of these runs.
pub fn is_read<A: Own>(setting: &str, cells: &[Cell<A>]) -> bool {
    let reads = |readers: &[&str]| {
        let mut optimizers = cells
            .iter()
            .map(|cell| cell.settings.optimizer.optimizer.as_str());
        optimizers.any(|optimizer| readers.contains(&optimizer))
    };
    readers(setting).is_none_or(reads)
}

/// Refuses what was given and nobody reads, and what is swept and somebody does not.
///
/// # Errors
/// With the flag, and the optimizers that read it.
pub fn check<A: Own>(given: &Table, cells: &[Cell<A>]) -> Result<()> {
    let optimizer = |cell: &Cell<A>| cell.settings.optimizer.optimizer.clone();
    for setting in given.keys() {
        let Some(readers) = readers(setting) else {
            continue;
        };
        if !cells
            .iter()
            .any(|cell| readers.contains(&optimizer(cell).as_str()))
        {
            bail!(
                "--{}: has no effect on {}; it is read by {}",
                setting.replace('_', "-"),
                cells.first().map(optimizer).unwrap_or_default(),
                readers.join(", ")
            );
        }
    }
    for cell in cells {
        let swept = cell.place.iter().find_map(|(setting, _)| {
            let readers = readers(setting)?;
            (!readers.contains(&optimizer(cell).as_str())).then_some((setting, readers))
        });
        if let Some((setting, readers)) = swept {
            bail!(
                "--sweep {}: has no effect on {}, whose runs would all be the same; it is read by {}: compare {} in a run \
                 of its own",
                setting.replace('_', "-"),
                optimizer(cell),
                readers.join(", "),
                optimizer(cell)
            );
        }
    }
    Ok(())
}
