//! Kernels that are no steps: squares of all gradients, and products of pairs.

use super::launch::{Work, run};
use super::program;
use crate::error::Result;
use crate::numeric::cuda::{self, address, type_of, written_address};
use candle_core::Tensor;

/// The sum of squares of every tensor; none where kernels do not take them.
pub(crate) fn squares(tensors: &[Tensor]) -> Result<Option<Vec<f64>>> {
    let Some(first) = tensors.first() else {
        return Ok(None);
    };
    let (Some(device), Some(of)) = (cuda::device(first), type_of(first.dtype())) else {
        return Ok(None);
    };
    let alike = |t: &Tensor| t.dtype() == first.dtype() && t.device().same_device(first.device());
    let Some(program) = program::squares().filter(|_| tensors.iter().all(alike)) else {
        return Ok(None);
    };
    let tensors = tensors.iter().map(Tensor::contiguous);
    let tensors = tensors.collect::<candle_core::Result<Vec<_>>>()?;
    let work = tensors.iter().map(|tensor| {
        Ok(Work {
            arrays: vec![address(tensor)?],
            shared: Vec::new(),
            count: tensor.elem_count(),
        })
    });
    let work = work.collect::<Result<Vec<_>>>()?;
    let sums = run(device, &program, of, &work)?;
    for tensor in &tensors {
        address(tensor)?;
    }
    let sums = sums.read(device, tensors.len(), None)?;
    Ok(Some(sums.into_iter().map(|sums| sums[0]).collect()))
}

/// The products of pairs, entry by entry; none where kernels do not make them.
pub(in crate::optim) fn products(pairs: &[(&Tensor, &Tensor)]) -> Result<Option<Vec<Tensor>>> {
    let Some((first, _)) = pairs.first() else {
        return Ok(None);
    };
    let (Some(device), Some(of)) = (cuda::device(first), type_of(first.dtype())) else {
        return Ok(None);
    };
    let alike = |t: &Tensor| t.dtype() == first.dtype() && t.device().same_device(first.device());
    let all_alike = |(a, b): &(&Tensor, &Tensor)| {
        alike(a) && alike(b) && a.dims() == b.dims() && a.elem_count() > 0
    };
    let Some(program) = program::products().filter(|_| pairs.iter().all(all_alike)) else {
        return Ok(None);
    };
    let (mut work, mut read, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for (a, b) in pairs {
        let both = [a.contiguous()?, b.contiguous()?];
        // SAFETY: the kernel writes each of its numbers.
        let product = unsafe { Tensor::empty(a.shape(), a.dtype(), a.device())? };
        let mut arrays = vec![address(&both[0])?, address(&both[1])?];
        arrays.push(written_address(&product)?);
        work.push(Work {
            arrays,
            shared: Vec::new(),
            count: a.elem_count(),
        });
        read.extend(both);
        made.push(product);
    }
    run(device, &program, of, &work)?;
    for tensor in &read {
        address(tensor)?;
    }
    for product in &made {
        written_address(product)?;
    }
    Ok(Some(made))
}
