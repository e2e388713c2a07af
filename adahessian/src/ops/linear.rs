//! Linear maps of the last dimension, dense or in groups.

use super::{Activation, wrong};
use crate::error::Result;
use candle_core::Tensor;

/// y = x Wᵀ + b over the last dimension.
///
/// `x` is [.., in], `weight` [out, in] (or [out, in, 1], a pointwise convolution's), `bias` `[out]`,
/// the result [.., out].
///
/// All leading dimensions become rows of one matrix, so that candle sees a product of two matrices
/// only: `candle_nn::Linear` multiplies a batch by a weight that is broadcast with stride 0, which
/// gives wrong values where the input is not contiguous and the batch larger than 1.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    grouped_linear(x, weight, bias, 1)
}

/// act(x Wᵀ + b), as [`grouped_linear`] followed by the activation. One function, so that it can
/// become one operation.
///
/// # Errors
/// As [`grouped_linear`].
pub fn linear_activation(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
    activation: Activation,
) -> Result<Tensor> {
    activation.apply(&grouped_linear(x, weight, bias, groups)?)
}

/// A linear map whose inputs and outputs are split into `groups` equal, consecutive parts, each
/// output seeing the inputs of its own group only: with inputs x⁽ᵍ⁾ and rows W⁽ᵍ⁾ of group g,
/// y⁽ᵍ⁾ = x⁽ᵍ⁾ W⁽ᵍ⁾ᵀ + b⁽ᵍ⁾. It is a convolution of kernel 1 with groups, on channels that come last.
///
/// `x` is [.., in], `weight` [out, in/groups] (or [out, in/groups, 1]), `bias` `[out]`, the result
/// [.., out].
///
/// The groups are the batch of one batched matrix product. candle's `conv1d` has a wrong kernel
/// gradient for batches larger than 1 and no second derivative.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn grouped_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
) -> Result<Tensor> {
    let inputs = x.dims().last().copied().unwrap_or(0);
    let outputs = check_weight(weight, inputs, groups)?;
    check_bias(bias, outputs)?;
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(outputs);
    let y = match groups {
        1 => {
            let rows = x.contiguous()?.reshape(((), inputs))?; // [N, in]
            let weight = match weight.rank() {
                2 => weight.clone(),
                _ => weight.reshape((outputs, inputs))?,
            };
            rows.matmul(&weight.t()?)? // [N, out]
        }
        _ => grouped_product(x, weight, (inputs, outputs, groups))?,
    };
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.reshape(shape)?)
}

/// [N, out] for groups > 1.
fn grouped_product(
    x: &Tensor,
    weight: &Tensor,
    (inputs, outputs, groups): (usize, usize, usize),
) -> Result<Tensor> {
    let x = x.contiguous()?.reshape(((), groups, inputs / groups))?; // [N, G, in/G]
    let x = x.transpose(0, 1)?.contiguous()?; // [G, N, in/G]
    let weight = weight.reshape((groups, outputs / groups, inputs / groups))?;
    let y = x.matmul(&weight.transpose(1, 2)?)?; // [G, N, out/G]
    // The reshape copies what is not contiguous.
    Ok(y.transpose(0, 1)?.reshape(((), outputs))?) // [N, out]
}

/// Whether the weight fits the input's last dimension; the number of outputs.
pub(super) fn check_weight(weight: &Tensor, inputs: usize, groups: usize) -> Result<usize> {
    match weight.dims() {
        [outputs, part] | [outputs, part, 1] => {
            check_shapes(inputs, *outputs, *part, groups)?;
            Ok(*outputs)
        }
        got => wrong(
            "weight of a linear map",
            "[out, in/groups]",
            format!("{got:?}"),
        ),
    }
}

pub(super) fn check_bias(bias: Option<&Tensor>, outputs: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.dims() != [outputs] => wrong(
            "bias of a linear map",
            format!("[{outputs}]"),
            format!("{:?}", bias.dims()),
        ),
        _ => Ok(()),
    }
}

fn check_shapes(inputs: usize, outputs: usize, part: usize, groups: usize) -> Result<()> {
    if groups == 0 || !outputs.is_multiple_of(groups) {
        return wrong(
            "groups of a linear map",
            format!("a divisor of its {outputs} outputs"),
            groups.to_string(),
        );
    }
    if inputs == 0 || part * groups != inputs {
        return wrong(
            "input of a linear map",
            format!(
                "{} entries in the last dimension ({part} in each of {groups} groups)",
                part * groups
            ),
            inputs.to_string(),
        );
    }
    Ok(())
}
