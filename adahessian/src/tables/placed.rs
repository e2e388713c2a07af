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

/// Numbers that are sent to a device at a time: a second table would not have room beside a large one.
const AT_ONCE: usize = 1 << 24;

/// Writes numbers as they are stored, of all rows, in the place of those of `numbers` [rows, width].
pub(crate) fn overwrite(numbers: &Tensor, bytes: &[u8]) -> Result<()> {
    overwrite_in(AT_ONCE, numbers, bytes)
}

fn overwrite_in(at_once: usize, numbers: &Tensor, bytes: &[u8]) -> Result<()> {
    let (rows, width) = numbers.dims2()?;
    let portion = (at_once / width).clamp(1, rows);
    let row = width * numbers.dtype().size_in_bytes();
    for (start, bytes) in bytes.chunks(portion * row).enumerate() {
        let shape = [bytes.len() / row, width];
        let part = Tensor::from_raw_buffer(bytes, numbers.dtype(), &shape, numbers.device())?;
        numbers.slice_set(&part, 0, start * portion)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn numbers_are_written_a_portion_at_a_time() -> Result<()> {
        let new: Vec<f32> = (0..21).map(|i| i as f32 - 7.5).collect();
        let bytes: Vec<u8> = new.iter().flat_map(|x| x.to_le_bytes()).collect();
        for at_once in [1, 3, 6, 8, 20, 21, 100] {
            let numbers = Tensor::zeros((7, 3), DType::F32, &Device::Cpu)?;
            overwrite_in(at_once, &numbers, &bytes)?;
            let got = numbers.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(got, new, "{at_once}");
        }
        Ok(())
    }
}
