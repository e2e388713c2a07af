//! Checks for your own ops and models: is candle's gradient the derivative of the loss, is the
//! Hessian-vector product the derivative of the gradient, does every variable take part?
//!
//! [`audit()`] is one call for all of it, in any precision, cheap enough for the start of a training.
//! [`gradient`] and [`hessian`] are the strict tests of a small program in f64:
//!
//! Use them in this order. Each level is checked against differences of the level below and never
//! against itself: an op that cuts the graph silently has a zero gradient *and* zero differences
//! of that gradient, so only the loss itself can tell.
//!
//! ```
//! use adahessian::{NamedVars, check};
//! use candle_core::{Device, Var};
//! let x = Var::new(&[0.3f64, -1.2], &Device::Cpu)?;
//! let vars = NamedVars::from(vec![x.clone()]);
//! let loss = || Ok(x.sin()?.sqr()?.sum_all()?);
//! check::all_reached(&vars, loss)?;
//! check::gradient(&vars, 1e-8, loss)?;
//! check::hessian(&vars, 1e-8, loss)?;
//! # Ok::<(), adahessian::Error>(())
//! ```
//!
//! The loss must be a smooth function of the variables near their present values (differences do
//! not survive the kink of a ReLU) and give the same value each time it is called (fix the dropout
//! mask). Variables of any dtype but f64 are refused: differences in f32 cannot tell a wrong
//! derivative from rounding.

mod audit;
mod line;

pub use audit::{Audit, audit};

use crate::curvature::LinearOperator;
use crate::curvature::finite_difference::{self, FiniteDifference};
use crate::curvature::hessian::Hessian;
use crate::curvature::hutchinson::Hutchinson;
use crate::error::{Error, Result};
use crate::ops::statistics_at_rest;
use crate::optim::reach::hint;
use crate::random::Stream;
use crate::second_order;
use crate::second_order::versions::{self, Return};
use crate::vars::{NamedVars, VarVec};
use candle_core::{DType, Device, Tensor, Var};

/// Variables up to this size are checked entry by entry, larger ones along random directions.
const SMALL: usize = 24;

/// Random directions for each larger variable, and probes of the Hessian.
const DIRECTIONS: u32 = 3;

/// Differences of rounded numbers: this many units in the last place of what is differenced,
/// divided by the step, count as equal.
const ROUNDING: f64 = 32.0 * f64::EPSILON;

/// A variable whose derivative is smaller than this part of the largest one is compared to that
/// part, since rounding of the loss is all that its differences show.
const FLOOR: f64 = 1e-4;

/// Checks candle's gradient of the loss against differences of the loss, and returns the largest
/// relative error over the variables.
///
/// The differences are (8 (L(θ+hu) - L(θ-hu)) - (L(θ+2hu) - L(θ-2hu))) / 12h, whose error is of
/// order h⁴. Variables of up to 24 entries are checked entry by entry, larger ones along three
/// random directions of signs. The error of a variable is the largest difference (beyond what the
/// rounding of the loss explains), divided by the
/// norm of its gradient (or by the largest entry of it, where entries are compared). The variables
/// have their old values afterwards.
///
/// # Errors
/// [`Error::Check`] naming the worst variable if its error exceeds the tolerance (10⁻⁷ suits most
/// losses of order 1); [`Error::Variable`] for a dtype other than f64; the errors of the loss.
pub fn gradient(
    vars: &NamedVars,
    tolerance: f64,
    loss: impl Fn() -> Result<Tensor>,
) -> Result<f64> {
    let vars = &vars.trained();
    let loss = || statistics_at_rest(&loss);
    require_f64(vars)?;
    let root = loss()?;
    let gradient = finite_difference::gradient(&root, vars)?;
    let size = scalar(&root)?.abs();
    drop(root);
    let mut rows = Vec::with_capacity(vars.len());
    for ((name, var), gradient) in vars.iter().zip(gradient.tensors()) {
        let origin = var.as_detached_tensor().copy()?;
        let back = Return::to([(var, &origin)]);
        let compared = compare_variable((name, var), &origin, gradient, size, &loss);
        back.now()?;
        let (difference, scale) = compared?;
        rows.push((name, difference, scale));
    }
    worst("gradient", &rows, tolerance)
}

