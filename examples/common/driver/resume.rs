//! With what a run or a comparison goes on.

use crate::find_lr;
use crate::flags::{FREE, LENGTH};
use crate::grid::Cell;
use crate::layers::{self, Asked, Own};
use crate::results::is_complete;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use trainers::RunFolder;

/// What is asked for over what the folder's runs were begun with; what would make other runs of them is refused.
pub(super) fn resumed<A: Own>(
    asked: Asked<A>,
    settings: &str,
    folder: &RunFolder,
) -> Result<Asked<A>> {
    let before = layers::of_folder::<A>(settings)?;
    let place = folder.config().display().to_string();
    if before.contains_key("find_lr") || find_lr::is_test(&before) {
        bail!(
            "{}: is a range test of the learning rate, which is begun again with another --out",
            folder.path().display()
        );
    }
    let invocation = &asked.invocation;
    let sweeps = invocation.sweep.iter().cloned().map(toml::Value::String);
    let sweeps = toml::Value::Array(sweeps.collect());
    // What was begun with them may name them again.
    let same_sweeps = invocation.sweep.is_empty() || before.get("sweep") == Some(&sweeps);
    if !same_sweeps || (invocation.halving && !before.contains_key("halving")) {
        bail!(
            "--sweep, --study, --halving: runs are added to no comparison that was begun; leave them out to go on, or \
             begin another with another --out"
        );
    }
    // A run on its own has its checkpoints in its folder, and can be of another length.
    let is_run = folder.path().join("checkpoint").is_dir();
    // Whether data that lies elsewhere is the same each run tells by its checksum.
    let is_free =
        |name: &str| name == "data" || FREE.contains(&name) && (is_run || !LENGTH.contains(&name));
    let refused = asked.all_given().find(|(name, value)| {
        let was = before.get(*name);
        let same = match was {
            // A default that is written down nowhere.
            None => asked.is_at_default(name),
            Some(was) => was == *value || (*name == "schedule" && has_own_steps(Some(was), value)),
        };
        !is_free(name) && !same
    });
    match refused {
        None => asked.over(&before, &place),
        Some((name, value)) if LENGTH.contains(&name.as_str()) => {
            let flag = name.replace('_', "-");
            bail!(
                "--{flag} {value}: some runs of {} may be complete, and all of a comparison have one length, nor can a run \
                 be made longer that has no checkpoints any more (--keep): leave the flag out, or begin another with \
                 another --out",
                folder.path().display()
            )
        }
        Some((name, value)) => {
            let flag = name.replace('_', "-");
            let was = before
                .get(name)
                .map_or("not given".into(), ToString::to_string);
            bail!(
                "--{flag} {value}: it was {was} when {} was begun, and its first steps cannot be taken back: leave \
                 the flag out, or begin another run with another --out",
                folder.path().display()
            )
        }
    }
}

/// Whether a schedule may be what `step` of the other comes to; if it comes to other steps, the run says so.
fn has_own_steps(was: Option<&toml::Value>, asked: &toml::Value) -> bool {
    let texts = was.and_then(toml::Value::as_str).zip(asked.as_str());
    texts.is_some_and(|(was, asked)| {
        let before = asked.strip_suffix("step");
        before
            .and_then(|before| was.strip_prefix(before))
            .is_some_and(|rest| rest.starts_with("step:"))
    })
}

/// Refuses to go on elsewhere than in the run's folder, and from before the end of a run that is complete: its end
/// would be taken back.
pub(super) fn stays(path: &Path, folder: &RunFolder, out: Option<&Path>) -> Result<()> {
    let own = folder.path();
    if let Some(out) = out
        && out.components().ne(path.components())
        && out.components().ne(own.components())
    {
        bail!(
            "--out {}: --resume {} goes on in its own folder, {}; leave one of the two out",
            out.display(),
            path.display(),
            own.display()
        );
    }
    if path.join("manifest").is_file() && is_complete(own) {
        bail!(
            "{}: the run is complete, and its end would be lost; remove {} to go back to this checkpoint",
            path.display(),
            folder.summary().display()
        );
    }
    Ok(())
}

/// Runs in a comparison's folder that are none of these: of a version with other defaults, say.
pub(super) fn strangers<A: Own>(out: &Path, cells: &[Cell<A>]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    let runs = entries.map(|entry| entry.path());
    let runs = runs.filter(|path| RunFolder::open(path).is_ok());
    let mut strange: Vec<_> = runs
        .filter(|path| cells.iter().all(|cell| cell.folder != *path))
        .collect();
    strange.sort();
    strange
}

/// Whether a complete run has these settings as they are asked for now.
pub(super) fn has<A: Own>(cell: &Cell<A>, names: &[&str]) -> bool {
    let before = RunFolder::open(&cell.folder).and_then(|folder| folder.settings());
    let before = before.ok().and_then(|text| layers::of_run(&text).ok());
    let (Some(before), Ok(now)) = (before, layers::table(&cell.settings)) else {
        return true;
    };
    names.iter().all(|name| before.get(*name) == now.get(*name))
}

/// The newest checkpoint of a run's folder, which need not exist.
pub(super) fn checkpoint(folder: &Path) -> Result<Option<PathBuf>> {
    match RunFolder::open(folder) {
        Ok(run) => Ok(run.checkpoints().newest()?),
        Err(_) => Ok(None),
    }
}
