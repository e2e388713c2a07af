//! What several runs need, loaded once.

use crate::experiment::Experiment;
use crate::grid::Cell;
use crate::layers::Own;
use anyhow::Result;
use std::collections::HashSet;
use std::path::Path;

/// Own flags that name what may not be there. Runs that differ in others alone find what the first one finds.
const SOURCES: [&str; 10] = [
    "data",
    "task",
    "model",
    "weights",
    "subwords",
    "source",
    "target",
    "hub",
    "synthetic",
    "planted",
];

/// One run of each source, by its first.
pub(super) fn one_of_each_source<'a, A: Own>(
    cells: impl Iterator<Item = &'a Cell<A>>,
) -> Result<Vec<&'a Cell<A>>> {
    let (mut seen, mut first) = (HashSet::new(), Vec::new());
    for cell in cells {
        let mut own = toml::Table::try_from(&cell.settings.own)?;
        own.retain(|name, _| SOURCES.contains(&name));
        if seen.insert(own.to_string()) {
            first.push(cell);
        }
    }
    Ok(first)
}

/// The data of the runs, loaded once for those with the same own flags.
pub(super) struct Shared<E: Experiment> {
    loaded: Option<(String, E::Data)>,
}

impl<E: Experiment> Default for Shared<E> {
    fn default() -> Self {
        Self { loaded: None }
    }
}

impl<E: Experiment> Shared<E> {
    pub(super) fn load(
        &mut self,
        experiment: &E,
        cell: &Cell<E::Args>,
        out: &Path,
    ) -> Result<&E::Data> {
        let settings = &cell.settings;
        let training = &settings.training;
        let limits = (training.limit, training.limit_eval);
        let key = format!("{}{limits:?}", toml::to_string(&settings.own)?);
        // The old ones are gone before the new ones come.
        let kept = self.loaded.take().filter(|(of, _)| *of == key);
        let data = match kept {
            Some((_, data)) => data,
            None => experiment.load(settings, out)?,
        };
        let (_, data) = self.loaded.insert((key, data));
        Ok(data)
    }
}
