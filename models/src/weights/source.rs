//! Where a builder's variables come from: a checkpoint where there is one, the seed where it has none.

use super::checkpoint::Checkpoint;
use super::marks::{self, Marks};
use super::{LoadReport, Start};
use crate::error::{Error, Result};
use crate::model::rounded;
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarMap};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// The most parameters of a model: 2³³, 34 GB in f32.
const MOST: usize = 1 << 33;

pub(super) struct Source {
    checkpoint: Option<Arc<Checkpoint>>,
    /// What a bare encoder's checkpoint leaves out of its names.
    prefix: String,
    start: Start,
    /// Whether this is a rehearsal, which checks everything and allocates nothing.
    plan: bool,
    map: VarMap,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    parameters: usize,
    loaded: Vec<String>,
    initialised: Vec<String>,
    /// Names in the checkpoint.
    used: BTreeSet<String>,
    /// What went wrong first: on its way through candle it becomes a text.
    error: Option<Error>,
}

impl Source {
    pub fn new(
        checkpoint: Option<Arc<Checkpoint>>,
        prefix: &str,
        start: &Start,
        plan: bool,
    ) -> Self {
        Self {
            checkpoint,
            prefix: format!("{prefix}."),
            start: start.clone(),
            plan,
            map: VarMap::new(),
            progress: Mutex::default(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// An outcome with this source's own error in the place of candle's text of it.
    pub fn explain<M>(&self, outcome: Result<M>) -> Result<M> {
        outcome.map_err(|error| self.progress().error.take().unwrap_or(error))
    }

    /// All variables, and what is to be said of them.
    pub fn finish(&self) -> (VarMap, LoadReport) {
        let mut progress = self.progress();
        let mut report = LoadReport {
            loaded: std::mem::take(&mut progress.loaded),
            initialised: std::mem::take(&mut progress.initialised),
            unused: Vec::new(),
        };
        if let Some(checkpoint) = &self.checkpoint {
            report.unused = checkpoint.unused(&progress.used);
        }
        report.loaded.sort();
        report.initialised.sort();
        (self.map.clone(), report)
    }

    /// The names to look for: its own, its aliases, and all of them without the encoder's prefix, as in
    /// checkpoints of a bare encoder.
    fn candidates(&self, name: &str, marks: &Marks) -> Vec<String> {
        let mut all = vec![name.to_string()];
        if let Some((layer, last)) = name.rsplit_once('.') {
            let alias = match (&marks.alias, last) {
                (Some(alias), _) => Some(alias.as_str()),
                // The names in checkpoints that came from TensorFlow.
                (None, "weight") if is_norm(layer) => Some("gamma"),
                (None, "bias") if is_norm(layer) => Some("beta"),
                _ => None,
            };
            all.extend(alias.map(|alias| format!("{layer}.{alias}")));
        }
        let bare = all
            .iter()
            .filter_map(|name| name.strip_prefix(&self.prefix));
        let bare: Vec<String> = bare.map(String::from).collect();
        all.extend(bare);
        all
    }

    /// The name of a variable in the checkpoint; none if the seed makes it.
    fn name_in(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        marks: &Marks,
    ) -> Result<Option<String>> {
        if marks.head && self.start.new_head {
            return Ok(None);
        }
        let tried = self.candidates(name, marks);
        match tried.iter().find(|name| checkpoint.contains(name)) {
            Some(found) => Ok(Some(found.clone())),
            None if marks.optional => Ok(None),
            None => Err(Error::MissingTensor {
                name: name.into(),
                file: checkpoint.path(),
                tried,
                count: checkpoint.len(),
            }),
        }
    }

    fn variable(
        &self,
        name: &str,
        shape: &Shape,
        init: Init,
        (dtype, device): (DType, &Device),
    ) -> Result<Tensor> {
        if let Some(var) = self.known(name, shape)? {
            return Ok(var);
        }
        self.count(shape)?;
        let marks = marks::marks();
        let source = match &self.checkpoint {
            Some(checkpoint) => self
                .name_in(checkpoint, name, &marks)?
                .zip(Some(checkpoint)),
            None => None,
        };
        if let Some((there, checkpoint)) = &source {
            checkpoint.check(there, shape.dims())?;
        }
        if self.plan {
            // One number in every place: a tensor of any shape that takes no memory.
            return Ok(Tensor::zeros((), dtype, device)?.broadcast_as(shape)?);
        }
        let value = match &source {
            Some((there, checkpoint)) => {
                let read = checkpoint.read(there)?;
                rounded("type to load in", name, &read, dtype)?.to_device(device)?
            }
            None => self.start.value(name, shape, init, (dtype, device))?,
        };
        let var = Var::from_tensor(&value)?;
        let mut progress = self.progress();
        match source {
            Some((there, _)) => {
                progress.loaded.push(name.into());
                progress.used.insert(there);
            }
            None => progress.initialised.push(name.into()),
        }
        let mut data = self.map.data().lock().unwrap_or_else(|e| e.into_inner());
        data.insert(name.into(), var.clone());
        Ok(var.as_tensor().clone())
    }

    /// The variable of this name if it is made already: it is shared then.
    fn known(&self, name: &str, shape: &Shape) -> Result<Option<Tensor>> {
        let data = self.map.data().lock().unwrap_or_else(|e| e.into_inner());
        match data.get(name) {
            Some(var) if var.shape() != shape => Err(Error::Input {
                what: "shape of a variable that is used twice",
                expected: format!("{:?} for `{name}`", var.dims()),
                got: format!("{:?}", shape.dims()),
            }),
            Some(var) => Ok(Some(var.as_tensor().clone())),
            None => Ok(None),
        }
    }

    /// Counts the parameters, so that nothing impossible is begun.
    fn count(&self, shape: &Shape) -> Result<()> {
        let sizes = shape.dims().iter();
        let entries = sizes.copied().try_fold(1, usize::checked_mul);
        let mut progress = self.progress();
        let all = entries.and_then(|n| n.checked_add(progress.parameters));
        match all {
            Some(all) if all <= MOST => {
                progress.parameters = all;
                Ok(())
            }
            _ => Err(Error::Config {
                field: "number of parameters",
                expected: format!("at most {MOST} in all variables together"),
                got: match all {
                    Some(all) => format!("at least {all}, with one of shape {:?}", shape.dims()),
                    None => format!("a variable of shape {:?}", shape.dims()),
                },
            }),
        }
    }
}

/// Whether a layer is called a norm.
fn is_norm(layer: &str) -> bool {
    let last = layer.rsplit('.').next().unwrap_or(layer);
    last.to_lowercase().ends_with("norm")
}

/// What a builder holds of it.
pub(super) struct Shared(pub Arc<Source>);

impl SimpleBackend for Shared {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let outcome = self.0.variable(name, &shape, init, (dtype, device));
        outcome.map_err(|error| {
            let text = candle_core::Error::msg(&error);
            self.0.progress().error.get_or_insert(error);
            text
        })
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("variable `{name}`: ask for it with its shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        let there = |checkpoint: &Arc<Checkpoint>| {
            let tried = self.0.candidates(name, &marks::marks());
            tried.iter().any(|name| checkpoint.contains(name))
        };
        self.0.checkpoint.as_ref().is_none_or(there)
    }
}