/// Checks Hessian-vector products of the loss against differences of its gradient, and returns the
/// largest relative error over the variables.
///
/// Three random probes of signs; the differences are those of [`FiniteDifference`] at two step
/// lengths, extrapolated: (4 F(ε) - F(2ε)) / 3. The error of a variable is the norm of the
/// difference over the norm of its part of the product. The variables have their old values
/// afterwards.
///
/// # Errors
/// As [`gradient`].
pub fn hessian(vars: &NamedVars, tolerance: f64, loss: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let vars = &vars.trained();
    let loss = || statistics_at_rest(&loss);
    require_f64(vars)?;
    let probes = Hutchinson::new(DIRECTIONS as usize, 0);
    let epsilon = 1e-3 / (vars.elem_count().max(16) as f64).sqrt();
    let near = FiniteDifference::new(vars, &loss).epsilon(epsilon);
    let far = FiniteDifference::new(vars, &loss).epsilon(2.0 * epsilon);
    let mut worst_error: f64 = 0.0;
    for sample in 0..probes.samples() {
        let probe = probes.probe(vars, sample)?;
        let root = loss()?;
        let hessian = Hessian::of(&root, vars)?;
        let size = scalar(&root)?.abs() + hessian.gradient()?.norm()?;
        drop(root);
        let rounding = ROUNDING * size / epsilon;
        let exact = hessian.apply(&probe)?;
        drop(hessian);
        let estimate = near.apply(&probe).and_then(|near| {
            near.scale(4.0 / 3.0)?
                .add_scaled(&far.apply(&probe)?, -1.0 / 3.0)
        });
        let rows = compare_vectors(&exact, &estimate?, rounding)?;
        worst_error = worst_error.max(worst("Hessian-vector product", &rows, tolerance)?);
    }
    Ok(worst_error)
}

/// Checks that the loss depends on every variable as far as candle's graph goes: that each gets a
/// gradient. Running statistics of normalisations are no variables to train ([`NamedVars::trained`]).
///
/// It cannot see a gradient of which a part is missing; [`audit()`] can.
///
/// # Errors
/// [`Error::NotReached`] naming all variables without one, and the errors of the loss.
pub fn all_reached(vars: &NamedVars, loss: impl Fn() -> Result<Tensor>) -> Result<()> {
    let vars = vars.trained();
    let grads = second_order::backward_detached(&statistics_at_rest(&loss)?)?;
    let missing = vars.iter().filter(|(_, var)| grads.get(var).is_none());
    let names: Vec<String> = missing.map(|(name, _)| name.to_string()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(Error::NotReached {
            of: vars.len(),
            hint: hint(&vars, &names),
            names,
        }),
    }
}

fn require_f64(vars: &NamedVars) -> Result<()> {
    match vars.iter().find(|(_, var)| var.dtype() != DType::F64) {
        Some((name, var)) => Err(Error::Variable {
            name: name.into(),
            expected: "dtype F64, since differences in a shorter one only show rounding".into(),
            got: format!("{:?}: make the model in F64 to check it", var.dtype()),
        }),
        None => Ok(()),
    }
}

