//! Linear maps of the last dimension with bias and activation, dense or in groups.

mod cpu;
mod groups;
mod tensors;

use super::{Activation, wrong};
use crate::engine::{Entrywise, Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::widened;
use candle_core::Tensor;
pub(super) use cpu::add_bias;
pub(super) use groups::Groups;

/// act(x Wᵀ + b) over the last dimension. Inputs and outputs are split into `groups` equal, consecutive
/// parts, each output seeing the inputs of its own part only: with inputs x⁽ᵍ⁾ and rows W⁽ᵍ⁾ of group g,
/// y⁽ᵍ⁾ = x⁽ᵍ⁾ W⁽ᵍ⁾ᵀ + b⁽ᵍ⁾. It is a convolution of kernel 1 with groups, on channels that come last.
///
/// `x` is [.., in], `weight` [out, in/groups] (or [out, in/groups, 1], a pointwise convolution's),
/// `bias` `[out]`, the result [.., out].
///
/// All leading dimensions become rows of one matrix, so that candle sees a product of two matrices
/// only: `candle_nn::Linear` multiplies a batch by a weight that is broadcast with stride 0, which
/// gives wrong values where the input is not contiguous and the batch larger than 1. Groups are the
/// batch of one batched product: candle's `conv1d` has a wrong kernel gradient for batches larger than
/// 1 and no second derivative.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn linear<X: Operand>(
    x: &X,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
    activation: Activation,
) -> Result<X> {
    X::of(on(x, weight, bias, groups, activation)?)
}

fn on(
    x: &dyn Operand,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
    activation: Activation,
) -> Result<Handle> {
    let inputs = x.dims().last().copied().unwrap_or(0);
    let outputs = weight.dims().first().copied().unwrap_or(0);
    let sizes = Groups {
        inputs,
        outputs,
        groups,
    };
    let map = Linear { sizes, activation };
    match bias {
        Some(bias) => call(map, &[x, weight, bias]),
        None => call(map, &[x, weight]),
    }
}

struct Linear {
    sizes: Groups,
    activation: Activation,
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let outputs = self.sizes.check(inputs[1])?;
        if let Some(bias) = inputs.get(2)
            && *bias != [outputs]
        {
            let expected = format!("[{outputs}]");
            return wrong("bias of a linear map", expected, format!("{bias:?}"));
        }
        let mut shape = inputs[0].to_vec();
        shape.pop();
        shape.push(outputs);
        Ok(shape)
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(self.sizes.outputs);
        let y = match self.sizes.groups {
            1 => {
                let Groups {
                    inputs, outputs, ..
                } = self.sizes;
                let rows = x.contiguous()?.reshape(((), inputs))?; // [N, in]
                let weight = match weight.rank() {
                    2 => weight.clone(),
                    _ => weight.reshape((outputs, inputs))?,
                };
                rows.matmul(&weight.t()?)? // [N, out]
            }
            _ => self.grouped(x, weight)?,
        };
        let y = match inputs.get(2) {
            // Whose gradient is a sum over all rows: half precision has too few digits for it.
            Some(bias) => widened(&y)?
                .broadcast_add(&widened(bias)?)?
                .to_dtype(y.dtype())?,
            None => y,
        };
        self.activation.composed(&y.reshape(shape)?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

impl Linear {
    /// [N, out] for groups > 1.
    fn grouped(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let Groups {
            inputs,
            outputs,
            groups,
        } = self.sizes;
        let x = x.contiguous()?.reshape(((), groups, inputs / groups))?; // [N, G, in/G]
        let x = x.transpose(0, 1)?.contiguous()?; // [G, N, in/G]
        let weight = weight.reshape((groups, outputs / groups, inputs / groups))?;
        let y = x.matmul(&weight.transpose(1, 2)?)?; // [G, N, out/G]
        // The reshape copies what is not contiguous.
        Ok(y.transpose(0, 1)?.reshape(((), outputs))?) // [N, out]
    }
}
