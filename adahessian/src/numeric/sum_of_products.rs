//! Sums of products of matrices, s Σ A B, on tensors without a graph.
//!
//! On a CUDA device each product is one call of cuBLAS, which adds to what is there: no array for it alone, and no
//! pass to add it. candle's `matmul` has neither a factor nor a sum.

use crate::error::Result;
use candle_core::Tensor;

/// A sum that grows.
pub(crate) struct SumOfProducts {
    scale: f64,
    /// Nobody else has it: it is added to in place.
    sum: Option<Tensor>,
}

impl SumOfProducts {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::scaled(1.0)
    }

    /// Of nothing yet; what is added is multiplied with this number.
    pub fn scaled(scale: f64) -> Self {
        Self { scale, sum: None }
    }

    /// Adds A B, of [.., m, k] and [.., k, n].
    ///
    /// # Errors
    /// candle's, and those of the driver.
    pub fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(sum) = on_device::add(self.scale, self.sum.as_ref(), a, b)? {
            self.sum = Some(sum);
            return Ok(());
        }
        let product = a.matmul(b)?;
        let product = match self.scale == 1.0 {
            true => product,
            false => (product * self.scale)?,
        };
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + product)?,
            None => product,
        });
        Ok(())
    }

    /// The sum of what there was.
    pub fn sum(self) -> Option<Tensor> {
        self.sum
    }
}

/// How a library of products sees a matrix.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Whether its columns lie one after the other instead of its rows.
    by_columns: bool,
    /// From one row (or column) to the next.
    leading: usize,
    /// From one matrix to the next.
    step: usize,
}

/// None where it has to be copied first: neither rows nor columns are without gaps, or the matrices are not at equal
/// distances.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
fn seen(dims: &[usize], strides: &[usize]) -> Option<Seen> {
    let (outer, [rows, columns]) = dims.split_last_chunk::<2>()?;
    let (outer_strides, [down, right]) = strides.split_last_chunk::<2>()?;
    let (mut step, mut count) = (0, 1);
    for (size, stride) in outer.iter().zip(outer_strides).rev() {
        if *size == 1 {
            continue;
        }
        match count {
            1 => step = *stride,
            _ if *stride != step * count => return None,
            _ => {}
        }
        count *= size;
    }
    let without_gaps = |stride, size| stride == 1 || size == 1;
    let apart = |stride, size, count| if count == 1 { size } else { stride };
    let by_rows = apart(*down, *columns, *rows);
    let by_columns = apart(*right, *rows, *columns);
    let leading = match (without_gaps(*right, *columns), without_gaps(*down, *rows)) {
        (true, _) if by_rows >= *columns => (false, by_rows),
        (_, true) if by_columns >= *rows => (true, by_columns),
        _ => return None,
    };
    Some(Seen {
        by_columns: leading.0,
        leading: leading.1.max(1),
        step,
    })
}

#[cfg(feature = "cuda")]
mod on_device {
    use super::{Seen, seen};
    use crate::error::Result;
    use crate::numeric::cuda::{self, address, type_of, written_address};
    use crate::numeric::traced::assembly::F64;
    use candle_core::Tensor;
    use candle_core::cuda::cudarc::cublas::result::gemm_strided_batched_ex;
    use candle_core::cuda::cudarc::cublas::sys::{
        cublasComputeType_t as Compute, cublasGemmAlgo_t as Algorithm, cublasOperation_t as Turn,
        cudaDataType_t as Data,
    };
    use candle_core::cuda::gemm_reduced_precision_f32;
    use std::ffi::c_void;

    /// The tensor and how it is seen; a copy where it cannot be seen as it lies.
    fn laid_out(x: &Tensor) -> Result<Option<(Tensor, Seen)>> {
        if let Some(how) = seen(x.dims(), x.stride()) {
            return Ok(Some((x.clone(), how)));
        }
        let x = x.contiguous()?;
        Ok(seen(x.dims(), x.stride()).map(|how| (x, how)))
    }

