//! Checkpoints that a crash cannot spoil.
//!
//! A checkpoint is a folder of plain files:
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | all variables by name; any candle program can load it |
//! | `tables.safetensors` | the optimizer's sparse tables, where it has some |
//! | `optim.safetensors` | the optimizer's [`State`], with the run's [`Progress`] in the metadata |
//! | `config.toml` | the run's configuration, as the program gave it |
//! | `manifest` | length and CRC-32 of the others, and its own CRC-32 |
//!
//! It is written beside its place, brought to the disk, and published by one rename. Older ones are
//! removed only afterwards. So a process that is killed at any moment leaves the last published
//! checkpoint intact; what it left half written is hidden by a leading dot and removed at the next
//! save. One process at a time saves in a folder: see [`Checkpoints::lock`].

mod folder;
mod load;
mod lock;
mod manifest;
mod progress;

pub(crate) use folder::settled;
pub use load::{Loaded, configuration, load};
pub(crate) use load::{is_checkpoint, model_bytes};
pub use lock::Lock;
pub(crate) use lock::lock_folder;
pub use progress::{Evaluated, LastCurvature, Progress};

use crate::disk::sync_folder;
use crate::error::{Error, Result};
use adahessian::sparse::{self, SparseTable};
use adahessian::{NamedVars, State, save_tensors};
use folder::{discard, partial, recover, remove_leftovers, replaced};
use manifest::Manifest;
use std::fs;
use std::path::{Path, PathBuf};

/// The kinds of checkpoints, which their names begin with.
const STEP: &str = "step";
const BEST: &str = "best";
const STOP: &str = "stop";

const MODEL: &str = "model.safetensors";
const TABLES: &str = "tables.safetensors";
const OPTIMIZER: &str = "optim.safetensors";
const CONFIG: &str = "config.toml";
const FORMAT: &str = "adahessian-checkpoint";
const VERSION: u32 = 1;

/// What a checkpoint saves.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The variables, including those that no gradient reaches.
    pub vars: &'a NamedVars,
    /// The sparse tables.
    pub tables: &'a [SparseTable],
    /// The optimizer's state.
    pub optimizer: &'a State,
    /// Where the run stands.
    pub progress: &'a Progress,
    /// The run's configuration as TOML.
    pub config: &'a str,
}

/// The checkpoints of one run: `step-00000120` and the like, one `best-00000100`, and a `stop-00000130` where the run was
/// stopped between two of the others, was to be evaluated after many steps, or had no batch to go on with.
///
/// What changes the folder needs its lock, and takes it for the time that it needs; reading needs none.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    lock: lock::Shared,
}

