//! The gradient against differences of the loss, for many variables at once.

use super::{Auditor, SAMPLES, STEPS};
use crate::error::Result;
use crate::numeric::{sum_f64, widened};
use crate::vars::VarVec;
use candle_core::Tensor;

/// The Euclidean norm; squares of half precision's numbers are beyond its range.
pub(super) fn norm(tensor: &Tensor) -> Result<f64> {
    Ok(sum_f64(&widened(tensor)?.sqr()?)?.sqrt())
}

/// Whether all entries are numbers and finite: 0 times them is 0 then.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(sum_f64(&(widened(tensor)? * 0.0)?)? == 0.0)
}

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
            match (reached[index], is_finite(g)?) {
                (false, _) => {}
                // What no difference can be compared with is wrong by itself.
                (true, false) => {
                    let name = &self.names(&[index])[0];
                    let finding =
                        format!("the gradient of `{name}` has entries that are not finite");
                    self.findings.push(finding);
                }
                (true, true) => weights.push((index, norm(g)? * self.scales[index])),
            }
        }
        for group in groups(weights) {
            let (mut wrong, mut open) = (false, false);
            for sample in 0..SAMPLES {
                match self.along(&group, &gradient, sample)? {
                    Verdict::Right => {}
                    Verdict::Wrong(_) => wrong = true,
                    Verdict::Open => open = true,
                }
            }
            if wrong {
                self.name_wrong(&group, &gradient)?;
            } else if open {
                let indices: Vec<usize> = group.iter().map(|(i, _)| *i).collect();
                let names = self.names(&indices);
                self.audit.unsettled.extend(names);
            }
        }
        Ok(())
    }

    /// Whether the gradient is right along a direction of these variables: at one of several step
    /// lengths, since a long one crosses kinks (a ReLU, a maximum) and a short one drowns in rounding.
    fn along(&mut self, group: &[(usize, f64)], gradient: &VarVec, sample: u32) -> Result<Verdict> {
        let indices: Vec<usize> = group.iter().map(|(i, _)| *i).collect();
        let v = self.direction(&indices, sample)?;
        let exact = gradient.dot(&v)?;
        // A random direction sees the norm of a gradient, not more, whatever cancels in this one.
        let norm = group.iter().map(|(_, w)| w * w).sum::<f64>().sqrt();
        let scale = norm.max(exact.abs());
        let (mut errors, mut covered) = (Vec::new(), false);
        for factor in STEPS {
            let slope = self.line.slope(&v, self.step() * factor, self.noise)?;
            let difference = (exact - slope.value).abs();
            let right = difference <= scale * self.step().min(0.02) + slope.doubt;
            let settled = slope.doubt <= 0.1 * scale.max(slope.value.abs());
            let error = difference / scale.max(slope.value.abs()).max(f64::MIN_POSITIVE);
            if right && settled {
                self.audit.gradient_error = self.audit.gradient_error.max(error);
                return Ok(Verdict::Right);
            }
            covered |= right && factor == 1.0;
            if settled {
                errors.push(error);
            }
        }
        Ok(Verdict::of(&errors, covered))
    }

    fn name_wrong(&mut self, group: &[(usize, f64)], gradient: &VarVec) -> Result<()> {
        let mut named = Vec::new();
        for one in group {
            for sample in 0..SAMPLES {
                if let Verdict::Wrong(error) = self.along(&[*one], gradient, sample)? {
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

/// What differences say of a gradient along a direction.
enum Verdict {
    Right,
    /// With the relative error.
    Wrong(f64),
    /// The loss has too many kinks for the step lengths that rounding allows.
    Open,
}

impl Verdict {
    /// From the errors at the steps that say something, the longest first. A shorter step crosses fewer
    /// kinks, so that a right gradient comes closer; a wrong one is as wrong as before. `covered` tells
    /// whether rounding explains the difference at the longest step.
    fn of(errors: &[f64], covered: bool) -> Self {
        match errors {
            [] if covered => Verdict::Right,
            [] => Verdict::Open,
            [only] if *only > 0.2 => Verdict::Wrong(*only),
            [first, .., last] if last > &(0.5 * first) => Verdict::Wrong(*last),
            _ => Verdict::Open,
        }
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
