//! Variables from a seed or from a checkpoint of the Hugging Face Hub, and back.

use crate::error::{Error, Result};
use adahessian::random::Stream;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What the names of the last layers' variables start with, which a new task replaces.
const HEADS: [&str; 2] = ["classifier.", "fc."];

/// How a variable starts where no checkpoint gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    /// Normal with mean 0 and the configuration's `initializer_range`.
    Normal,
    /// Normal with mean 0 and a standard deviation of its own.
    Deviation(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    Zeros,
    Ones,
}

/// A variable that a model needs.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    fill: Fill,
    aliases: Vec<String>,
    optional: bool,
}

impl Parameter {
    pub fn new(name: String, shape: &[usize], fill: Fill) -> Self {
        Self {
            name,
            shape: shape.into(),
            fill,
            aliases: Vec::new(),
            optional: false,
        }
    }

    /// Another name that it may have in a checkpoint.
    pub fn also_called(mut self, name: String) -> Self {
        self.aliases.push(name);
        self
    }

    /// A checkpoint may lack it: it is initialised then.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The names to look for: its own, its aliases, and all of them without the encoder's prefix,
    /// as in checkpoints of a bare encoder.
    fn candidates(&self, prefix: &str) -> Vec<String> {
        let full = std::iter::once(&self.name).chain(&self.aliases).cloned();
        let mut all: Vec<String> = full.collect();
        let prefix = format!("{prefix}.");
        let bare = all
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix).map(String::from));
        let bare: Vec<String> = bare.collect();
        all.extend(bare);
        all
    }
}

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

/// How variables are made that no checkpoint gives, and as what.
#[derive(Clone, Debug)]
pub struct Start {
    /// The seed of random values; each variable's are a function of it and the variable's name.
    pub seed: u64,
    /// The dtype of all variables; values of another one are converted.
    pub dtype: DType,
    /// The device they live on.
    pub device: Device,
    /// Whether to start with a fresh classifier although the checkpoint holds one: to go on from a
    /// model that was fine-tuned for another task.
    pub new_head: bool,
}

/// Seed 0, f32, CPU.
impl Default for Start {
    fn default() -> Self {
        Self {
            seed: 0,
            dtype: DType::F32,
            device: Device::Cpu,
            new_head: false,
        }
    }
}

impl Start {
    fn value(&self, parameter: &Parameter, deviation: f64) -> Result<Tensor> {
        let shape = parameter.shape.as_slice();
        Ok(match parameter.fill {
            Fill::Zeros => Tensor::zeros(shape, self.dtype, &self.device)?,
            Fill::Ones => Tensor::ones(shape, self.dtype, &self.device)?,
            Fill::Normal => self.normal(parameter, deviation)?,
            Fill::Deviation(own) => self.normal(parameter, own)?,
            Fill::Uniform(bound) => {
                let stream = Stream::new(self.seed, &format!("weight/{}", parameter.name), 0, 0);
                let numbers = stream.uniform(shape.iter().product());
                let scaled: Vec<f64> = numbers.iter().map(|u| bound * (2.0 * u - 1.0)).collect();
                let value = Tensor::from_vec(scaled, shape, &Device::Cpu)?;
                value.to_dtype(self.dtype)?.to_device(&self.device)?
            }
        })
    }

    fn normal(&self, parameter: &Parameter, deviation: f64) -> Result<Tensor> {
        let stream = Stream::new(self.seed, &format!("weight/{}", parameter.name), 0, 0);
        let shape = parameter.shape.as_slice();
        Ok((stream.normal_tensor(shape, self.dtype, &self.device)? * deviation)?)
    }
}

/// All variables from the seed.
pub(crate) fn initialise(
    parameters: &[Parameter],
    deviation: f64,
    start: &Start,
) -> Result<VarMap> {
    let map = VarMap::new();
    for parameter in parameters {
        insert(&map, &parameter.name, &start.value(parameter, deviation)?)?;
    }
    Ok(map)
}

fn insert(map: &VarMap, name: &str, value: &Tensor) -> Result<()> {
    let var = Var::from_tensor(value)?;
    let mut data = map.data().lock().unwrap_or_else(|e| e.into_inner());
    data.insert(name.to_string(), var);
    Ok(())
}