impl Checkpoints {
    /// The checkpoints in this folder, of which the newest two are kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            keep: 2,
            lock: lock::Shared::default(),
        }
    }

    /// How many of the newest checkpoints to keep, at least one; the best one comes on top.
    pub fn keep(self, keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            ..self
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the folder to itself and its clones until the lock is dropped: a run holds it from its first
    /// step to its last. A process that dies loses it.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process, or another run of this one, has it. [`Error::Io`] if the
    /// folder cannot be made.
    pub fn lock(&self) -> Result<Lock> {
        self.lock.lock(&self.folder)
    }

    /// Saves a checkpoint of the present step and removes those that are too old, and that of an earlier
    /// stop. If an intact one of the same step, the same variables and the same progress but for the time exists, it
    /// stays.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written; older checkpoints are then untouched. Those of
    /// [`Checkpoints::lock`].
    pub fn save(&self, content: Content) -> Result<PathBuf> {
        let _held = self.lock()?;
        let path = self.publish(STEP, content)?;
        self.thin(STEP, self.keep)?;
        self.thin(STOP, 0)?;
        Ok(path)
    }

    /// Saves a checkpoint of a run that is stopped between two that it would have saved anyway. A run goes on
    /// from it, but it takes the place of none of those, and goes when the next is there: a run that was stopped
    /// ends with the checkpoints of one that was not, and the mean over the last ones is the same.
    ///
    /// # Errors
    /// As [`Checkpoints::save`].
    pub fn save_stop(&self, content: Content) -> Result<PathBuf> {
        let _held = self.lock()?;
        let path = self.publish(STOP, content)?;
        self.thin(STOP, 1)?;
        Ok(path)
    }

    /// Saves a checkpoint as [`Checkpoints::save_stop`] does, of steps that are not evaluated yet. The one before it stays,
    /// from which the run may have gone on: what is not evaluated may be beyond help.
    pub(crate) fn save_unevaluated(&self, content: Content) -> Result<PathBuf> {
        let _held = self.lock()?;
        let path = self.publish(STOP, content)?;
        self.thin(STOP, 2)?;
        Ok(path)
    }

    /// Saves a checkpoint of the best evaluation, in the place of the older best one.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written; the older one is then untouched. Those of
    /// [`Checkpoints::lock`].
    pub fn save_best(&self, content: Content) -> Result<PathBuf> {
        let _held = self.lock()?;
        let path = self.publish(BEST, content)?;
        for (_, old) in self.of_kind(BEST)? {
            if old != path {
                discard(&old)?;
            }
        }
        Ok(path)
    }

    /// The published checkpoints from the oldest step to the newest, whether intact or not, without those of the
    /// best evaluation and of a stop.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read; one that does not exist has no checkpoints.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let found = self.of_kind(STEP)?;
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// The newest of [`Checkpoints::list`].
    ///
    /// # Errors
    /// As [`Checkpoints::list`].
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(self.list()?.pop())
    }

    /// The checkpoint to go on from: that of the newest step, of whatever kind. The best evaluation's may be
    /// newer than all others, and would be lost to a run that goes on from before it.
    ///
    /// # Errors
    /// As [`Checkpoints::list`].
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        let mut found = Vec::new();
        for kind in [STOP, BEST, STEP] {
            found.extend(self.of_kind(kind)?);
        }
        // Of one step the last kind: what the others know it knows, too. That of a stop may be of before the evaluation.
        let newest = found.into_iter().max_by_key(|(step, _)| *step);
        Ok(newest.map(|(_, path)| path))
    }

    /// Removes what a process that died left half written, and puts back what it had put aside.
    ///
    /// # Errors
    /// [`Error::Io`] if something cannot be removed. Those of [`Checkpoints::lock`].
    pub fn tidy(&self) -> Result<()> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        let _held = self.lock()?;
        recover(&self.folder)
    }

    /// The checkpoint of the best evaluation.
    ///
    /// # Errors
    /// As [`Checkpoints::list`].
    pub fn best(&self) -> Result<Option<PathBuf>> {
        Ok(self.of_kind(BEST)?.pop().map(|(_, path)| path))
    }

    /// Removes the checkpoints of later steps, a best one too: a run that goes on from an earlier one
    /// leaves them behind, and knows nothing of an evaluation that has not happened yet. Of those before it the ones
    /// go that a process left which died between saving a checkpoint and removing the one that it replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be removed. Those of [`Checkpoints::lock`].
    pub fn remove_after(&self, step: u64) -> Result<()> {
        let _held = self.lock()?;
        recover(&self.folder)?;
        for kind in [BEST, STEP, STOP] {
            let mut later = self.of_kind(kind)?.into_iter().filter(|(s, _)| *s > step);
            later.try_for_each(|(_, path)| discard(&path))?;
        }
        self.thin(STEP, self.keep)?;
        // Two: one that waits for its evaluation, and the one before it, which errors name.
        self.thin(STOP, 2)?;
        let saved = self.of_kind(STEP)?.pop();
        for (stop, path) in self.of_kind(STOP)? {
            let is_behind = saved.as_ref().is_some_and(|(step, of)| {
                let is_whole = || Manifest::read(of).is_ok_and(|m| m.check(of).is_ok());
                stop < *step || (stop == *step && is_whole())
            });
            if is_behind {
                discard(&path)?;
            }
        }
        self.thin(BEST, 1)
    }

    /// Removes all but the newest ones.
    fn thin(&self, kind: &str, keep: usize) -> Result<()> {
        let all = self.of_kind(kind)?;
        let mut old = all.iter().take(all.len().saturating_sub(keep));
        old.try_for_each(|(_, path)| discard(path))
    }

    /// Whether a path has the name of a step's checkpoint, and not that of a best evaluation or a stop.
    pub(crate) fn is_step(path: &Path) -> bool {
        is_kind(path, STEP)
    }

    /// Whether a path has the name of a best evaluation's checkpoint.
    pub(crate) fn is_best(path: &Path) -> bool {
        is_kind(path, BEST)
    }

    fn of_kind(&self, kind: &str) -> Result<Vec<(u64, PathBuf)>> {
        folder::of_kind(&self.folder, kind)
    }

    /// Under the lock.
    fn publish(&self, kind: &str, content: Content) -> Result<PathBuf> {
        let error = |path: &Path| Error::io("cannot save the checkpoint", path);
        recover(&self.folder)?;
        let target = self
            .folder
            .join(format!("{kind}-{:08}", content.progress.step));
        let partial = partial(&target);
        fs::create_dir(&partial).map_err(error(&partial))?;
        let manifest = write_files(&partial, content)?;
        if target.exists() {
            if is_same(&target, &manifest, content.progress) {
                fs::remove_dir_all(&partial).map_err(error(&partial))?;
                return Ok(target);
            }
            // Found and put back by whoever comes next, if this is where the process dies.
            fs::rename(&target, replaced(&target)).map_err(error(&target))?;
        }
        fs::rename(&partial, &target).map_err(error(&target))?;
        sync_folder(&self.folder)?;
        remove_leftovers(&self.folder)?;
        Ok(target)
    }
}

