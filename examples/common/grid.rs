//! Which runs a command line asks for: every combination of what it names several of.

use crate::experiment::Experiment;
use crate::flags::Settings;
use crate::layers::{self, Asked, Own};
use crate::optimizers;
use crate::values::{list, list_as_it_is, list_of};
use anyhow::{Context, Result, bail};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// More runs would be a slip of the finger.
const MOST_RUNS: usize = 10_000;
/// Flags that are no settings of a run.
const NOT_SWEPT: [&str; 10] = [
    "sweep",
    "study",
    "halving",
    "find_lr",
    "config",
    "out",
    "resume",
    "dry_run",
    "threads",
    "data_mark",
];

/// Flags whose value is a list: of several the values are separated by semicolons.
const LISTS: [&str; 4] = ["betas", "bottom", "top", "cutoffs"];

/// One run, with settings that leave nothing open.
#[derive(Clone, Debug)]
pub struct Cell<A: Own> {
    /// All settings, of one run each: one optimizer, one seed.
    pub settings: Settings<A>,
    /// The seed.
    pub seed: u64,
    /// What distinguishes it from the other runs, its seed apart: names and values in the order of the axes.
    pub place: Vec<(String, String)>,
    /// Where its files lie.
    pub folder: PathBuf,
    /// Whether it is the only one.
    pub alone: bool,
}

impl<A: Own> Cell<A> {
    /// Its name for people: `sst2 adahessian lr 0.1 seed 0`.
    pub fn label(&self) -> String {
        let optimizer = (
            "optimizer".to_string(),
            self.settings.optimizer.optimizer.clone(),
        );
        let mut parts = self.place.clone();
        if !parts.iter().any(|(name, _)| name == "optimizer") {
            parts.push(optimizer);
        }
        let mut words: Vec<String> = parts
            .iter()
            .map(|(name, value)| word(name, value))
            .collect();
        words.push(format!("seed {}", self.seed));
        words.join(" ")
    }

    /// Its name among those that differ in the seed alone.
    pub fn group(&self) -> String {
        let words = self.place.iter().map(|(name, value)| word(name, value));
        let words: Vec<String> = words.collect();
        match words.is_empty() {
            true => self.settings.optimizer.optimizer.clone(),
            false => words.join(" "),
        }
    }
}

/// What speaks for itself is said without its name.
fn word(name: &str, value: &str) -> String {
    match name {
        "optimizer" | "task" | "model" => value.into(),
        _ => format!("{} {value}", name.replace('_', " ")),
    }
}

/// The values of one flag.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The setting's name.
    pub name: String,
    /// Its values, as they are given on a command line.
    pub values: Vec<String>,
}

/// The axes but the seed: those of the program (tasks, say), the optimizers, the sweeps.
///
/// # Errors
/// For a sweep that is no `flag=value,value`, or of a flag that is an axis already.
pub fn axes<E: Experiment>(asked: &Asked<E::Args>) -> Result<Vec<Axis>> {
    let mut axes = E::axes(&asked.settings.own)?;
    let place = axes.len();
    for sweep in &asked.invocation.sweep {
        let (name, values) = sweep
            .split_once('=')
            .with_context(|| format!("--sweep {sweep}: expected FLAG=VALUE,VALUE"))?;
        let name = name.trim().trim_start_matches("--").replace('-', "_");
        let flag = name.replace('_', "-");
        let taken = axes.iter().any(|axis| axis.name == name)
            || ["optimizer", "seed"].contains(&name.as_str());
        if taken {
            bail!("--sweep {sweep}: give several values with --{flag} itself, or once");
        }
        if NOT_SWEPT.contains(&name.as_str()) {
            bail!("--sweep {sweep}: --{flag} is no setting of a run");
        }
        if asked.has(&name) {
            bail!("--{flag}: --sweep {sweep} varies it; leave one of the two out");
        }
        let values = match LISTS.contains(&name.as_str()) {
            true => lists(values, &flag),
            false => list_as_it_is(values),
        };
        let values = values.map_err(|e| anyhow::anyhow!("--sweep {sweep}: {e}"))?;
        axes.push(Axis { name, values });
    }
    let optimizers = match asked.has("optimizer") {
        true => asked.settings.optimizer.optimizer.as_str(),
        false => E::default_optimizer(&own_of_first(asked, &axes)?),
    };
    let optimizers = Axis {
        name: "optimizer".into(),
        values: list(optimizers).map_err(anyhow::Error::msg)?,
    };
    axes.insert(place, optimizers);
    Ok(axes)
}

/// The program's own flags with the first value of each axis: a model that is swept is one that was asked for.
fn own_of_first<A: Own>(asked: &Asked<A>, axes: &[Axis]) -> Result<A> {
    let mut given = asked.given.clone();
    for axis in axes {
        if let Some(value) = axis.values.first() {
            given.insert(axis.name.clone(), Value::String(value.clone()));
        }
    }
    Ok(Asked::<A>::of(&given, "settings")?.settings.own)
}

