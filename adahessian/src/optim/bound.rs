//! A bound on how far one step moves a variable, relative to the variable itself.

use super::group::{not_negative, positive};
use super::pass::{Later, Outcome};
use crate::error::Result;
use crate::numeric::in_place::{pull_back, squares_of};
use crate::numeric::{Buffer, Real, sum_f64, total_on_device};
use candle_core::{DType, Tensor};

/// A bound on the step Δ of each variable θ, whatever the rule:
///
/// ```text
/// Δ ← Δ · min(1, τ · f · max(RMS(θ), floor) / RMS(Δ))
/// ```
///
/// RMS is the root of the mean of the squares of all entries, f the rate in force over the one that the optimizer was built with (a
/// schedule's factor) times that of the variable's group ([`crate::Group::lr_scale`]), Δ the whole change, weight decay included. It is LARC
/// (You et al. 2017) in its clipping form, with the length of the step in the place of the gradient's,
/// and Adafactor's relative step (Shazeer and Stern 2018) as a limit.
///
/// A step of second order divides by an estimate; where that comes out near zero, or the rate is too high,
/// nothing else keeps the step within what the quadratic model says anything about. The running
/// quantities do not feel the bound. Tables that are sparse are not bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepBound {
    /// τ: the largest change of a variable in one step, relative to it.
    pub relative: f64,
    /// The least RMS(θ) that is reckoned with, for variables that start at zero.
    pub floor: f64,
}

impl StepBound {
    /// The bound τ, with the floor 1e-3.
    pub fn new(relative: f64) -> Self {
        Self {
            relative,
            floor: 1e-3,
        }
    }

    /// The bound under which a whole run moves no variable by more than about `share` of it, times its group's factor: τ =
    /// share / Σ f, with the sum of the factors of all its steps ([`crate::Schedule::sum`]).
    ///
    /// A bound of each step that keeps a pretrained network in a short run does not in a longer one: MiniLM was kept by a
    /// share of a sixteenth in 63 steps and in 250, and lost with an eighth. Over thousands of steps, many of which undo
    /// each other, the share can be larger: it bounds the path, and the distance from the start is shorter.
    ///
    /// ```
    /// use adahessian::{AdaHessian, Rule, Schedule, StepBound};
    /// # let vars: Vec<candle_core::Var> = Vec::new();
    /// let steps = 250;
    /// let bound = StepBound::of_run(0.06, Schedule::Linear.sum(steps));
    /// let optimizer = AdaHessian::default().lr(1e-2).bound(bound).build(vars)?;
    /// # Ok::<(), adahessian::Error>(())
    /// ```
    pub fn of_run(share: f64, factors: f64) -> Self {
        Self::new(share / factors)
    }

    pub(super) fn check(&self) -> Result<()> {
        positive("bound of the step", self.relative)?;
        not_negative("floor of the step's bound", self.floor)
    }

    /// The bound with the schedule's and the group's factors in it.
    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            relative: self.relative * factor,
            ..self
        }
    }

    /// What is left of a change: 1 where the bound does not bind, nor where something is not a number; 0 of an endless one.
    pub(super) fn share(&self, change_squared: f64, value_squared: f64, count: usize) -> f64 {
        let count = count as f64;
        let most = self.relative * (value_squared / count).sqrt().max(self.floor);
        let change = (change_squared / count).sqrt();
        match change > most {
            true => most / change,
            false => 1.0,
        }
    }
}

/// τ, with the floor of [`StepBound::new`].
impl From<f64> for StepBound {
    fn from(relative: f64) -> Self {
        Self::new(relative)
    }
}

/// Updates the variable, which is the first of `changed`, and takes back what is too much of it.
pub(super) fn within<T: Real, const N: usize>(
    bound: Option<StepBound>,
    mut changed: [&mut [T]; N],
    update: impl FnOnce([&mut [T]; N]) -> Outcome,
) -> Outcome {
    let Some(bound) = bound else {
        return update(changed);
    };
    let old = Buffer::copy_of(changed[0]);
    let mut outcome = update(changed.each_mut().map(|slice| &mut **slice));
    let value = &mut *changed[0];
    if outcome.change_squared.is_infinite() {
        // Squares beyond the range of f32.
        let pairs = value.iter().zip(&*old);
        let changes = pairs.map(|(new, old)| (new.to_f64() - old.to_f64()).powi(2));
        outcome.change_squared = changes.sum();
    }
    let share = bound.share(outcome.change_squared, squares_of(&old), old.len());
    if share < 1.0 {
        outcome.change_squared = pull_back(value, &old, share);
        outcome.bounded = 1;
    }
    outcome
}

