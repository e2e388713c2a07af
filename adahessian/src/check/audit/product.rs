//! A Hessian-vector product against differences of the gradient.

use super::super::line::{direction, unit};
use super::gradient::{is_finite, norm};
use super::{Auditor, STEPS};
use crate::curvature::finite_difference::gradient;
use crate::error::Result;
use crate::numeric::widened;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;

impl<F: Fn() -> Result<Tensor>> Auditor<'_, F> {
    /// A Hessian-vector product against differences of the gradient, at the step length where they
    /// agree best: the jumps of a ReLU's gradient are crossed by some steps and not by others.
    pub(super) fn product(&mut self) -> Result<()> {
        let reached = self.hessian.reached();
        let v = direction(self.line.vars, &self.scales, 7, |_| true)?;
        let mut exact = self.hessian.product(&v)?;
        for (index, product) in exact.iter_mut().enumerate() {
            if let Some(entries) = product
                && !is_finite(entries)?
            {
                let name = self.names(&[index]).remove(0);
                self.findings.push(format!(
                    "the Hessian-vector product of `{name}` has entries that are not finite"
                ));
                *product = None;
            }
        }
        let first = self.step() * 0.3;
        let mut best: Vec<Option<Product>> = vec![None; reached.len()];
        let mut smooth = true;
        for factor in &STEPS[..3] {
            let differences = self.differences(&v, first * factor)?;
            for (index, exact) in exact.iter().enumerate() {
                let Some(exact) = exact else { continue };
                let new = differences.compare(index, exact, unit(self.line.vars))?;
                match &best[index] {
                    Some(old) if old.beyond <= new.beyond => {}
                    _ => best[index] = Some(new),
                }
            }
            let largest = best.iter().flatten().map(|b| b.size).fold(0.0, f64::max);
            smooth &= differences.smooth;
            if best.iter().flatten().all(|b| b.right(largest)) {
                break;
            }
        }
        let largest = best.iter().flatten().map(|b| b.size).fold(0.0, f64::max);
        for (index, product) in best.iter().enumerate() {
            let Some(product) = product else { continue };
            let name = self.names(&[index]).remove(0);
            let floor = (largest * FLOOR).max(f64::MIN_POSITIVE);
            let error = product.difference / product.size.max(floor);
            if product.right(largest) && error <= CLOSE {
                self.audit.hessian_error = self.audit.hessian_error.max(error);
            } else if smooth && !product.right(largest) {
                self.findings.push(format!(
                    "the Hessian-vector product of `{name}` is wrong (off by {error:.1e} of the larger of the two)"
                ));
            } else if !self.audit.unsettled.contains(&name) {
                self.audit.unsettled.push(name);
            }
        }
        Ok(())
    }

    /// The gradient at steps of -2t, -t, t and 2t.
    fn differences(&self, v: &VarVec, t: f64) -> Result<Differences> {
        let at = |t: f64| {
            self.line
                .at(v, t, || gradient(&(self.line.loss)()?, self.line.vars))
        };
        let (above, below) = (at(t)?, at(-t)?);
        let (far_above, far_below) = (at(2.0 * t)?, at(-2.0 * t)?);
        let near = above.add_scaled(&below, -1.0)?.scale(0.5 / t)?;
        let far = far_above.add_scaled(&far_below, -1.0)?.scale(0.25 / t)?;
        let middle = self.hessian.gradient()?;
        Ok(Differences {
            smooth: smooth(
                [&far_below, &below, &middle, &above, &far_above],
                v,
                self.line.vars,
            )?,
            norms: norms(&middle)?,
            near,
            far,
            t,
        })
    }
}

/// Whether the gradient's slope along the line bends no more than a smooth function's, or its
/// rounding, would: from its third differences.
fn smooth(gradients: [&VarVec; 5], v: &VarVec, vars: &NamedVars) -> Result<bool> {
    let mut slopes = Vec::with_capacity(5);
    let mut size: f64 = 0.0;
    for gradient in gradients {
        slopes.push(gradient.dot(v)?);
        size = size.max(gradient.norm()? * v.norm()? / (v.tensors().len().max(1) as f64).sqrt());
    }
    let differences =
        |values: &[f64]| -> Vec<f64> { values.windows(2).map(|w| w[1] - w[0]).collect() };
    let first = differences(&slopes);
    let third = differences(&differences(&first));
    if slopes.iter().any(|slope| !slope.is_finite()) {
        return Ok(false);
    }
    let largest = |values: &[f64]| values.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    Ok(largest(&third) <= 0.01 * largest(&first) + 8.0 * unit(vars) * size)
}

/// Differences of a gradient along a line.
struct Differences {
    near: VarVec,
    far: VarVec,
    norms: Vec<f64>,
    t: f64,
    smooth: bool,
}

impl Differences {
    fn compare(&self, index: usize, exact: &Tensor, unit: f64) -> Result<Product> {
        let (near, far) = (&self.near.tensors()[index], &self.far.tensors()[index]);
        // In half precision the difference of two neighbours would be one of roundings.
        let (near, far, exact) = (&widened(near)?, &widened(far)?, &widened(exact)?);
        let estimate = ((near * (4.0 / 3.0))? - (far * (1.0 / 3.0))?)?;
        let difference = norm(&(&estimate - exact)?)?;
        let doubt = norm(&(near - far)?)? + 32.0 * unit * self.norms[index] / self.t;
        let size = norm(exact)?.max(norm(&estimate)?);
        let beyond = match difference.is_finite() {
            true => (difference - doubt).max(0.0) / size.max(f64::MIN_POSITIVE),
            false => f64::INFINITY, // a shorter step may be better
        };
        Ok(Product {
            difference,
            size,
            beyond,
        })
    }
}

/// A variable's part of a product, and of its differences.
#[derive(Clone, Copy, Debug)]
struct Product {
    difference: f64,
    size: f64,
    /// The difference beyond what the differences leave open, relative.
    beyond: f64,
}

/// What is smaller than this part of the largest is compared to that part.
const FLOOR: f64 = 1e-4;

/// What is further off, and right only because the differences leave so much open, is not settled.
const CLOSE: f64 = 0.1;

/// What a right product may be off, beyond doubt.
const TOLERANCE: f64 = 0.01;

impl Product {
    fn right(&self, largest: f64) -> bool {
        self.beyond.is_finite()
            && self.beyond * self.size <= TOLERANCE * self.size.max(largest * FLOOR)
    }
}

fn norms(vector: &VarVec) -> Result<Vec<f64>> {
    let norms = vector.tensors().iter();
    norms.map(norm).collect()
}