/// Values that are lists themselves.
fn lists(text: &str, flag: &str) -> Result<Vec<String>, String> {
    match text.contains(';') {
        true => list_of(text, ';'),
        false => Err(format!(
            "a value of --{flag} is a list: separate several by semicolons, as in --sweep '{flag}=1,2;3,4'"
        )),
    }
}

/// The runs: seed by seed, so that an interrupted comparison has each combination. A single one owns the output
/// folder, several get a folder each below it.
///
/// # Errors
/// For values that the flags do not take, and too many runs.
pub fn cells<E: Experiment>(
    experiment: &E,
    asked: &Asked<E::Args>,
    out: &Path,
) -> Result<Vec<Cell<E::Args>>> {
    let axes = axes::<E>(asked)?;
    let seeds = match asked.has("seed") || asked.has("optimizer") {
        true => asked.settings.training.seed.as_str(),
        false => E::default_seeds(&own_of_first(asked, &axes)?),
    };
    let seeds = list(seeds).map_err(anyhow::Error::msg)?;
    let count = axes
        .iter()
        .try_fold(seeds.len(), |n, axis| n.checked_mul(axis.values.len()));
    let count = match count {
        Some(count) if count <= MOST_RUNS => count,
        _ => bail!("more than {MOST_RUNS} runs: give fewer values"),
    };
    let mut cells = Vec::with_capacity(count);
    for seed in &seeds {
        for combination in combinations(&axes) {
            cells.push(cell(
                experiment,
                asked,
                &axes,
                &combination,
                seed,
                out,
                count,
            )?);
        }
    }
    let mut folders = HashSet::new();
    if let Some(twice) = cells.iter().find(|cell| !folders.insert(&cell.folder)) {
        bail!(
            "{}: two runs would have the folder {}; give each value once",
            twice.label(),
            twice.folder.display()
        );
    }
    // 0.001 is 1e-3, too.
    let mut settings = HashMap::new();
    for cell in &cells {
        let own = toml::to_string(&layers::table(&cell.settings)?)?;
        if let Some(before) = settings.insert(own, cell) {
            bail!(
                "{} and {} would be the same run; give each value once",
                before.label(),
                cell.label()
            );
        }
    }
    Ok(cells)
}

/// Every choice of one value of each axis, the last axis fastest.
fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        let longer = |front: &Vec<String>| {
            let front = front.clone();
            let values = axis.values.iter().cloned();
            values
                .map(move |value| [front.clone(), vec![value]].concat())
                .collect::<Vec<_>>()
        };
        all.iter().flat_map(longer).collect()
    })
}

fn cell<E: Experiment>(
    experiment: &E,
    asked: &Asked<E::Args>,
    axes: &[Axis],
    values: &[String],
    seed: &str,
    out: &Path,
    count: usize,
) -> Result<Cell<E::Args>> {
    let mut own = Table::new();
    for (axis, value) in axes.iter().zip(values) {
        own.insert(axis.name.clone(), Value::String(value.clone()));
    }
    own.insert("seed".into(), Value::String(seed.into()));
    let mut given = asked.given.clone();
    given.extend(own);
    let mut asked = Asked::<E::Args>::of(&given, "settings")?;
    optimizers::own_defaults(&mut asked.settings.optimizer);
    let defaults = experiment.defaults(&asked)?;
    let mut settings = asked.resolved(&defaults)?;
    settings.training.schedule =
        with_own_steps(&settings.training.schedule, &defaults.training.schedule)?;
    let pairs = axes.iter().zip(values);
    let is_place = |axis: &Axis| axis.values.len() > 1;
    let place = pairs.clone().filter(|(axis, _)| is_place(axis));
    let place = place.map(|(axis, value)| (axis.name.clone(), value.clone()));
    let folder = match count {
        1 => out.to_path_buf(),
        _ => out.join(folder_name(pairs, seed)),
    };
    Ok(Cell {
        seed: seed.parse().with_context(|| format!("--seed {seed}"))?,
        settings,
        place: place.collect(),
        folder,
        alone: count == 1,
    })
}

/// `sst2-adahessian-lr0.1-seed0`.
fn folder_name<'a>(pairs: impl Iterator<Item = (&'a Axis, &'a String)>, seed: &str) -> String {
    let safe = |c: char| match c.is_alphanumeric() || "._-+".contains(c) {
        true => c,
        false => '_',
    };
    let parts = pairs.map(|(axis, value)| match axis.name.as_str() {
        "optimizer" | "task" | "model" => value.clone(),
        name => format!("{name}{value}"),
    });
    let name = parts.collect::<Vec<_>>().join("-");
    let name: String = name.chars().map(safe).collect();
    format!("{name}-seed{seed}")
}

/// A bare `step`, alone or after a warm-up, means the program's own steps, if it has some.
fn with_own_steps(asked: &str, own: &str) -> Result<String> {
    match asked.strip_suffix("step") {
        Some(before) if before.is_empty() || before.ends_with('+') => {
            match own.starts_with("step:") {
                true => Ok(format!("{before}{own}")),
                false => bail!(
                    "--schedule {asked}: this program has no steps of its own; say where they are, as in step:0.1:0.5:0.75"
                ),
            }
        }
        _ => Ok(asked.into()),
    }
}
