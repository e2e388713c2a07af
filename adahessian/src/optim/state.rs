//! The state of an optimizer, to and from safetensors.

use crate::error::{Error, Result};
use crate::files::save_tensors;
use crate::numeric::is_half;
use crate::vars::NamedVars;
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Tensors and short texts by name. Numbers are kept as texts that read back to the same bits.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Counters and the like.
    pub meta: BTreeMap<String, String>,
    /// Running averages and the like.
    pub tensors: BTreeMap<String, Tensor>,
}

impl State {
    /// An empty state of this kind of optimizer.
    pub fn of_kind(kind: &str) -> Self {
        let mut state = Self::default();
        state.meta.insert("kind".into(), kind.into());
        state
    }

    /// Checks the kind of optimizer that a state belongs to.
    ///
    /// # Errors
    /// [`Error::State`] if it is another.
    pub fn expect_kind(&self, kind: &str) -> Result<()> {
        match self.meta.get("kind").map(String::as_str) {
            Some(got) if got == kind => Ok(()),
            got => Err(state_error("kind", kind, got.unwrap_or("none"))),
        }
    }

    /// Checks that there are no other tensors than these, which the optimizer has: a further one is of another model, or of a
    /// variable that is frozen now.
    pub(crate) fn expect_tensors(&self, names: &HashSet<String>) -> Result<()> {
        match self.tensors.keys().find(|name| !names.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let expected = format!(
                    "{} tensors, none of this name: is the variable of another model, or frozen since?",
                    names.len()
                );
                let got = format!("{} tensors", self.tensors.len());
                Err(state_error(name, &expected, &got))
            }
        }
    }

    /// The same of the counts, which a variable of a rule without running quantities has alone.
    pub(crate) fn expect_counts(&self, vars: &NamedVars) -> Result<()> {
        let counted = self
            .meta
            .keys()
            .filter_map(|key| key.strip_prefix("count."));
        match counted
            .into_iter()
            .find(|name| vars.position(name).is_err())
        {
            None => Ok(()),
            Some(name) => {
                let expected =
                    "a variable of the optimizer: is it of another model, or frozen since?";
                Err(state_error(name, expected, "a count of it"))
            }
        }
    }

    /// Stores a value under a name.
    pub fn put(&mut self, name: &str, value: impl ToString) {
        self.meta.insert(name.into(), value.to_string());
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::State`] if it is missing or does not parse.
    pub fn value<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.meta.get(name);
        let parsed = text.and_then(|t| t.parse().ok());
        parsed.ok_or_else(|| {
            let got = text.map_or("nothing".into(), |t| format!("`{t}`"));
            state_error(name, std::any::type_name::<T>(), &got)
        })
    }

    /// A copy of a tensor, on the device of the one it belongs to. One in half precision, as earlier
    /// versions saved for variables in half precision, becomes f32 where that is expected: no digit is
    /// lost.
    ///
    /// # Errors
    /// [`Error::State`] if it is missing or has another shape or dtype.
    pub fn tensor_like(&self, name: &str, like: &Tensor) -> Result<Tensor> {
        let expected = format!("{:?} {:?}", like.dtype(), like.dims());
        let Some(tensor) = self.tensors.get(name) else {
            return Err(state_error(name, &expected, "nothing"));
        };
        let widens = is_half(tensor.dtype()) && like.dtype() == DType::F32;
        if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() && !widens {
            let got = format!("{:?} {:?}", tensor.dtype(), tensor.dims());
            return Err(state_error(name, &expected, &got));
        }
        if widens {
            return Ok(tensor.to_dtype(DType::F32)?.to_device(like.device())?);
        }
        Ok(match tensor.device().same_device(like.device()) {
            true => tensor.copy()?,
            false => tensor.to_device(like.device())?,
        })
    }

    /// Adds another state, every name preceded by `prefix`.
    pub fn merge(&mut self, prefix: &str, other: &State) {
        for (name, value) in &other.meta {
            self.meta.insert(format!("{prefix}{name}"), value.clone());
        }
        for (name, tensor) in &other.tensors {
            self.tensors
                .insert(format!("{prefix}{name}"), tensor.clone());
        }
    }

    /// What [`State::merge`] added under this prefix.
    pub fn part(&self, prefix: &str) -> State {
        let cut = |name: &String| name.strip_prefix(prefix).map(str::to_owned);
        let meta = self
            .meta
            .iter()
            .filter_map(|(n, v)| Some((cut(n)?, v.clone())));
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(n, t)| Some((cut(n)?, t.clone())));
        State {
            meta: meta.collect(),
            tensors: tensors.collect(),
        }
    }

    /// Writes a safetensors file with the texts as its metadata.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let meta: HashMap<String, String> = self.meta.clone().into_iter().collect();
        let tensors = self.tensors.iter().map(|(n, t)| (n.as_str(), t));
        save_tensors(tensors, Some(meta), path)
    }

    /// Reads a file that [`State::save`] wrote, onto the CPU.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing, cut short or not a safetensors file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| file_error(path, e))?;
        Self::from_bytes(&bytes).map_err(|e| file_error(path, e))
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes)?;
        let meta = header.metadata().clone().unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        Ok(Self {
            meta: meta.into_iter().collect(),
            tensors: tensors.into_iter().collect(),
        })
    }
}

fn file_error(path: &Path, error: impl ToString) -> Error {
    Error::File {
        path: path.into(),
        what: error.to_string(),
    }
}

pub(crate) fn state_error(what: &str, expected: &str, got: &str) -> Error {
    Error::State {
        what: what.into(),
        expected: expected.into(),
        got: got.into(),
    }
}
