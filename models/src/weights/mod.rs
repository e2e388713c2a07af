//! Variables from a seed or from a checkpoint of the Hugging Face Hub.
//!
//! A model asks a `VarBuilder` for its variables, each under its name and in its shape; where they come
//! from is the builder's affair. It is asked twice: once for a plan, in which nothing is allocated and every
//! name, shape and size is checked, and then for the variables.
//!
//! ```
//! use adahessian::nn::{self, Module};
//! use candle_core::{DType, Device, Tensor};
//! use models::{Start, weights};
//! let (layer, variables) = weights::draw(&Start::default(), |vb| Ok(nn::linear(3, 2, vb.pp("first"))?))?;
//! assert_eq!(variables.saved().names().collect::<Vec<_>>(), ["first.bias", "first.weight"]);
//! let y = layer.forward(&Tensor::ones((1, 3), DType::F32, &Device::Cpu)?)?; // [1, 2]
//! # assert_eq!(y.dims(), [1, 2]);
//! # Ok::<(), models::Error>(())
//! ```

mod checkpoint;
mod marks;
mod pickle;
mod source;
mod start;
mod torch;

pub(crate) use checkpoint::FILE;
pub use marks::{also_called, head, optional};
pub use start::Start;

use crate::error::Result;
use adahessian::{Kind, Kinds, NamedVars};
use candle_core::{Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use checkpoint::Checkpoint;
use source::{Shared, Source};
use std::path::Path;
use std::sync::Arc;

/// What loading a checkpoint did, for the user to read. Names are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Variables that the checkpoint gave.
    pub loaded: Vec<String>,
    /// Variables that it does not have, initialised from the seed: they must be trained.
    pub initialised: Vec<String>,
    /// Tensors of the checkpoint that this model does not use.
    pub unused: Vec<String>,
}

/// The variables of a model, and what they are to its layers. Cheap to clone.
#[derive(Clone)]
pub struct Variables {
    map: VarMap,
    kinds: Kinds,
}

impl Variables {
    /// Those to train.
    pub fn trained(&self) -> NamedVars {
        let is_trained = |name: &str| self.kinds.get(name) != Some(Kind::Statistic);
        self.saved().partition(is_trained).0
    }

    /// Those to save: running statistics, too.
    pub fn saved(&self) -> NamedVars {
        NamedVars::from(&self.map)
    }

    /// The same as a `VarMap`, for code that wants one.
    pub fn map(&self) -> &VarMap {
        &self.map
    }

    /// What each is to its layer.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }
}

/// A model with random weights, each a function of the seed and the variable's name.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for more parameters than anyone has memory for, before the
/// first is made; what `make` says.
pub fn draw<M>(
    start: &Start,
    make: impl Fn(VarBuilder<'static>) -> Result<M>,
) -> Result<(M, Variables)> {
    let (model, variables, _) = build(None, "", start, make)?;
    Ok((model, variables))
}

/// A model from a folder's `model.safetensors`, the shards that its index names, or a safetensors file.
///
/// A variable `PREFIX.NAME` may be called `NAME` there, as in checkpoints of a bare encoder, and the weight
/// and bias of a norm gamma and beta. What [`optional`] and [`head`] mark may be missing. Names and shapes
/// are compared with the files' headers before anything else is read.
///
/// # Errors
/// [`Error::MissingTensor`](crate::Error::MissingTensor), [`Error::TensorShape`](crate::Error::TensorShape),
/// [`Error::TensorType`](crate::Error::TensorType), [`Error::File`](crate::Error::File); as [`draw`].
pub fn load<M>(
    path: &Path,
    prefix: &str,
    start: &Start,
    make: impl Fn(VarBuilder<'static>) -> Result<M>,
) -> Result<(M, Variables, LoadReport)> {
    build(Some(Checkpoint::open(path)?), prefix, start, make)
}

/// A tensor of a folder's weights, as it is there.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn read(folder: &Path, name: &str) -> Result<Tensor> {
    Checkpoint::open(folder)?.read(name)
}

fn build<M>(
    checkpoint: Option<Checkpoint>,
    prefix: &str,
    start: &Start,
    make: impl Fn(VarBuilder<'static>) -> Result<M>,
) -> Result<(M, Variables, LoadReport)> {
    let checkpoint = checkpoint.map(Arc::new);
    let source = |plan| Arc::new(Source::new(checkpoint.clone(), prefix, start, plan));
    let builder = |source: &Arc<Source>, device: &Device| {
        let backend = Box::new(Shared(Arc::clone(source)));
        VarBuilder::from_backend(backend, start.dtype, device.clone())
    };
    let plan = source(true);
    let (rehearsed, _) = Kinds::record(|| make(builder(&plan, &Device::Cpu)));
    drop(plan.explain(rehearsed)?);
    let source = source(false);
    let (model, kinds) = Kinds::record(|| make(builder(&source, &start.device)));
    let model = source.explain(model)?;
    let (map, report) = source.finish();
    Ok((model, Variables { map, kinds }, report))
}
