//! All that can be wrong with a program's derivatives, in one call.

mod gradient;
mod product;

use super::line::{Line, direction, scales, unit};
use super::scalar;
use crate::curvature::hessian::Hessian;
use crate::error::{Error, Result};
use crate::ops::statistics_at_rest;
use crate::vars::{NamedVars, VarVec};
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
/// (none, though the loss depends on the variable), partly cut off or otherwise wrong, a wrong
/// Hessian-vector product, and either with entries that are not finite.
///
/// The loss is moved along random directions, of several variables at once, so that a right program
/// costs some hundred evaluations of the loss, whatever its size: give it a few examples. Only where
/// something is wrong is each variable looked at by itself. Any floating type will do: how far a
/// difference may be off is measured from the loss's own rounding. The variables have their old values
/// afterwards, and this crate's batch normalisations keep their running statistics
/// ([`crate::ops::statistics_at_rest`]).
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
}
