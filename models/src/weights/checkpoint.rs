//! The files of a checkpoint: their headers first, a tensor when it is asked for.

use super::torch::{self, TorchFile};
use crate::config::read_json;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The name of the file inside a folder.
pub(crate) const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The longest header that the format allows, and the longest index.
const LONGEST: u64 = 100_000_000;
/// Tensors that Hub checkpoints hold twice: a masked language model's decoder is the word embedding.
const TIED: [&str; 5] = [
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "vocab_projector.weight",
];

/// An open checkpoint.
pub(super) struct Checkpoint {
    files: Vec<Shard>,
    /// The file of each tensor.
    places: BTreeMap<String, usize>,
}

enum Shard {
    Safe(SafeFile),
    Torch(TorchFile),
}

/// A file of safetensors.
struct SafeFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
    header: Metadata,
}

/// What a file says of a tensor.
struct Described {
    shape: Vec<usize>,
    /// As a message shows it.
    kind: String,
    /// Whether it is of floating point numbers that candle has, or of whole ones.
    is_float: bool,
    is_integer: bool,
}

impl Checkpoint {
    /// Opens a folder's `model.safetensors`, the shards that its index names, or its `pytorch_model.bin`; or a file.
    pub fn open(path: &Path) -> Result<Self> {
        let files: Vec<Shard> = files(path)?
            .into_iter()
            .map(Shard::open)
            .collect::<Result<_>>()?;
        let mut places = BTreeMap::new();
        for (index, shard) in files.iter().enumerate() {
            places.extend(shard.names().into_iter().map(|n| (n, index)));
        }
        Ok(Self { files, places })
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The file to name where a tensor is missing.
    pub fn path(&self) -> PathBuf {
        let first = self.files.first();
        first.map_or_else(PathBuf::new, |shard| shard.path().to_path_buf())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn find(&self, name: &str) -> Option<(&Shard, Described)> {
        let shard = self.files.get(*self.places.get(name)?)?;
        Some((shard, shard.describe(name)?))
    }

    /// Whether the tensor is of floating point numbers and has this shape; by its header alone.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Some((shard, tensor)) = self.find(name) else {
            return Ok(()); // whoever asks has seen that it is there
        };
        if !tensor.is_float {
            return Err(Error::TensorType {
                name: name.into(),
                file: shard.path().into(),
                got: tensor.kind,
            });
        }
        if tensor.shape != shape {
            return Err(Error::TensorShape {
                name: name.into(),
                file: shard.path().into(),
                expected: shape.into(),
                got: tensor.shape,
            });
        }
        Ok(())
    }

    /// The tensor's numbers as they are in the file, on the CPU.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        match self.find(name) {
            Some((Shard::Safe(file), tensor)) if tensor.is_float => file.read(name),
            Some((Shard::Torch(file), tensor)) if tensor.is_float => file.read(name),
            _ => Err(Error::file(self.path(), format!("no tensor `{name}`"))),
        }
    }

    /// The tensors that nobody used, without integers (buffers such as `position_ids`, which nobody
    /// trains) and without copies of tied weights.
    pub fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        let is_spare = |name: &&String| {
            let integer = self.find(name).is_some_and(|(_, tensor)| tensor.is_integer);
            !used.contains(*name) && !integer && !TIED.contains(&name.as_str())
        };
        self.places.keys().filter(is_spare).cloned().collect()
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self> {
        match path.extension().is_some_and(|ending| ending == "bin") {
            true => Ok(Self::Torch(TorchFile::open(path)?)),
            false => Ok(Self::Safe(SafeFile::open(path)?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Safe(file) => &file.path,
            Self::Torch(file) => &file.path,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Safe(file) => file.header.offset_keys(),
            Self::Torch(file) => file.names().cloned().collect(),
        }
    }

    fn describe(&self, name: &str) -> Option<Described> {
        match self {
            Self::Safe(file) => {
                let info = file.header.info(name)?;
                Some(Described {
                    shape: info.shape.clone(),
                    kind: format!("{:?}", info.dtype),
                    is_float: dtype(info).is_some(),
                    is_integer: is_integer(info.dtype),
                })
            }
            Self::Torch(file) => {
                let (shape, dtype) = file.describe(name)?;
                Some(Described {
                    shape,
                    kind: format!("{dtype:?}"),
                    is_float: dtype.is_float(),
                    is_integer: dtype.is_int(),
                })
            }
        }
    }
}

impl SafeFile {
    /// The tensor's numbers as they are in the file, on the CPU.
    fn read(&self, name: &str) -> Result<Tensor> {
        let info = self.header.info(name).and_then(|i| Some((i, dtype(i)?)));
        let Some((info, dtype)) = info else {
            return Err(Error::file(&self.path, format!("no tensor `{name}`")));
        };
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::file(&self.path, format!("tensor `{name}`: {e}")))?;
        Ok(Tensor::from_raw_buffer(
            &bytes,
            dtype,
            &info.shape,
            &Device::Cpu,
        )?)
    }

    /// Reads the header, whose length and ranges must fit the file's.
    fn open(path: PathBuf) -> Result<Self> {
        let not = |what: String| {
            let what = format!("not a safetensors file, or cut off: {what}");
            Error::file(&path, what)
        };
        let mut file = File::open(&path).map_err(|e| Error::file(&path, e))?;
        let length = file.metadata().map_err(|e| Error::file(&path, e))?.len();
        let mut first = [0; 8];
        file.read_exact(&mut first)
            .map_err(|_| not(format!("{length} bytes")))?;
        let header = u64::from_le_bytes(first);
        if header > LONGEST || header > length.saturating_sub(8) {
            return Err(not(format!("a header of {header} bytes in {length}")));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes)
            .map_err(|e| Error::file(&path, e))?;
        // Which checks shapes against ranges, and that the ranges follow each other.
        let header: Metadata = serde_json::from_slice(&bytes).map_err(|e| not(e.to_string()))?;
        let (start, data) = (8 + bytes.len() as u64, header.data_len() as u64);
        if start + data != length {
            return Err(not(format!("{data} bytes of tensors in {length}")));
        }
        Ok(Self {
            path,
            file,
            start,
            header,
        })
    }
}

fn is_integer(dtype: Dtype) -> bool {
    use Dtype::*;
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}

fn dtype(info: &TensorInfo) -> Option<DType> {
    match info.dtype {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
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
    let old = folder.join(torch::FILE);
    if !index.is_file() && old.is_file() {
        return Ok(vec![old]);
    }
    if !index.is_file() {
        let what = format!(
            "neither {FILE} nor {INDEX} nor {} is here; other formats must be converted to safetensors",
            torch::FILE
        );
        return Err(Error::file(folder, what));
    }
    let value = read_json(&index, LONGEST)?;
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
