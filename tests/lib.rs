//! What the tests share: golden files, comparisons, small models.

pub mod twins;

use adahessian::NamedVars;
use adahessian::engine::Operand;
use adahessian::ops::{self, Dropout};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// LayerNorm(dropout(x) + residual), where there is a residual.
///
/// # Errors
/// Those of the operations.
pub fn dropped_norm<X: Operand + Clone>(
    x: &X,
    residual: Option<&X>,
    dropout: &Dropout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> adahessian::Result<X> {
    match residual {
        Some(residual) => ops::residual_layer_norm(x, residual, dropout, weight, bias, eps),
        None => ops::layer_norm(&ops::dropout(x, dropout)?, weight, bias, eps),
    }
}

/// The folder of reference numbers that the project holds itself.
pub fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

/// A path beside the project that holds real data; `None`, with a printed reason, where it is
/// absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path);
    match full.exists() {
        true => Some(full),
        false => {
            println!("skipped: {} is not here", full.display());
            None
        }
    }
}

/// The tensors of a safetensors file.
pub fn load(path: &Path) -> Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load(path, &Device::Cpu).with_context(|| path.display().to_string())
}

/// The largest magnitude of an entry, in f64; not a number if one is none, which a maximum would lose.
pub fn largest(t: &Tensor) -> Result<f64> {
    let values = t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let values = values.abs()?.flatten_all()?.to_vec1::<f64>()?;
    Ok(values
        .iter()
        .fold(0.0, |m: f64, v| match v.is_nan() || m.is_nan() {
            true => f64::NAN,
            false => m.max(*v),
        }))
}

/// max|a - b| / max|b|, in f64; the absolute difference where b is zero throughout.
pub fn relative_error(a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.dims() != b.dims() {
        bail!("shapes {:?} and {:?}", a.dims(), b.dims());
    }
    let here = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let (a, b) = (here(a)?, here(b)?);
    let (difference, scale) = (largest(&(&a - &b)?)?, largest(&b)?);
    Ok(if scale > 0.0 {
        difference / scale
    } else {
        difference
    })
}

/// Fails, with the name and the error, unless there is something to compare and the relative error is at most the
/// tolerance.
pub fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) -> Result<()> {
    if a.elem_count() == 0 {
        bail!(
            "{what}: nothing to compare in shapes {:?} and {:?}",
            a.dims(),
            b.dims()
        );
    }
    let error = relative_error(a, b).with_context(|| what.to_string())?;
    match error <= tolerance {
        true => Ok(()),
        false => bail!("{what}: relative error {error:.3e}, allowed {tolerance:.1e}"),
    }
}

/// Fails unless two numbers agree to the relative (or, below 1, absolute) tolerance.
pub fn assert_number(what: &str, a: f64, b: f64, tolerance: f64) -> Result<()> {
    match b.is_finite() && (a - b).abs() <= tolerance * b.abs().max(1.0) {
        true => Ok(()),
        false => bail!("{what}: {a}, expected {b} within {tolerance:.1e}"),
    }
}

/// Variables with these names and values, in f64.
pub fn variables(values: &[(&str, &[f64], &[usize])]) -> Result<NamedVars> {
    let vars = values.iter().map(|(name, data, shape)| {
        let tensor = Tensor::from_slice(data, *shape, &Device::Cpu)?;
        Ok((name.to_string(), Var::from_tensor(&tensor)?))
    });
    Ok(NamedVars::new(vars.collect::<Result<Vec<_>>>()?)?)
}

/// Fails unless the error's text contains all of these pieces.
pub fn assert_says<T, E: std::fmt::Display>(outcome: std::result::Result<T, E>, pieces: &[&str]) {
    let Err(error) = outcome else {
        panic!("expected an error that says {pieces:?}");
    };
    let text = error.to_string();
    for piece in pieces {
        assert!(
            text.contains(piece),
            "the error should say {piece:?}: {text}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What compares must not be pleased by what is no number, or by nothing.
    #[test]
    fn comparisons_refuse_what_is_none() -> Result<()> {
        let of = |numbers: &[f64]| Tensor::new(numbers, &Device::Cpu);
        let right = of(&[1.0, 2.0, 3.0])?;
        assert_close("itself", &right, &right, 0.0)?;
        let nan = of(&[1.0, f64::NAN, 3.0])?;
        for wrong in [
            nan.clone(),
            of(&[1.0, f64::INFINITY, 3.0])?,
            of(&[1.0, 2.0])?,
        ] {
            assert!(assert_close("wrong", &wrong, &right, 1e300).is_err());
            assert!(assert_close("wrong", &right, &wrong, 0.5).is_err());
        }
        let empty = Tensor::zeros((0, 2), DType::F64, &Device::Cpu)?;
        assert!(assert_close("nothing", &empty, &empty, 1.0).is_err());
        assert!(largest(&nan)?.is_nan());
        assert!(assert_number("endless", 1.0, f64::INFINITY, 1.0).is_err());
        assert!(assert_number("none", f64::NAN, 1.0, 1.0).is_err());
        let none = variables(&[])?;
        assert!(twins::twins("none", &none, false, &|_, _| Ok(right.clone())).is_err());
        Ok(())
    }
}