/// All variables from a folder's `model.safetensors`, the shards that its index names, or a
/// safetensors file.
///
/// `ignored` are tensors that the model has under another name (tied weights).
pub(crate) fn load(
    folder: &Path,
    parameters: &[Parameter],
    prefix: &str,
    ignored: &[&str],
    deviation: f64,
    start: &Start,
) -> Result<(VarMap, LoadReport)> {
    let files = files(folder)?;
    let mut missing: BTreeMap<&str, &Parameter> =
        parameters.iter().map(|p| (p.name.as_str(), p)).collect();
    let (map, mut report, mut names) = (VarMap::new(), LoadReport::default(), BTreeSet::new());
    for file in &files {
        let bytes = std::fs::read(file).map_err(|e| Error::file(file, e))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::file(file, format!("not a safetensors file, or cut off: {e}")))?;
        let mut used = BTreeSet::new();
        let is_head = |p: &Parameter| HEADS.iter().any(|head| p.name.starts_with(head));
        let wanted = |p: &&Parameter| !(start.new_head && is_head(p));
        for parameter in parameters.iter().filter(wanted) {
            let mut tried = parameter.candidates(prefix).into_iter();
            let Some((name, view)) = tried.find_map(|n| tensors.tensor(&n).ok().map(|t| (n, t)))
            else {
                continue;
            };
            let value = convert(&name, &view, parameter, file, start)?;
            insert(&map, &parameter.name, &value)?;
            missing.remove(parameter.name.as_str());
            report.loaded.push(parameter.name.clone());
            used.insert(name);
        }
        let spare = tensors
            .iter()
            .filter(|(n, t)| !used.contains(*n) && !is_integer(t.dtype()));
        report.unused.extend(
            spare
                .map(|(n, _)| n.to_string())
                .filter(|n| !ignored.contains(&n.as_str())),
        );
        names.extend(tensors.names().into_iter().map(String::from));
    }
    for parameter in missing.into_values() {
        if !parameter.optional {
            return Err(Error::MissingTensor {
                name: parameter.name.clone(),
                file: files.first().cloned().unwrap_or_else(|| folder.into()),
                tried: parameter.candidates(prefix),
                count: names.len(),
            });
        }
        insert(&map, &parameter.name, &start.value(parameter, deviation)?)?;
        report.initialised.push(parameter.name.clone());
    }
    report.loaded.sort();
    report.unused.sort();
    Ok((map, report))
}

/// Buffers such as `position_ids`, which nobody trains.
fn is_integer(dtype: Dtype) -> bool {
    use Dtype::*;
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}

fn convert(
    name: &str,
    view: &TensorView,
    parameter: &Parameter,
    file: &Path,
    start: &Start,
) -> Result<Tensor> {
    let dtype = match view.dtype() {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => {
            return Err(Error::TensorType {
                name: name.into(),
                file: file.into(),
                got: format!("{other:?}"),
            });
        }
    };
    if view.shape() != parameter.shape {
        return Err(Error::TensorShape {
            name: name.into(),
            file: file.into(),
            expected: parameter.shape.clone(),
            got: view.shape().into(),
        });
    }
    let value = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    Ok(value.to_dtype(start.dtype)?.to_device(&start.device)?)
}

/// The checkpoint's files in the order of their names; a file is a checkpoint by itself.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_file() {
        return Ok(vec![folder.into()]);
    }
    let (single, index) = (folder.join(FILE), folder.join(INDEX));
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        return Err(Error::file(
            folder,
            format!(
                "neither {FILE} nor {INDEX} is here; other formats must be converted to safetensors"
            ),
        ));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::file(&index, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::file(&index, e))?;
    let Some(shards) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::file(&index, "no object `weight_map` in it"));
    };
    let mut names = BTreeSet::new();
    for (tensor, shard) in shards {
        match shard.as_str().map(Path::new) {
            // A shard lies beside its index, wherever the index came from.
            Some(shard) if shard.file_name() == Some(shard.as_os_str()) => {
                names.insert(folder.join(shard))
            }
            _ => {
                let what = format!(
                    "tensor `{tensor}`: expected the name of a file in the same folder, got {shard}"
                );
                return Err(Error::file(&index, what));
            }
        };
    }
    Ok(names.into_iter().collect())
}

/// Writes `model.safetensors` with the metadata that transformers asks for.
pub(crate) fn save(map: &VarMap, folder: &Path) -> Result<()> {
    let path = folder.join(FILE);
    let vars = adahessian::NamedVars::from(map);
    let tensors: Vec<_> = vars
        .iter()
        .map(|(name, var)| (name.to_string(), var.as_detached_tensor()))
        .collect();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(tensors, Some(metadata), &path)
        .map_err(|e| Error::file(&path, e))
}
