//! Reading checkpoints, and putting them back into a model and an optimizer.

use super::manifest::{self, Damage, Manifest};
use super::{CONFIG, Checkpoints, FORMAT, MODEL, OPTIMIZER, Progress, STEP, STOP, TABLES, VERSION};
use crate::error::{Error, Result};
use adahessian::sparse::{self, SparseTable};
use adahessian::{NamedVars, Optim, State};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A checkpoint in memory, whose every byte has been checked. The tables stay on the disk.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The folder it came from.
    pub path: PathBuf,
    /// The variables' values by name, on the CPU.
    pub model: BTreeMap<String, Tensor>,
    /// The file of the sparse tables, where there are some.
    pub tables: Option<PathBuf>,
    /// The optimizer's state.
    pub optimizer: State,
    /// Where the run stood.
    pub progress: Progress,
    /// The run's configuration as TOML.
    pub config: String,
}

/// Loads a checkpoint's folder.
///
/// # Errors
/// [`Error::NoCheckpoint`] if there is no such folder. [`Error::Corrupt`] with the damaged file,
/// the reason, and the newest intact checkpoint beside it.
pub fn load(path: &Path) -> Result<Loaded> {
    if !path.is_dir() {
        return Err(Error::NoCheckpoint {
            path: path.into(),
            what: "no such folder; give a run's folder or one of its checkpoints",
        });
    }
    read(path).map_err(|damage| corrupt(path, damage))
}

/// The configuration that a checkpoint was made with.
///
/// # Errors
/// As [`load`], of which this reads the smallest part.
pub fn configuration(path: &Path) -> Result<String> {
    let config = || {
        let bytes = Manifest::read(path)?.file(path, CONFIG)?;
        String::from_utf8(bytes).map_err(|e| Damage::new(CONFIG, e))
    };
    config().map_err(|damage| corrupt(path, damage))
}

/// Where the run stood; none if the file that says it is damaged.
pub(super) fn progress(path: &Path) -> Option<Progress> {
    let bytes = Manifest::read(path).and_then(|manifest| manifest.file(path, OPTIMIZER));
    let state = parse_state(&bytes.ok()?).ok()?;
    Progress::read(&state.part("trainer.")).ok()
}

/// The bytes of a checkpoint's file of variables, checked.
///
/// # Errors
/// As [`load`].
pub(crate) fn model_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = Manifest::read(path).and_then(|manifest| manifest.file(path, MODEL));
    bytes.map_err(|damage| corrupt(path, damage))
}

fn corrupt(path: &Path, damage: Damage) -> Error {
    Error::Corrupt {
        path: path.into(),
        file: damage.file,
        reason: damage.reason,
        previous: previous(path),
    }
}

fn read(path: &Path) -> std::result::Result<Loaded, Damage> {
    let manifest = Manifest::read(path)?;
    let config = manifest.file(path, CONFIG)?;
    let config = String::from_utf8(config).map_err(|e| Damage::new(CONFIG, e))?;
    let model = manifest.file(path, MODEL)?;
    let model = candle_core::safetensors::load_buffer(&model, &Device::Cpu)
        .map_err(|e| Damage::new(MODEL, e))?;
    let all = parse_state(&manifest.file(path, OPTIMIZER)?)?;
    let damage = |e: adahessian::Error| Damage::new(OPTIMIZER, e);
    let version: u32 = all.value("version").map_err(damage)?;
    if all.meta.get("format").map(String::as_str) != Some(FORMAT) || version != VERSION {
        let reason = format!("expected {FORMAT} version {VERSION}, got version {version}");
        return Err(Damage::new(OPTIMIZER, reason));
    }
    let tables = manifest.lists(TABLES).then(|| path.join(TABLES));
    if tables.is_some() {
        manifest.check_file(path, TABLES)?;
    }
    Ok(Loaded {
        path: path.into(),
        tables,
        model: model.into_iter().collect(),
        optimizer: all.part("optimizer."),
        progress: Progress::read(&all.part("trainer.")).map_err(damage)?,
        config,
    })
}

/// From the bytes that were checked, not from the file, which may have changed since.
fn parse_state(bytes: &[u8]) -> std::result::Result<State, Damage> {
    let header = safetensors::SafeTensors::read_metadata(bytes);
    let (_, header) = header.map_err(|e| Damage::new(OPTIMIZER, e))?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|e| Damage::new(OPTIMIZER, e))?;
    Ok(State {
        meta: header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        tensors: tensors.into_iter().collect(),
    })
}

