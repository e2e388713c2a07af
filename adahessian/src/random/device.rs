//! Draws on a CUDA device: the numbers of the CPU, to the last bit, without the way over.

use super::Stream;
use super::ptx::{self, LANES, SIGNS};
use crate::error::Result;
use crate::numeric::cuda::{self, Kernels, type_of, written_address};
use crate::numeric::traced::assembly::{F64, Type};
use candle_core::cuda::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{CudaDevice, DType, Device, Tensor};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Draw {
    Decisions,
    Signs,
}

static KERNELS: Kernels<(Draw, Type)> = Kernels::new("adahessian-random");

/// The device, and the type of numbers, where there is a kernel for so many.
fn place(count: usize, dtype: DType, device: &Device) -> Option<(&CudaDevice, Type)> {
    match device {
        Device::Cuda(device) if (1..1 << 31).contains(&count) => Some((device, type_of(dtype)?)),
        _ => None,
    }
}

fn threads(count: usize) -> LaunchConfig {
    LaunchConfig::for_num_elems(count.div_ceil(LANES) as u32)
}

/// `on` where [`Stream::decisions`] are 1, else 0.
pub(super) fn decisions(
    stream: &Stream,
    shape: &[usize],
    limit: u64,
    on: f64,
    (dtype, device): (DType, &Device),
) -> Result<Option<Tensor>> {
    let count = shape.iter().product();
    let Some((cuda, of)) = place(count, dtype, device) else {
        return Ok(None);
    };
    // SAFETY: the kernel writes each of its numbers.
    let drawn = unsafe { Tensor::empty(shape, dtype, device)? };
    let kernel = KERNELS.kernel(
        (Draw::Decisions, of),
        |_| format!("dropout_decisions_{}", of.name),
        |_| ptx::decisions(of),
    );
    let function = cuda.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
    let (to, all, single) = (written_address(&drawn)?, count as u32, on as f32);
    let mut launch = function.builder();
    launch.arg(&to).arg(&all);
    launch.arg(&stream.key[0]).arg(&stream.key[1]);
    launch.arg(&stream.step).arg(&stream.sample).arg(&limit);
    match of == F64 {
        true => launch.arg(&on),
        false => launch.arg(&single),
    };
    // SAFETY: the parameters are those that the text names, in its order, and there are `count` numbers to write.
    unsafe { launch.launch(threads(count)) }.map_err(cuda::driver)?;
    written_address(&drawn)?;
    Ok(Some(drawn))
}

/// The signs of [`Stream::rademacher`], so many of each stream, in one launch. The streams have one step and sample.
pub(super) fn signs(
    streams: &[(Stream, usize)],
    dtype: DType,
    device: &Device,
) -> Result<Option<Vec<Tensor>>> {
    let blocks: Vec<usize> = streams.iter().map(|(_, n)| n.div_ceil(SIGNS)).collect();
    let count = SIGNS * blocks.iter().sum::<usize>();
    let (Some((cuda, of)), Some((first, _))) = (place(count, dtype, device), streams.first())
    else {
        return Ok(None);
    };
    let time = |stream: &Stream| (stream.step, stream.sample);
    if streams.iter().any(|(other, _)| time(other) != time(first)) {
        return Ok(None);
    }
    let mut starts = Vec::with_capacity(streams.len());
    let mut start = 0;
    for blocks in blocks {
        starts.push(start);
        start += blocks;
    }
    let keys = streams.iter().flat_map(|(stream, _)| stream.key);
    let table: Vec<u32> = starts.iter().map(|&s| s as u32).chain(keys).collect();
    let table = cuda.clone_htod(&table)?;
    // SAFETY: the kernel writes each of its numbers.
    let drawn = unsafe { Tensor::empty(count, dtype, device)? };
    let kernel = KERNELS.kernel(
        (Draw::Signs, of),
        |_| format!("probe_signs_{}", of.name),
        |_| ptx::signs(of),
    );
    let function = cuda.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
    let to = written_address(&drawn)?;
    let sizes = [streams.len() as u32, count as u32];
    let mut launch = function.builder();
    launch.arg(&to).arg(&table).arg(&sizes[0]).arg(&sizes[1]);
    launch.arg(&first.step).arg(&first.sample);
    // SAFETY: the parameters are those that the text names, in its order. The table has a first block and a key for
    // each stream, and there are `count` numbers to write, four to a thread.
    unsafe { launch.launch(threads(count)) }.map_err(cuda::driver)?;
    written_address(&drawn)?;
    let part = |(&start, (_, length)): (&usize, &(Stream, usize))| {
        Ok(drawn.narrow(0, SIGNS * start, *length)?)
    };
    starts
        .iter()
        .zip(streams)
        .map(part)
        .collect::<Result<_>>()
        .map(Some)
}
