//! All that can be wrong with a program's derivatives, in one call.

use super::line::{Line, direction, scales, unit};
use super::scalar;
use crate::curvature::finite_difference::gradient;
use crate::curvature::hessian::Hessian;
use crate::error::{Error, Result};
use crate::ops::vision::statistics_at_rest;
use crate::vars::{NamedVars, VarVec, sum_f64};
use candle_core::Tensor;
use std::fmt;

/// What an audit found to be right, and how closely it could look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    /// How many variables were audited.
    pub variables: usize,
    /// Variables that get no gradient because the loss does not depend on them.
    pub unused: Vec<String>,
    /// The largest relative error of the gradient along a random direction.
    pub gradient_error: f64,
    /// The largest relative error of a variable's part of a Hessian-vector product, over those that
    /// differences of the gradient could settle.
    pub hessian_error: f64,
    /// Variables whose part of the product could not be settled: the gradient jumps (a ReLU, a maximum),
    /// and the numbers are too short for steps that avoid the jumps. The same model in f64 settles them.
    pub unsettled: Vec<String>,
    /// The rounding of the loss, relative to its value: what limits the two errors above.
    pub rounding: f64,
    /// How often the loss was computed.
    pub evaluations: usize,
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} variables: gradient right to {:.1e}, Hessian-vector product to {:.1e} (rounding of the loss {:.1e}, \
             {} evaluations)",
            self.variables,
            self.gradient_error,
            self.hessian_error,
            self.rounding,
            self.evaluations
        )?;
        for (what, names) in [
            ("not used by the loss", &self.unused),
            (
                "not settled, for the gradient jumps: audit them in f64",
                &self.unsettled,
            ),
        ] {
            if !names.is_empty() {
                write!(f, "; {what}: {names:?}")?;
            }
        }
        Ok(())
    }
}

/// Finds what a program's derivatives have wrong, and names the variables: a gradient that is cut off
/// (none, though the loss depends on the variable), partly cut off or otherwise wrong, and a wrong
/// Hessian-vector product.
///
/// The loss is moved along random directions, of several variables at once, so that a right program
/// costs some 50 evaluations of the loss, whatever its size: seconds for BERT base. Only where
/// something is wrong is each variable looked at by itself. Any floating type will do: how far a
/// difference may be off is measured from the loss's own rounding. The variables have their old values
/// afterwards, and this crate's batch normalisations keep their running statistics
/// ([`crate::ops::vision::statistics_at_rest`]).
///
/// ```
/// use adahessian::{NamedVars, check};
/// use candle_core::{Device, Var};
/// let x = Var::new(&[0.3f32, -1.2], &Device::Cpu)?;
/// let vars = NamedVars::new([("x".to_string(), x.clone())])?;
/// println!("{}", check::audit(&vars, || Ok(x.sin()?.sqr()?.sum_all()?))?);
/// let cut = check::audit(&vars, || Ok((x.detach().sin()? + x.as_tensor())?.sqr()?.sum_all()?));
/// assert!(cut.unwrap_err().to_string().contains("the gradient of `x` is wrong"));
/// # Ok::<(), adahessian::Error>(())
/// ```
///
/// # Errors
/// [`Error::Audit`] with every finding, or if two calls of the loss give different values (fix the
/// dropout mask); the errors of the loss and of its backward passes.
pub fn audit(vars: &NamedVars, loss: impl Fn() -> Result<Tensor>) -> Result<Audit> {
    let vars = vars.trained();
    let count = std::cell::Cell::new(0);
    let counted = || {
        count.set(count.get() + 1);
        statistics_at_rest(&loss)
    };
    let value = scalar(&counted()?)?;
    if value.to_bits() != scalar(&counted()?)?.to_bits() {
        return Err(found(vec![
            "the loss gives different values at one point: fix the dropout mask (a function of seed and step), or \
             audit in evaluation mode"
                .into(),
        ]));
    }
    if !value.is_finite() {
        return Err(found(vec![format!("the loss is {value}")]));
    }
    let line = Line {
        vars: &vars,
        origin: vars.snapshot()?,
        loss: &counted,
    };
    let all = direction(&vars, &scales(&line.origin)?, 0, |_| true)?;
    let noise = line.noise(&all, value)?;
    let mut auditor = Auditor {
        scales: scales(&line.origin)?,
        hessian: Hessian::of(&counted()?, &vars)?,
        noise,
        findings: Vec::new(),
        audit: Audit {
            variables: vars.len(),
            rounding: noise / value.abs().max(f64::MIN_POSITIVE),
            ..Audit::default()
        },
        line,
    };
    auditor.cut()?;
    auditor.gradient()?;
    // Differences of a wrong gradient tell nothing about the product.
    if auditor.findings.is_empty() {
        auditor.product()?;
    }
    match auditor.findings.is_empty() {
        true => Ok(Audit {
            evaluations: count.get(),
            ..auditor.audit
        }),
        false => Err(found(auditor.findings)),
    }
}

fn found(findings: Vec<String>) -> Error {
    Error::Audit {
        findings: findings.join("; "),
    }
}