/// The newest intact checkpoint beside a damaged one; earlier steps come first.
fn previous(path: &Path) -> Option<PathBuf> {
    let checkpoints = Checkpoints::new(path.parent()?);
    let mut others = checkpoints.of_kind(STEP).ok()?;
    others.extend(checkpoints.of_kind(STOP).ok()?);
    let step = others
        .iter()
        .find(|(_, p)| p == path)
        .map(|(step, _)| *step);
    others.retain(|(_, p)| p != path);
    others.sort_by_key(|(s, _)| (step.is_some_and(|step| *s < step), *s));
    let best = checkpoints.best().ok().flatten().filter(|p| p != path);
    let candidates = others.into_iter().rev().map(|(_, path)| path).chain(best);
    let intact = |path: &PathBuf| Manifest::read(path).is_ok_and(|m| m.check(path).is_ok());
    candidates.into_iter().find(intact)
}

impl Loaded {
    /// Puts the values into the variables, the optimizer and its tables. Everything is checked first:
    /// on an error nothing is changed.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a variable or table that is missing on either side or has another
    /// shape or dtype, and the optimizer's own error if the state does not fit it.
    pub fn restore(&self, vars: &NamedVars, optimizer: &mut dyn Optim) -> Result<()> {
        let values = self.values_for(vars)?;
        let tables = optimizer.tables();
        self.with_tables(&tables, sparse::check)?;
        optimizer.load_state(&self.optimizer)?;
        self.with_tables(&tables, sparse::load)?;
        for ((_, var), value) in vars.iter().zip(&values) {
            var.set(value)?;
        }
        Ok(())
    }

    /// Puts the values into the variables only, for evaluating a checkpoint.
    ///
    /// # Errors
    /// [`Error::Mismatch`] as in [`Loaded::restore`].
    pub fn restore_vars(&self, vars: &NamedVars) -> Result<()> {
        let values = self.values_for(vars)?;
        for ((_, var), value) in vars.iter().zip(&values) {
            var.set(value)?;
        }
        Ok(())
    }

    /// Puts the numbers into the tables only, for evaluating a checkpoint.
    ///
    /// # Errors
    /// [`Error::Mismatch`] as in [`Loaded::restore`].
    pub fn restore_tables(&self, tables: &[SparseTable]) -> Result<()> {
        self.with_tables(tables, sparse::load)
    }

    fn with_tables(
        &self,
        tables: &[SparseTable],
        act: fn(&[SparseTable], &Path) -> adahessian::Result<()>,
    ) -> Result<()> {
        let count = |count: usize| format!("{count} sparse tables");
        match (&self.tables, tables) {
            (None, []) => Ok(()),
            (None, _) => Err(self.mismatch(TABLES.into(), count(tables.len()), count(0))),
            (Some(_), []) => Err(self.mismatch(TABLES.into(), count(0), "some".into())),
            (Some(path), _) => {
                if let Some(name) = sparse::unknown(tables, path)? {
                    let what = format!("table `{name}`");
                    return Err(self.mismatch(what, "no such table".into(), "one".into()));
                }
                act(tables, path).map_err(|e| match e {
                    adahessian::Error::Variable {
                        name,
                        expected,
                        got,
                    } => self.mismatch(format!("table `{name}`"), expected, got),
                    other => other.into(),
                })
            }
        }
    }

    /// The values in the order of the variables, on their devices.
    fn values_for(&self, vars: &NamedVars) -> Result<Vec<Tensor>> {
        if let Some(extra) = self.model.keys().find(|name| vars.get(name).is_err()) {
            return Err(self.mismatch(variable(extra), "no such variable".into(), "one".into()));
        }
        let fit = |(name, var): (&str, &candle_core::Var)| {
            let describe = |t: &Tensor| format!("{:?} {:?}", t.dtype(), t.dims());
            let expected = describe(var.as_tensor());
            match self.model.get(name) {
                None => Err(self.mismatch(variable(name), expected, "no such variable".into())),
                Some(value) if describe(value) != expected => {
                    Err(self.mismatch(variable(name), expected, describe(value)))
                }
                Some(value) => Ok(value.to_device(var.device())?),
            }
        };
        vars.iter().map(fit).collect()
    }

    fn mismatch(&self, what: String, expected: String, got: String) -> Error {
        Error::Mismatch {
            path: self.path.clone(),
            what,
            expected,
            got,
        }
    }
}

fn variable(name: &str) -> String {
    format!("variable `{name}`")
}

/// Whether a folder looks like a checkpoint, damaged or not.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    [manifest::NAME, MODEL, OPTIMIZER]
        .iter()
        .any(|name| path.join(name).exists())
}
