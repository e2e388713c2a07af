//! Fused operations against the composed ones.

use crate::assert_close;
use adahessian::engine::Handle;
use adahessian::random::Stream;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec, check};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};

/// How tensors become handles.
pub type Enter = fn(&Tensor) -> adahessian::Result<Handle>;
/// On the CPU: fused.
pub const FUSED: Enter = Handle::enter;
/// As on a GPU: of candle's operations on tensors without a graph.
pub const TENSORS: Enter = Handle::of_tensors;
/// Composed of candle's operations.
pub const COMPOSED: Enter = |x| Ok(Handle::composed(x));

/// Normal numbers, the same for the same name.
pub fn random(name: &str, shape: &[usize]) -> Result<Tensor> {
    Ok(Stream::new(7, name, 0, 0).normal_tensor(shape, DType::F64, &Device::Cpu)?)
}

/// Variables of these names and shapes.
pub fn vars(parts: &[(&str, &[usize])]) -> Result<NamedVars> {
    let parts = parts
        .iter()
        .map(|(name, shape)| Ok((name.to_string(), Var::from_tensor(&random(name, shape)?)?)));
    Ok(NamedVars::new(parts.collect::<Result<Vec<_>>>()?)?)
}

/// A loss of which every derivative matters.
pub fn loss(y: &Tensor) -> adahessian::Result<Tensor> {
    let direction =
        random("direction", y.dims()).map_err(|e| candle_core::Error::msg(e.to_string()))?;
    let direction = direction.to_dtype(y.dtype())?.to_device(y.device())?;
    Ok((y.sin()? * direction)?.sum_all()?)
}

/// The same values in another type.
pub fn to(vars: &NamedVars, dtype: DType) -> Result<NamedVars> {
    to_place(vars, dtype, &Device::Cpu)
}

/// The same values in another type and on another device.
pub fn to_place(vars: &NamedVars, dtype: DType, device: &Device) -> Result<NamedVars> {
    let cast = |(name, var): (&str, &Var)| {
        let value = var.to_dtype(dtype)?.to_device(device)?;
        Ok((name.to_string(), Var::from_tensor(&value)?))
    };
    Ok(NamedVars::new(
        vars.iter().map(cast).collect::<Result<Vec<_>>>()?,
    )?)
}

/// Value, gradient and Hessian-vector product of the fused forms, the CPU's and a GPU's, against the composed one.
pub fn agree(
    what: &str,
    vars: &NamedVars,
    tolerance: f64,
    op: impl Fn(&NamedVars, Enter) -> adahessian::Result<Tensor>,
) -> Result<()> {
    agree_in(what, vars, tolerance, FUSED, &op)?;
    agree_in(
        &format!("{what}, of tensors"),
        vars,
        tolerance,
        TENSORS,
        &op,
    )
}

/// The same for one form. The composed one is computed in f64 at the same point: in f32 it would have errors of
/// its own.
fn agree_in(
    what: &str,
    vars: &NamedVars,
    tolerance: f64,
    enter: Enter,
    op: &dyn Fn(&NamedVars, Enter) -> adahessian::Result<Tensor>,
) -> Result<()> {
    anyhow::ensure!(!vars.is_empty(), "{what}: no variables");
    let exact = to(vars, DType::F64)?;
    let (fused, composed) = (op(vars, enter)?, op(&exact, COMPOSED)?);
    assert_close(&format!("{what}: value"), &fused, &composed, tolerance)?;
    let fused = Hessian::of(&loss(&fused)?, vars)?;
    let composed = Hessian::of(&loss(&composed)?, &exact)?;
    let draw = |name: &str, shape: &[usize], device: &Device| {
        // Of f32, the same in both types.
        Stream::new(3, name, 1, 0).normal_tensor(shape, DType::F32, device)
    };
    let z = VarVec::from_fn(vars, |name, shape, dtype, device| {
        Ok(draw(name, shape, device)?.to_dtype(dtype)?)
    })?;
    let z_exact = VarVec::from_fn(&exact, |name, shape, dtype, device| {
        Ok(draw(name, shape, device)?.to_dtype(dtype)?)
    })?;
    let (a, b) = (fused.gradient()?, composed.gradient()?);
    let (c, d) = (fused.apply(&z)?, composed.apply(&z_exact)?);
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        assert_close(&format!("{what}: gradient of {name}"), a, b, tolerance)?;
    }
    for ((name, c), (_, d)) in c.iter().zip(d.iter()) {
        assert_close(&format!("{what}: Hz of {name}"), c, d, tolerance)?;
    }
    // A second product on the same graph is the first, bit for bit.
    for ((name, c), (_, d)) in fused.apply(&z)?.iter().zip(c.iter()) {
        assert_close(&format!("{what}: Hz again of {name}"), c, d, 0.0)?;
    }
    Ok(())
}

/// An operation under test: from variables to a tensor.
pub type Op<'a> = &'a dyn Fn(&NamedVars, Enter) -> adahessian::Result<Tensor>;

/// Values, gradients and Hz to 1e-12 in f64 and 1e-5 in f32 against the twin; against finite differences
/// where that is asked.
pub fn twins(what: &str, vars: &NamedVars, differences: bool, op: Op<'_>) -> Result<()> {
    agree(what, vars, 1e-12, op)?;
    agree(&format!("{what}, f32"), &to(vars, DType::F32)?, 1e-5, op)?;
    if differences {
        let loss = || loss(&op(vars, FUSED)?);
        check::gradient(vars, 1e-6, loss)?;
        check::hessian(vars, 1e-6, loss)?;
    }
    Ok(())
}
