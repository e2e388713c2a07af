//! The one place that looks at where numbers live: it chooses how an operation is computed.

use super::handle::{Fused, Inner, Kind};
use super::{Backend, Cpu, Handle, Kernel, Op, Operand, Tensors, node};
use crate::error::{Error, Result};
use candle_core::Tensor;

type Run<O, B> = fn(O, &[&Fused<B>], &[usize]) -> Result<Fused<B>>;

/// The kernels that an operation has.
pub struct Kernels<O> {
    f32: Option<Run<O, Cpu<f32>>>,
    f64: Option<Run<O, Cpu<f64>>>,
    tensors: Option<Run<O, Tensors>>,
}

impl<O: Op> Kernels<O> {
    /// None: the operation is composed everywhere.
    pub fn none() -> Self {
        Self {
            f32: None,
            f64: None,
            tensors: None,
        }
    }

    /// Those for f32 and f64 on the CPU.
    pub fn cpu() -> Self
    where
        O: Kernel<Cpu<f32>> + Kernel<Cpu<f64>>,
    {
        Self {
            f32: Some(node::apply),
            f64: Some(node::apply),
            tensors: None,
        }
    }

    /// Those on the CPU, and one of candle's operations for GPUs.
    pub fn everywhere() -> Self
    where
        O: Kernel<Cpu<f32>> + Kernel<Cpu<f64>> + Kernel<Tensors>,
    {
        Self {
            tensors: Some(node::apply),
            ..Self::cpu()
        }
    }
}

/// Runs an operation on handles or candle tensors. [`Operand::of`] makes of the result what the operand was.
///
/// The first operand decides: where its numbers live and the operation has a kernel for them, it is one
/// fused node, and the other operands must be of that kind too. Otherwise it is composed of candle's
/// operations; on another device, say, in half precision, for a tensor without entries, or for
/// [`Handle::composed`].
///
/// # Errors
/// Those of [`Op::shape`]; [`crate::Error::Setting`] for an operand of another kind than the first;
/// candle's errors.
pub fn call(op: impl Op, inputs: &[&dyn Operand]) -> Result<Handle> {
    let Some(first) = inputs.first() else {
        return Err(Error::Engine {
            what: format!(
                "the operation `{}` was called without an operand",
                op.name()
            ),
        });
    };
    let shape = op.shape(&shapes(inputs))?;
    run(op, *first, inputs, &shape)
}

fn shapes<'a>(inputs: &[&'a dyn Operand]) -> Vec<&'a [usize]> {
    inputs.iter().map(|input| input.dims()).collect()
}

fn run<O: Op>(
    op: O,
    first: &dyn Operand,
    inputs: &[&dyn Operand],
    shape: &[usize],
) -> Result<Handle> {
    let kernels = O::kernels();
    match (first.kind(), kernels) {
        (Kind::F32, Kernels { f32: Some(run), .. }) => {
            Ok(Inner::F32(fused(op, inputs, shape, run)?).into())
        }
        (Kind::F64, Kernels { f64: Some(run), .. }) => {
            Ok(Inner::F64(fused(op, inputs, shape, run)?).into())
        }
        (
            Kind::Tensors,
            Kernels {
                tensors: Some(run), ..
            },
        ) => {
            let y = fused(op, inputs, shape, run)?;
            Ok(Inner::Tensors(y, first.dtype()).into())
        }
        (Kind::Composed, _) => Ok(Handle::composed(&composed(&op, inputs)?)),
        // What follows can be fused again.
        (Kind::Tensors, _) if first.as_handle().is_some() && !shape.contains(&0) => {
            Handle::of_tensors(&composed(&op, inputs)?)
        }
        _ if first.as_handle().is_some() => Handle::enter(&composed(&op, inputs)?),
        _ => Ok(Handle::composed(&composed(&op, inputs)?)),
    }
}

fn fused<O: Op, B: Backend>(
    op: O,
    inputs: &[&dyn Operand],
    shape: &[usize],
    run: Run<O, B>,
) -> Result<Fused<B>> {
    let all = operands(op.name(), inputs)?;
    run(op, &all.iter().collect::<Vec<_>>(), shape)
}

fn operands<B: Backend>(name: &str, inputs: &[&dyn Operand]) -> Result<Vec<Fused<B>>> {
    let all = inputs.iter().enumerate();
    all.map(|(i, input)| Fused::of(*input).map_err(|e| named(e, name, i, *input)))
        .collect()
}

/// Says of an operand that is refused which it is.
fn named(error: Error, name: &str, index: usize, input: &dyn Operand) -> Error {
    match error {
        Error::Setting {
            what,
            expected,
            got,
        } => Error::Setting {
            what,
            expected,
            got: format!(
                "{got}: operand {} of `{name}`, of shape {:?}",
                index + 1,
                input.dims()
            ),
        },
        other => other,
    }
}

fn composed(op: &impl Op, inputs: &[&dyn Operand]) -> Result<Tensor> {
    op.composed(&tensors(inputs)?)
}

fn tensors(inputs: &[&dyn Operand]) -> Result<Vec<Tensor>> {
    inputs.iter().map(|input| input.tensor()).collect()
}