    /// s A B, and what there was; none where candle's operations have to do it.
    pub fn add(scale: f64, sum: Option<&Tensor>, a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
        let (Some(device), Some(of)) = (cuda::device(a), type_of(a.dtype())) else {
            return Ok(None);
        };
        let alike = a.dtype() == b.dtype() && a.device().same_device(b.device());
        let rank = a.rank();
        if !alike || rank < 2 || b.rank() != rank {
            return Ok(None);
        }
        let (outer, [rows, inner]) = (&a.dims()[..rank - 2], [a.dim(rank - 2)?, a.dim(rank - 1)?]);
        let columns = b.dim(rank - 1)?;
        let count: usize = outer.iter().product();
        let fits = b.dims()[..rank - 2] == *outer && b.dim(rank - 2)? == inner;
        let sizes = [rows, inner, columns, count];
        if !fits || sizes.contains(&0) {
            return Ok(None);
        }
        let (Some((a, seen_a)), Some((b, seen_b))) = (laid_out(a)?, laid_out(b)?) else {
            return Ok(None);
        };
        let all = sizes.into_iter().chain([seen_a.leading, seen_b.leading]);
        if all.max() > Some(i32::MAX as usize) {
            return Ok(None);
        }
        let shape = [outer, &[rows, columns]].concat();
        let (to, beta) = match sum {
            Some(sum) if sum.dims() != shape => return Ok(None),
            Some(sum) => (sum.clone(), 1.0),
            // SAFETY: cuBLAS writes each number of it, and with a factor of 0 reads none.
            None => (unsafe { Tensor::empty(shape, a.dtype(), a.device())? }, 0.0),
        };
        let (wide, narrow) = ([scale, beta], [scale as f32, beta as f32]);
        let (data, compute, factors): (_, _, [*const c_void; 2]) = match of == F64 {
            true => (
                Data::CUDA_R_64F,
                Compute::CUBLAS_COMPUTE_64F,
                [0, 1].map(|i| (&raw const wide[i]).cast()),
            ),
            false => (
                Data::CUDA_R_32F,
                match gemm_reduced_precision_f32() {
                    true => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
                    false => Compute::CUBLAS_COMPUTE_32F,
                },
                [0, 1].map(|i| (&raw const narrow[i]).cast()),
            ),
        };
        let turn = |how: Seen| match how.by_columns {
            true => Turn::CUBLAS_OP_T,
            false => Turn::CUBLAS_OP_N,
        };
        let (from_a, from_b, into) = (address(&a)?, address(&b)?, written_address(&to)?);
        let library = device.cublas_handle();
        // cuBLAS has columns one after the other: what it sees is (A B)ᵀ = Bᵀ Aᵀ.
        // SAFETY: the addresses are those of tensors of these sizes and strides on the library's device, which live
        // till after the call; the factors live on this thread till it returns.
        unsafe {
            gemm_strided_batched_ex(
                *library.handle(),
                turn(seen_b),
                turn(seen_a),
                columns as i32,
                rows as i32,
                inner as i32,
                factors[0],
                from_b as *const c_void,
                data,
                seen_b.leading as i32,
                seen_b.step as i64,
                from_a as *const c_void,
                data,
                seen_a.leading as i32,
                seen_a.step as i64,
                factors[1],
                into as *mut c_void,
                data,
                columns as i32,
                (rows * columns) as i64,
                count as i32,
                compute,
                Algorithm::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .map_err(cuda::driver)?;
        // Marks the use of what was read and written.
        address(&a)?;
        address(&b)?;
        written_address(&to)?;
        Ok(Some(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_sum_of_products() -> Result<()> {
        let numbers = |rows: usize, columns: usize| {
            let all: Vec<f64> = (0..rows * columns).map(|i| (i % 7) as f64 - 2.0).collect();
            Tensor::from_vec(all, (1, rows, columns), &Device::Cpu)
        };
        let (a, b) = (numbers(3, 4)?, numbers(4, 2)?);
        let (c, d) = (numbers(3, 5)?, numbers(2, 5)?.transpose(1, 2)?);
        let mut sum = SumOfProducts::scaled(0.5);
        sum.add(&a, &b)?;
        sum.add(&c, &d)?;
        let sum = sum.sum().expect("two were added").to_vec3::<f64>()?;
        let expected = ((a.matmul(&b)? + c.matmul(&d)?)? * 0.5)?;
        assert_eq!(sum, expected.to_vec3::<f64>()?);
        assert!(SumOfProducts::new().sum().is_none());
        Ok(())
    }

    #[test]
    fn matrices_as_they_lie() {
        let of = |by_columns, leading, step| {
            Some(Seen {
                by_columns,
                leading,
                step,
            })
        };
        let cases: [(&[usize], &[usize], Option<Seen>); 13] = [
            (&[3, 4], &[4, 1], of(false, 4, 0)),
            (&[3, 4], &[9, 1], of(false, 9, 0)),
            (&[3, 4], &[1, 3], of(true, 3, 0)),
            (&[3, 4], &[1, 5], of(true, 5, 0)),
            (&[3, 4], &[8, 2], None),
            (&[1, 4], &[77, 1], of(false, 4, 0)),
            (&[1, 4], &[77, 5], of(true, 5, 0)),
            (&[3, 1], &[6, 77], of(false, 6, 0)),
            // Broadcast rows.
            (&[3, 4], &[0, 1], None),
            (&[2, 3, 4], &[12, 4, 1], of(false, 4, 12)),
            (&[2, 3, 4], &[0, 4, 1], of(false, 4, 0)),
            // Heads: one of several samples is not at the distance of one head to the next.
            (&[2, 3, 5, 4], &[60, 4, 12, 1], None),
            (&[1, 3, 5, 4], &[60, 4, 12, 1], of(false, 12, 4)),
        ];
        for (dims, strides, expected) in cases {
            assert_eq!(seen(dims, strides), expected, "{dims:?} {strides:?}");
        }
    }
}
