//! What several runs need, loaded once.

use crate::experiment::Experiment;
use crate::grid::Cell;
use anyhow::Result;
use std::path::Path;

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
        let data = match self.loaded.take() {
            Some((of, data)) if of == key => data,
            // The old ones are gone before the new ones come.
            _ => experiment.load(settings, out)?,
        };
        let (_, data) = self.loaded.insert((key, data));
        Ok(data)
    }
}
