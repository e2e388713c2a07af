//! Pairwise products of feature vectors, DLRM's interaction (Naumov et al. 2019).

mod cpu;
mod tensors;

use super::wrong;
use crate::engine::{Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use candle_core::{Device, Tensor};

/// The dense vector and the inner products of all pairs of vectors: [B, m + n(n-1)/2] from `dense`
/// [B, m] and `bags` [B, n-1, m], with t₀ the dense vector and t₁ … the bags.
///
/// The products ⟨tᵢ, tⱼ⟩, i > j, stand row by row: (1,0), (2,0), (2,1), (3,0), …
///
/// The result is on the device of `dense`. Bags of tables that are kept on the CPU are moved there, and
/// their gradients come back.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or dtypes that do not fit; candle's errors.
pub fn interaction<X: Operand>(dense: &X, bags: &X) -> Result<X> {
    X::of(on(dense, bags)?)
}

fn on(dense: &dyn Operand, bags: &dyn Operand) -> Result<Handle> {
    if dense.dtype() != bags.dtype() {
        let expected = format!("{:?}, as the dense vectors", dense.dtype());
        let got = format!("{:?}", bags.dtype());
        return wrong("bags of an interaction", expected, got);
    }
    if !dense.device().same_device(bags.device()) {
        let moved = bags.tensor()?.to_device(dense.device())?;
        return call(Interaction, &[dense, &moved]);
    }
    call(Interaction, &[dense, bags])
}

struct Interaction;

impl Op for Interaction {
    fn name(&self) -> &'static str {
        "interaction"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let sizes = Sizes::of(inputs[0], inputs[1])?;
        Ok(vec![sizes.batch, sizes.width + sizes.pairs()])
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let (dense, bags) = (&inputs[0], &inputs[1]);
        let sizes = Sizes::of(dense.dims(), bags.dims())?;
        let (batch, n) = (sizes.batch, sizes.vectors);
        let all = Tensor::cat(&[&dense.unsqueeze(1)?, bags], 1)?; // [B, n, m]
        let products = all.matmul(&all.transpose(1, 2)?.contiguous()?)?; // [B, n, n]
        let pairs = pairs(n, dense.device())?;
        let products = products.reshape((batch, n * n))?.index_select(&pairs, 1)?;
        Ok(Tensor::cat(&[dense, &products], 1)?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

/// Batch, number of vectors with the dense one, and their width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub batch: usize,
    pub vectors: usize,
    pub width: usize,
}

impl Sizes {
    pub fn pairs(&self) -> usize {
        self.vectors * (self.vectors - 1) / 2
    }

    /// For dense vectors and bags of these shapes.
    fn of(dense: &[usize], bags: &[usize]) -> Result<Self> {
        match (dense, bags) {
            (&[batch, width], &[also, tables, too])
                if (also, too) == (batch, width) && batch > 0 && width > 0 && tables > 0 =>
            {
                Ok(Self {
                    batch,
                    vectors: tables + 1,
                    width,
                })
            }
            _ => wrong(
                "dense vectors and bags of an interaction",
                "[batch, width] and [batch, tables, width], none of them 0",
                format!("{dense:?} and {bags:?}"),
            ),
        }
    }
}

/// Where the entries (i, j) of an n x n matrix are that are a pair's: below the diagonal.
fn pairs(n: usize, device: &Device) -> Result<Tensor> {
    let rows = (0..n).flat_map(|i| (0..i).map(move |j| (i * n + j) as u32));
    let places = Tensor::from_vec(rows.collect(), n * (n - 1) / 2, &Device::Cpu)?;
    Ok(places.to_device(device)?)
}
