//! The gradient against differences of the loss, for many variables at once.

use super::{Auditor, SAMPLES, STEPS};
use crate::error::Result;
use crate::vars::{VarVec, sum_f64};
use candle_core::Tensor;

/// The share of the largest of a group below which variables go to the next group, where the large
/// ones do not hide them.
const GROUP: f64 = 1.0 / 8.0;
/// The last group takes what is left.
const GROUPS: usize = 5;

impl<F: Fn() -> Result<Tensor>> Auditor<'_, F> {
    /// The gradient along random directions of groups of variables that weigh alike.
    pub(super) fn gradient(&mut self) -> Result<()> {
        let gradient = self.hessian.gradient()?;
        let mut weights = Vec::new();
        let reached = self.hessian.reached();
        for (index, g) in gradient.tensors().iter().enumerate() {
            let norm = sum_f64(&g.sqr()?)?.sqrt() * self.scales[index];
            if reached[index] {
                weights.push((index, norm));
            }
        }
        for group in groups(weights) {
            let mut wrong = false;
            for sample in 0..SAMPLES {
                wrong |= !self.along(&group, &gradient, sample)?.0;
            }
            if wrong {
                self.name_wrong(&group, &gradient)?;
            }
        }
        Ok(())
    }

    /// Whether the gradient is right along a direction of these variables, and its relative error: at
    /// one of several step lengths, since a long one crosses kinks (a ReLU, a maximum) and a short one
    /// drowns in rounding. A wrong gradient is wrong at all of them.
    fn along(
        &mut self,
        group: &[(usize, f64)],
        gradient: &VarVec,
        sample: u32,
    ) -> Result<(bool, f64)> {
        let indices: Vec<usize> = group.iter().map(|(i, _)| *i).collect();
        let v = self.direction(&indices, sample)?;
        let exact = gradient.dot(&v)?;
        // A random direction sees the norm of a gradient, not more, whatever cancels in this one.
        let norm = group.iter().map(|(_, w)| w * w).sum::<f64>().sqrt();
        let scale = norm.max(exact.abs());
        let mut last = (true, 0.0);
        for factor in STEPS {
            let slope = self.line.slope(&v, self.step() * factor, self.noise)?;
            let difference = (exact - slope.value).abs();
            let right = difference <= scale * self.step().min(0.02) + slope.doubt;
            let settled = slope.doubt <= 0.1 * scale.max(slope.value.abs());
            let error = difference / scale.max(slope.value.abs()).max(f64::MIN_POSITIVE);
            if right && settled {
                self.audit.gradient_error = self.audit.gradient_error.max(error);
                return Ok((true, error));
            }
            if factor == 1.0 || settled {
                last = (right, error);
            }
        }
        Ok(last)
    }

    fn name_wrong(&mut self, group: &[(usize, f64)], gradient: &VarVec) -> Result<()> {
        let mut named = Vec::new();
        for one in group {
            for sample in 0..SAMPLES {
                let (right, error) = self.along(&[*one], gradient, sample)?;
                if !right {
                    named.push((one.0, error));
                    break;
                }
            }
        }
        if named.is_empty() {
            let indices: Vec<usize> = group.iter().map(|(i, _)| *i).collect();
            let names = self.names(&indices);
            self.findings
                .push(format!("the gradient of {names:?} together is wrong"));
        }
        for (index, error) in named {
            let name = &self.names(&[index])[0];
            self.findings.push(format!(
                "the gradient of `{name}` is wrong (off by {error:.1e} of the larger of the two)"
            ));
        }
        Ok(())
    }
}

/// Variables that weigh alike.
fn groups(mut weights: Vec<(usize, f64)>) -> Vec<Vec<(usize, f64)>> {
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut groups: Vec<Vec<(usize, f64)>> = Vec::new();
    for weight in weights {
        let full = groups.len() == GROUPS;
        match groups.last_mut() {
            Some(group) if full || weight.1 >= group[0].1 * GROUP => group.push(weight),
            _ => groups.push(vec![weight]),
        }
    }
    groups
}
