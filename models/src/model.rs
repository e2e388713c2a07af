//! What every model is.

use crate::config;
use crate::error::{Error, Result};
use crate::weights::{FILE, Variables};
use adahessian::{Block, Blocks, Kind, NamedVars, save_tensors};
use candle_nn::VarMap;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A model: its variables, what their curvature is averaged over, and how it is saved. Each has its own
/// `forward`.
pub trait Model {
    /// Its variables, which it got from [`weights::draw`](crate::weights::draw) or
    /// [`weights::load`](crate::weights::load).
    fn variables(&self) -> &Variables;

    /// Its config.json.
    fn config(&self) -> Value;

    /// The block of a variable that is this to its layer, in the experiments of the AdaHessian paper.
    fn block(&self, kind: Kind) -> Block;

    /// The variables to train, under their names in checkpoints.
    fn vars(&self) -> NamedVars {
        self.variables().trained()
    }

    /// All variables to save: those to train and the running means and variances, which no optimizer
    /// must touch.
    fn saved_vars(&self) -> NamedVars {
        self.variables().saved()
    }

    /// [`Model::saved_vars`] as a `VarMap`, for code that wants one.
    fn var_map(&self) -> &VarMap {
        self.variables().map()
    }

    /// The blocks of all variables.
    fn blocks(&self) -> Blocks {
        Blocks::by_kind(self.variables().kinds(), |kind| self.block(kind))
    }

    /// Writes `model.safetensors` and `config.json` into a folder, with the metadata that transformers asks
    /// for. Each is there whole or as it was before, the weights first.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be written to.
    fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let path = folder.join(FILE);
        let vars = self.saved_vars();
        let tensors = vars.iter().map(|(n, var)| (n, var.as_detached_tensor()));
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        save_tensors(tensors.collect::<Vec<_>>(), Some(metadata), &path)
            .map_err(|e| Error::file(&path, e))?;
        config::write(folder, &self.config())
    }
}

/// The blocks of the paper's language experiments: matrices and tables in runs of 4 entries, the rest
/// single.
pub(crate) fn runs_of_four(kind: Kind) -> Block {
    match kind {
        Kind::Matrix | Kind::Table | Kind::Kernel { .. } => Block::Chunks(4),
        _ => Block::Single,
    }
}
