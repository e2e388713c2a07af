//! The loss along lines through the variables' values, and what its rounding amounts to.

use super::scalar;
use crate::error::Result;
use crate::numeric::in_place::{Entry, update};
use crate::numeric::{ByType, Real, by_type, precision, sum_f64};
use crate::random::Stream;
use crate::second_order::versions;
use crate::vars::{NamedVars, VarVec};
use candle_core::{DType, Tensor, Var};

/// The loss as a function of the variables, which have their old values after every call.
pub(super) struct Line<'a, F> {
    pub vars: &'a NamedVars,
    pub origin: VarVec,
    pub loss: &'a F,
}

/// A derivative along a line, by differences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    pub value: f64,
    /// How far it may be off: what differences at two step lengths and the rounding of the loss say.
    pub doubt: f64,
}

impl<F: Fn() -> Result<Tensor>> Line<'_, F> {
    /// What `work` gives at θ + t v.
    pub fn at<R>(&self, v: &VarVec, t: f64, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let leave = || {
            let places = self.origin.tensors().iter().zip(v.tensors());
            let mut all = self.vars.iter().zip(places);
            all.try_for_each(|((_, var), (origin, v))| go(var, origin, v, t))
        };
        self.vars.elsewhere(&self.origin, leave, work)
    }

    /// L(θ + t v).
    pub fn value(&self, v: &VarVec, t: f64) -> Result<f64> {
        self.at(v, t, || scalar(&(self.loss)()?))
    }

    /// dL/dt at 0 along v: central differences at t and 2t, whose errors of order t² cancel.
    pub fn slope(&self, v: &VarVec, t: f64, noise: f64) -> Result<Slope> {
        let near = (self.value(v, t)? - self.value(v, -t)?) / (2.0 * t);
        let far = (self.value(v, 2.0 * t)? - self.value(v, -2.0 * t)?) / (4.0 * t);
        Ok(Slope {
            value: (4.0 * near - far) / 3.0,
            doubt: (near - far).abs() + NOISES * noise / t,
        })
    }

    /// The standard deviation of the rounding of the loss: from its fourth differences over steps of
    /// a few units in the last place, where a smooth function would not change (Moré and Wild 2011).
    pub fn noise(&self, v: &VarVec, value: f64) -> Result<f64> {
        let unit = unit(self.vars);
        let mut values = Vec::with_capacity(POINTS);
        for point in 0..POINTS {
            values.push(self.value(v, point as f64 * 4.0 * unit)?);
        }
        for _ in 0..4 {
            values = values.windows(2).map(|w| w[1] - w[0]).collect();
        }
        let squares: f64 = values.iter().map(|d| d * d).sum();
        // The variance of a fourth difference of independent numbers is 70 times theirs.
        let measured = (squares / (70.0 * values.len() as f64)).sqrt();
        Ok(measured.max(unit * value.abs()))
    }
}

/// θ + t v, entry by entry.
#[derive(Clone, Copy)]
struct Along<T>(T);

impl<T: Real> Entry<T, 1, 2> for Along<T> {
    #[inline(always)]
    fn entry(&self, _: [T; 1], [origin, v]: [T; 2]) -> ([T; 1], [T; 2]) {
        ([origin + v * self.0], [T::ZERO; 2])
    }
}

/// Sets a variable to θ + t v: in one pass where that can be, since this is what an audit of a large
/// model spends its time with.
fn go(var: &Var, origin: &Tensor, v: &Tensor, t: f64) -> Result<()> {
    let value = var.as_detached_tensor();
    versions::changed(var);
    let moved = Moved(&value, origin, v, t);
    match by_type(var.dtype(), moved)? {
        Some(_) => Ok(()),
        None => Ok(versions::set(var, &(origin + (v * t)?)?)?),
    }
}

struct Moved<'a>(&'a Tensor, &'a Tensor, &'a Tensor, f64);

impl ByType for Moved<'_> {
    type Output = [f64; 2];

    fn run<T: Real>(self) -> Result<Option<[f64; 2]>> {
        let Self(value, origin, v, t) = self;
        update([value], [origin, v], Along(T::from_f64(t)))
    }
}

/// Rounding counts so many times its standard deviation.
const NOISES: f64 = 6.0;

/// Points of the estimate of the rounding.
const POINTS: usize = 9;

/// The unit of the last place of the coarsest variable.
pub(super) fn unit(vars: &NamedVars) -> f64 {
    let units = vars.iter().map(|(_, var)| precision(var.dtype()));
    units.fold(f64::EPSILON, f64::max)
}

/// How far each variable is moved by a step of 1: the root mean square of its entries, but not so
/// little that a bias of zeros stands still.
pub(super) fn scales(origin: &VarVec) -> Result<Vec<f64>> {
    let rms = |tensor: &Tensor| -> Result<f64> {
        let count = tensor.elem_count().max(1) as f64;
        let squares = sum_f64(&tensor.to_dtype(DType::F32)?.sqr()?)?;
        Ok((squares / count).sqrt().clamp(0.02, 1.0))
    };
    origin.tensors().iter().map(rms).collect()
}

/// Random signs times the scale for the variables that `moves` marks, zero for the others.
pub(super) fn direction(
    vars: &NamedVars,
    scales: &[f64],
    sample: u32,
    moves: impl Fn(usize) -> bool,
) -> Result<VarVec> {
    let mut tensors = Vec::with_capacity(vars.len());
    for (index, (name, var)) in vars.iter().enumerate() {
        tensors.push(match moves(index) {
            true => {
                let stream = Stream::new(0, &format!("audit/{name}"), 0, sample);
                let signs = stream.rademacher_tensor(var.dims(), var.dtype(), var.device())?;
                (signs * scales[index])?
            }
            false => var.zeros_like()?.detach(),
        });
    }
    VarVec::new(vars, tensors)
}