/// The same of candle's operations: the value that takes the new one's place, and how many variables were
/// bounded.
pub(super) fn composed(
    bound: Option<StepBound>,
    old: &Tensor,
    new: Tensor,
) -> Result<(Tensor, usize)> {
    let Some(bound) = bound else {
        return Ok((new, 0));
    };
    let change = (&new - old)?;
    let squares = |t: &Tensor| sum_f64(&t.to_dtype(DType::F64)?.sqr()?);
    let [changed, value] = [&change, old].map(squares);
    let share = bound.share(changed?, value?, old.elem_count());
    match share {
        // An endless change.
        0.0 => Ok((old.copy()?, 1)),
        share if share < 1.0 => Ok(((old + (change * share)?)?, 1)),
        _ => Ok((new, 0)),
    }
}

/// The same for many variables of one device and type, without a look at them: `new` takes in what is left of each
/// change.
pub(super) fn each(
    bound: StepBound,
    old: &[Tensor],
    new: &mut [Tensor],
    later: &mut Later,
) -> Result<()> {
    let (mut changes, mut changed, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (old, new) in old.iter().zip(&*new) {
        let change = (new - old)?;
        changed.push(squares(&change)?);
        values.push(squares(old)?);
        changes.push(change);
    }
    let counts: Vec<f64> = old.iter().map(|old| old.elem_count() as f64).collect();
    let counts = Tensor::new(counts, old[0].device())?;
    let changed = Tensor::cat(&changed, 0)?;
    let most = (Tensor::cat(&values, 0)? / &counts)?.sqrt()?;
    let most = (most.maximum(bound.floor)? * bound.relative)?;
    let change = (&changed / counts)?.sqrt()?;
    let binds = change.gt(&most)?;
    let share = binds.where_cond(&(most / change)?, &changed.ones_like()?)?;
    // Endless changes, of which nothing is left.
    let lost = share.eq(0f64)?;
    let left = lost.where_cond(&changed.zeros_like()?, &(&changed * share.sqr()?)?)?;
    later.add(&left, |to, sum| to.change_squared += sum)?;
    later.add(&binds.to_dtype(DType::F64)?, |to, sum| {
        to.bounded += sum as usize
    })?;

    let share = share.to_dtype(old[0].dtype())?;
    for (i, ((old, new), change)) in old.iter().zip(new).zip(changes).enumerate() {
        let one = |x: &Tensor| -> candle_core::Result<Tensor> {
            x.narrow(0, i, 1)?.reshape(vec![1; old.rank()])
        };
        let all = |x: &Tensor| one(x)?.broadcast_as(old.shape());
        let left = (old + change.broadcast_mul(&one(&share)?)?)?;
        let left = all(&lost)?.where_cond(old, &left)?;
        // Where the bound does not bind the new value stays as it is, to the last bit.
        *new = all(&binds)?.where_cond(&left, new)?;
    }
    Ok(())
}

/// The sum of squares in f64, on the tensor's device: [1].
fn squares(x: &Tensor) -> Result<Tensor> {
    total_on_device(&x.to_dtype(DType::F64)?.sqr()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Of an endless change nothing is left, of a long one the bound, of a short one all of it.
    #[test]
    fn many_variables_at_once() {
        let tensor = |x: [f32; 2]| Tensor::new(&x, &Device::Cpu).unwrap();
        let old = [[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]].map(tensor);
        let mut new = [[f32::NEG_INFINITY, -1.1], [3.0, -3.0], [1.001, -1.0]].map(tensor);
        let mut later = Later::default();
        each(StepBound::new(0.5), &old, &mut new, &mut later).unwrap();
        let left = new.each_ref().map(|x| x.to_vec1::<f32>().unwrap());
        assert_eq!(left, [[1.0, -1.0], [1.5, -1.5], [1.001, -1.0]]);
        let mut outcome = Outcome::default();
        later.settle(&mut outcome).unwrap();
        assert_eq!(outcome.bounded, 2);
        assert!(
            (outcome.change_squared - 0.500_001).abs() < 1e-6,
            "{}",
            outcome.change_squared
        );
    }
}