struct Auditor<'a, F> {
    line: Line<'a, F>,
    scales: Vec<f64>,
    hessian: Hessian,
    noise: f64,
    findings: Vec<String>,
    audit: Audit,
}

/// The share of the largest of a group below which variables go to the next group, where the large
/// ones do not hide them.
const GROUP: f64 = 1.0 / 8.0;
/// The last group takes what is left.
const GROUPS: usize = 5;
/// Directions for each group.
const SAMPLES: u32 = 2;
/// Step lengths to try, of [`Auditor::step`].
const STEPS: [f64; 4] = [1.0, 0.1, 0.01, 0.001];

impl<F: Fn() -> Result<Tensor>> Auditor<'_, F> {
    fn names(&self, indices: &[usize]) -> Vec<String> {
        let all: Vec<&str> = self.line.vars.names().collect();
        indices.iter().map(|&i| all[i].to_string()).collect()
    }

    fn direction(&self, indices: &[usize], sample: u32) -> Result<VarVec> {
        direction(self.line.vars, &self.scales, sample, |i| {
            indices.contains(&i)
        })
    }

    /// Step lengths that rounding allows: short ones where numbers are long.
    fn step(&self) -> f64 {
        (unit(self.line.vars) * 10.0).powf(0.3)
    }

    /// Variables without a gradient on which the loss depends all the same.
    fn cut(&mut self) -> Result<()> {
        let reached = self.hessian.reached();
        let without: Vec<usize> = (0..reached.len()).filter(|&i| !reached[i]).collect();
        let mut cut = Vec::new();
        self.search_cut(&without, &mut cut)?;
        let unused = without.iter().copied().filter(|i| !cut.contains(i));
        self.audit.unused = self.names(&unused.collect::<Vec<_>>());
        if !cut.is_empty() {
            self.findings.push(format!(
                "{:?} get no gradient, though the loss depends on them: an operation cuts the graph \
                 (docs/CANDLE_OPS.md lists which do)",
                self.names(&cut)
            ));
        }
        Ok(())
    }

    /// Halves the variables until each that moves the loss stands alone.
    fn search_cut(&self, indices: &[usize], cut: &mut Vec<usize>) -> Result<()> {
        if indices.is_empty() || !self.moves(indices)? {
            return Ok(());
        }
        if let [index] = indices {
            cut.push(*index);
            return Ok(());
        }
        let (left, right) = indices.split_at(indices.len() / 2);
        self.search_cut(left, cut)?;
        self.search_cut(right, cut)
    }

    /// Whether the loss changes when these variables do: by as much as they are large, for a variable may
    /// have little to say.
    fn moves(&self, indices: &[usize]) -> Result<bool> {
        for sample in 0..SAMPLES {
            let v = self.direction(indices, sample)?;
            let here = self.line.value(&v, 0.0)?;
            for t in [1.0, -1.0, 0.3] {
                let change = (self.line.value(&v, t)? - here).abs();
                if change > 10.0 * self.noise || change.is_nan() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The gradient along random directions of groups of variables that weigh alike.
    fn gradient(&mut self) -> Result<()> {
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

    /// A Hessian-vector product against differences of the gradient, at the step length where they
    /// agree best: the jumps of a ReLU's gradient are crossed by some steps and not by others.
    fn product(&mut self) -> Result<()> {
        let reached = self.hessian.reached();
        let v = direction(self.line.vars, &self.scales, 7, |_| true)?;
        let exact = self.hessian.product(&v)?;
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
            if product.right(largest) {
                let error =
                    product.difference / product.size.max(largest * FLOOR).max(f64::MIN_POSITIVE);
                self.audit.hessian_error = self.audit.hessian_error.max(error);
            } else if smooth {
                let error = product.difference / product.size;
                self.findings.push(format!(
                    "the Hessian-vector product of `{name}` is wrong (off by {error:.1e} of the larger of the two)"
                ));
            } else {
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
        let norm = |tensor: &Tensor| -> Result<f64> { Ok(sum_f64(&tensor.sqr()?)?.sqrt()) };
        let estimate = ((near * (4.0 / 3.0))? - (far * (1.0 / 3.0))?)?;
        let difference = norm(&(&estimate - exact)?)?;
        let doubt = norm(&(near - far)?)? + 32.0 * unit * self.norms[index] / self.t;
        let size = norm(exact)?.max(norm(&estimate)?);
        Ok(Product {
            difference,
            size,
            beyond: (difference - doubt).max(0.0) / size.max(f64::MIN_POSITIVE),
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

/// What a right product may be off, beyond doubt.
const TOLERANCE: f64 = 0.01;

impl Product {
    fn right(&self, largest: f64) -> bool {
        self.beyond * self.size <= TOLERANCE * self.size.max(largest * FLOOR)
    }
}

fn norms(vector: &VarVec) -> Result<Vec<f64>> {
    let norms = vector.tensors().iter();
    norms.map(|t| Ok(sum_f64(&t.sqr()?)?.sqrt())).collect()
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
