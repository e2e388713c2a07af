//! A table's numbers to and from a GPU.

use super::store::{Store, numbers};
use super::table::Precision;
use crate::error::{Error, Result};
use crate::numeric::in_memory;
use candle_core::{Device, Tensor};
use half::bf16;

/// A tensor's numbers as a store, where the tensor is: on the CPU or a CUDA device. There the store is the tensor
/// itself, which nobody else may have: it is written to in place.
pub(crate) fn store_of(numbers: &Tensor, precision: Precision) -> Result<Store> {
    let numbers = numbers.to_dtype(precision.stored())?.contiguous()?;
    if !in_memory(&numbers) {
        return Ok(Store::Device(numbers, precision));
    }
    let flat = numbers.flatten_all()?;
    Ok(match precision {
        Precision::F32 => Store::F32(flat.to_vec1()?),
        Precision::F64 => Store::F64(flat.to_vec1()?),
        Precision::Bf16 => Store::Bf16(flat.to_vec1::<bf16>()?),
    })
}

/// The numbers [rows, width] in the type that they are stored in, as a tensor on this device.
pub(crate) fn stored(store: &Store, shape: [usize; 2], device: &Device) -> Result<Tensor> {
    Ok(match store {
        Store::F32(data) => Tensor::from_slice(data, &shape, device)?,
        Store::F64(data) => Tensor::from_slice(data, &shape, device)?,
        Store::Bf16(data) => Tensor::from_slice(data, &shape, device)?,
        Store::Mapped(map) => Tensor::from_slice(numbers(map), &shape, device)?,
        Store::Device(numbers, _) => match numbers.device().same_device(device) {
            true => numbers.copy()?,
            false => numbers.to_device(device)?,
        },
    })
}

/// Refuses devices whose memory nothing here steps in.
pub(crate) fn check_device(device: &Device) -> Result<()> {
    match device {
        Device::Cpu | Device::Cuda(_) => Ok(()),
        other => Err(Error::Setting {
            what: "device of a sparse table",
            expected: "the CPU or a CUDA device".into(),
            got: format!("{:?}", other.location()),
        }),
    }
}

/// These rows, in the type that is computed with.
pub(crate) fn read(numbers: &Tensor, rows: &[u32], precision: Precision) -> Result<Tensor> {
    let there = Tensor::new(rows, &Device::Cpu)?.to_device(numbers.device())?;
    let read = numbers.index_select(&there, 0)?;
    Ok(read.to_dtype(precision.computed())?)
}