fn is_kind(path: &Path, kind: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix(kind);
    rest.is_some_and(|rest| rest.starts_with('-'))
}

fn write_files(folder: &Path, content: Content) -> Result<Manifest> {
    let vars = content
        .vars
        .iter()
        .map(|(name, var)| (name, var.as_tensor()));
    let model = folder.join(MODEL);
    save_tensors(vars, None, &model)
        .map_err(|e| Error::io("cannot save", &model)(std::io::Error::other(e.to_string())))?;

    let mut names = vec![CONFIG, MODEL, OPTIMIZER];
    if !content.tables.is_empty() {
        sparse::save(content.tables, &folder.join(TABLES))?;
        names.push(TABLES);
    }

    let mut progress = State::default();
    content.progress.write(&mut progress);
    let mut all = State::default();
    all.put("format", FORMAT);
    all.put("version", VERSION);
    all.merge("trainer.", &progress);
    all.merge("optimizer.", content.optimizer);
    all.save(&folder.join(OPTIMIZER))?;

    let config = folder.join(CONFIG);
    fs::write(&config, content.config).map_err(Error::io("cannot save", &config))?;
    let manifest = Manifest::of(folder, &names)?;
    manifest.write(folder)?;
    sync_folder(folder)?;
    Ok(manifest)
}

/// Whether an intact checkpoint of the same variables and tables lies there, which knows of the same evaluations.
fn is_same(target: &Path, manifest: &Manifest, progress: &Progress) -> bool {
    let Ok(old) = Manifest::read(target) else {
        return false;
    };
    let mut names = [MODEL, TABLES].iter();
    let has_same_values = names.all(|name| old.crc(name) == manifest.crc(name));
    has_same_values
        && load::progress(target).is_some_and(|old| old.is_but_for_time(progress))
        && old.check(target).is_ok()
}