/// (largest difference beyond rounding, scale) of one variable; `size` is that of the loss.
fn compare_variable(
    (name, var): (&str, &Var),
    origin: &Tensor,
    gradient: &Tensor,
    size: f64,
    loss: &impl Fn() -> Result<Tensor>,
) -> Result<(f64, f64)> {
    let count = origin.elem_count();
    let values = to_vec(origin)?;
    let gradient = to_vec(gradient)?;
    let rms = (values.iter().map(|v| v * v).sum::<f64>() / count.max(1) as f64).sqrt();
    let step = 1e-3 * rms.clamp(0.05, 1.0);
    let slope = |direction: &[f64], step: f64| -> Result<f64> {
        let at = |shift: f64| -> Result<f64> {
            let moved = values.iter().zip(direction).map(|(v, d)| v + shift * d);
            let moved = Tensor::from_vec(moved.collect(), origin.shape(), &Device::Cpu)?;
            versions::set(var, &moved.to_device(origin.device())?)?;
            scalar(&loss()?)
        };
        let near = at(step)? - at(-step)?;
        let far = at(2.0 * step)? - at(-2.0 * step)?;
        Ok((8.0 * near - far) / (12.0 * step))
    };
    let (mut difference, mut scale): (f64, f64) = (0.0, 0.0);
    if count <= SMALL {
        for i in 0..count {
            let mut entry = vec![0.0; count];
            entry[i] = 1.0;
            let estimate = slope(&entry, step)?;
            difference = larger(
                difference,
                (estimate - gradient[i]).abs() - ROUNDING * size / step,
            );
            scale = scale.max(gradient[i].abs()).max(estimate.abs());
        }
    } else {
        scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let step = step / (count as f64).sqrt();
        for sample in 0..DIRECTIONS {
            let signs = Stream::new(0, &format!("direction/{name}"), 0, sample).rademacher(count);
            let signs: Vec<f64> = signs.into_iter().map(f64::from).collect();
            let estimate = slope(&signs, step)?;
            let exact: f64 = signs.iter().zip(&gradient).map(|(s, g)| s * g).sum();
            difference = larger(
                difference,
                (estimate - exact).abs() - ROUNDING * size / step,
            );
            scale = scale.max(estimate.abs());
        }
    }
    Ok((difference, scale))
}

/// (variable, difference beyond rounding, scale) of every part.
fn compare_vectors<'a>(
    exact: &'a VarVec,
    estimate: &VarVec,
    rounding: f64,
) -> Result<Vec<(&'a str, f64, f64)>> {
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let pairs = exact.iter().zip(estimate.tensors());
    pairs
        .map(|((name, exact), estimate)| {
            let (exact, estimate) = (to_vec(exact)?, to_vec(estimate)?);
            let gap: Vec<f64> = exact.iter().zip(&estimate).map(|(a, b)| a - b).collect();
            let difference = larger(0.0, norm(&gap) - rounding);
            Ok((name, difference, norm(&exact).max(norm(&estimate))))
        })
        .collect()
}

/// The largest relative error of (variable, difference, scale), if it is within the tolerance.
fn worst(what: &'static str, rows: &[(&str, f64, f64)], tolerance: f64) -> Result<f64> {
    let floor = rows.iter().map(|row| row.2).fold(0.0, f64::max) * FLOOR;
    let (mut name, mut error) = ("", 0.0);
    for &(row, difference, scale) in rows {
        let relative = match difference == 0.0 {
            true => 0.0,
            false => difference / scale.max(floor),
        };
        if !error_at_most(relative, error) {
            (name, error) = (row, relative);
        }
    }
    match error_at_most(error, tolerance) {
        true => Ok(error),
        false => Err(Error::Check {
            what,
            name: name.into(),
            error,
            tolerance,
        }),
    }
}

/// Like `a <= b`, but a number that is not one is above all others, unless `b` is none already.
fn error_at_most(a: f64, b: f64) -> bool {
    a <= b || b.is_nan()
}

/// The maximum, where not-a-number wins.
fn larger(a: f64, b: f64) -> f64 {
    if error_at_most(b, a) { a } else { b }
}

fn to_vec(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.detach().flatten_all()?.to_vec1()?)
}

fn scalar(loss: &Tensor) -> Result<f64> {
    if loss.elem_count() != 1 {
        return Err(Error::NotScalar {
            got: loss.dims().into(),
        });
    }
    Ok(loss
        .detach()
        .flatten_all()?
        .to_dtype(DType::F64)?
        .to_vec1::<f64>()?[0])
}
