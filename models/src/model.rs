//! What every model is.

use crate::config;
use crate::error::{Error, Result};
use crate::weights::{FILE, Variables};
use adahessian::{Block, Blocks, Kind, NamedVars, save_tensors};
use candle_core::{DType, Tensor};
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
        save(self.saved_vars(), None, folder)?;
        config::write(folder, &self.config())
    }

    /// [`Model::save`] with floating point numbers of this type: `DType::F16` takes half of the room of f32, and is
    /// read by everything that reads the other; a number keeps 11 bits, fewer below 6.1e-5, and there is none beyond 65,504.
    ///
    /// # Errors
    /// As there; [`Error::Input`] for a type that is none of floating point numbers, and for a number that is finite and
    /// would not be: then nothing is written.
    fn save_as(&self, folder: &Path, dtype: DType) -> Result<()> {
        // Others, of 8 bits and fewer, are read by nobody.
        if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            return Err(Error::Input {
                what: "type to save in",
                expected: "F16, BF16, F32 or F64".into(),
                got: format!("{dtype:?}"),
            });
        }
        save(self.saved_vars(), Some(dtype), folder)?;
        config::write(folder, &self.config())
    }
}

fn save(vars: NamedVars, dtype: Option<DType>, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join(FILE);
    let tensors = vars.iter().map(|(name, var)| {
        let value = var.as_detached_tensor();
        match dtype {
            Some(dtype) if value.dtype().is_float() => {
                Ok((name, rounded("type to save in", name, &value, dtype)?))
            }
            _ => Ok((name, value)),
        }
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    save_tensors(tensors.collect::<Result<Vec<_>>>()?, Some(metadata), &path)
        .map_err(|e| Error::file(&path, e))
}

/// A tensor in another type, unless a number would become infinite; `what` it is wanted for.
pub(crate) fn rounded(
    what: &'static str,
    name: &str,
    value: &Tensor,
    dtype: DType,
) -> Result<Tensor> {
    let rounded = value.to_dtype(dtype)?;
    if value.dtype() == dtype || value.dtype().size_in_bytes() < dtype.size_in_bytes() {
        return Ok(rounded); // which has room for all
    }
    // 0 · x is 0 for a finite number, and no number for the others.
    let finite = |x: &Tensor| -> Result<f64> {
        let difference = (x.to_dtype(DType::F64)? * 0.0)?;
        Ok(difference
            .eq(&difference.zeros_like()?)?
            .to_dtype(DType::F64)?
            .sum_all()?
            .to_scalar()?)
    };
    match finite(value)? - finite(&rounded)? {
        0.0 => Ok(rounded),
        lost => Err(Error::Input {
            what,
            expected: format!("one with room for all numbers of `{name}`: f32"),
            got: format!("{dtype:?}, in which {lost} of them would be infinite"),
        }),
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
