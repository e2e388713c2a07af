//! `pytorch_model.bin`: what models on the Hub have that were saved before there was safetensors.
//!
//! It is a zip archive of a pickle, with names, shapes and places, and a file of numbers for each storage. candle's reader
//! of pickles knows the few objects that tensors take, and runs no code. Every size is checked before it is asked for.

use super::pickle;
use crate::error::{Error, Result};
use candle_core::pickle::{TensorInfo, read_pth_tensor_info};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// The name of the file inside a folder.
pub(super) const FILE: &str = "pytorch_model.bin";
/// What a file begins with that PyTorch wrote before it wrote archives: a pickle of one large number.
const BEFORE_1_6: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];
/// The longest pickle: a tensor takes two hundred bytes of it.
const LONGEST: u64 = 16 << 20;

/// An open file, of which the tensors' descriptions are in memory.
pub(super) struct TorchFile {
    pub path: PathBuf,
    infos: BTreeMap<String, TensorInfo>,
}

impl TorchFile {
    pub fn open(path: PathBuf) -> Result<Self> {
        let not = |what: String| {
            let what = format!(
                "not a file of PyTorch's weights, or cut off: {what}; saved again as safetensors it can be read"
            );
            Error::file(&path, what)
        };
        if begins_with(&path, &BEFORE_1_6).map_err(|e| Error::file(&path, e))? {
            let what = "in PyTorch's format from before its version 1.6: load it there, and save it again, best as safetensors";
            return Err(Error::file(&path, what));
        }
        let mut archive = archive(&path).map_err(not)?;
        let length = std::fs::metadata(&path)
            .map_err(|e| Error::file(&path, e))?
            .len();
        for index in 0..archive.len() {
            let mut entry = archive
                .by_index_raw(index)
                .map_err(|e| not(e.to_string()))?;
            let name = entry
                .name()
                .map_or_else(|_| "?".into(), |name| name.into_owned());
            // PyTorch packs nothing. What is packed may be any size unpacked.
            if entry.compression() != CompressionMethod::Stored || entry.size() > length {
                return Err(not(format!("`{name}` is packed")));
            }
            if name.ends_with(".pkl") && entry.size() > LONGEST {
                return Err(not(format!("a pickle of {} bytes", entry.size())));
            }
            if name.ends_with(".pkl") {
                let mut bytes = Vec::new();
                entry
                    .read_to_end(&mut bytes)
                    .map_err(|e| not(e.to_string()))?;
                pickle::check(&bytes).map_err(not)?;
            }
        }
        let read = catch_unwind(AssertUnwindSafe(|| {
            read_pth_tensor_info(&path, false, None)
        }));
        let infos = match read {
            Ok(infos) => infos.map_err(|e| not(e.to_string()))?,
            Err(_) => return Err(not("a damaged pickle".into())),
        };
        if infos.is_empty() {
            return Err(not("no tensors by name".into()));
        }
        let by_name = |info: TensorInfo| (info.name.clone(), info);
        Ok(Self {
            infos: infos.into_iter().map(by_name).collect(),
            path,
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.infos.keys()
    }

    /// The shape and the type of a tensor.
    pub fn describe(&self, name: &str) -> Option<(Vec<usize>, DType)> {
        let info = self.infos.get(name)?;
        Some((info.layout.dims().to_vec(), info.dtype))
    }

    /// The tensor's numbers as they are in the file, on the CPU.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let failed = |what: String| Error::file(&self.path, format!("tensor `{name}`: {what}"));
        let info = self
            .infos
            .get(name)
            .ok_or_else(|| failed("not there".into()))?;
        let by_rows = info.layout.is_contiguous();
        // By columns lie matrices that were converted from TensorFlow: there they are the transposed ones.
        if !by_rows && !info.layout.is_fortran_contiguous() {
            return Err(failed(
                "a view of another; save the model again as safetensors".into(),
            ));
        }
        // Of a part of a storage candle's reader gives the start in bytes, and not, as elsewhere, in numbers.
        let start = info.layout.start_offset() as u64;
        let count = info.layout.shape().elem_count();
        let length = count.checked_mul(info.dtype.size_in_bytes());
        let mut archive = archive(&self.path).map_err(failed)?;
        let entry = archive
            .by_name(&info.path)
            .map_err(|e| failed(e.to_string()))?;
        let Some(length) = length.map(|length| length as u64) else {
            return Err(failed("a size beyond any".into()));
        };
        let there = entry.size();
        if start.checked_add(length).is_none_or(|end| end > there) {
            return Err(failed(format!(
                "{length} bytes from {start} on, of {there}"
            )));
        }
        let mut data = Vec::with_capacity(length as usize);
        let skipped = std::io::copy(&mut entry.take(start + length), &mut Skip(start, &mut data));
        skipped.map_err(|e| failed(e.to_string()))?;
        let dims = info.layout.dims();
        let read = |dims: &[usize]| Tensor::from_raw_buffer(&data, info.dtype, dims, &Device::Cpu);
        if by_rows {
            return Ok(read(dims)?);
        }
        let reversed: Vec<usize> = dims.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..dims.len()).rev().collect();
        Ok(read(&reversed)?.permute(axes)?.contiguous()?)
    }
}

/// Leaves out the first so many bytes.
struct Skip<'a>(u64, &'a mut Vec<u8>);

impl std::io::Write for Skip<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let skipped = self.0.min(bytes.len() as u64) as usize;
        self.0 -= skipped as u64;
        self.1.extend_from_slice(&bytes[skipped..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn archive(path: &PathBuf) -> std::result::Result<ZipArchive<BufReader<File>>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())
}

fn begins_with(path: &Path, bytes: &[u8; 4]) -> std::io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(first == bytes)
}
