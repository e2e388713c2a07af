//! Adagrad and RMSProp: the gradient over the root of its squares, summed or averaged; composed and
//! entry by entry.

use crate::error::Result;
use crate::numeric::Real;
use crate::optim::group::{fraction, not_negative};
use crate::optim::in_place::{Clip, Entry, update};
use crate::optim::rules::{self, InPlace, Rule, Update, blend};
use crate::optim::rules_in_place::{moved, with_l2};
use candle_core::{DType, Tensor};

/// Adagrad (Duchi et al. 2011): s = s + g²; θ = θ - η g / (sqrt(s) + eps), L2 decay.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Self { eps: 1e-10 }
    }
}

impl Rule for Adagrad {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn slots(&self) -> Vec<&'static str> {
        vec!["sum_gradient_sq"]
    }

    fn check(&self) -> Result<()> {
        not_negative("eps", self.eps)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let gradient = rules::with_l2(&u)?;
        u.slots[0] = (&u.slots[0] + gradient.sqr()?)?;
        let scaled = (gradient / (u.slots[0].sqrt()? + self.eps)?)?;
        Ok((u.value - (scaled * u.lr)?)?)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        let sum = Squares {
            keep: 1.0,
            add: 1.0,
            eps: self.eps,
            momentum: 0.0,
        };
        step(sum, u)
    }
}

/// RMSProp (Hinton 2012), PyTorch's form: s = α s + (1-α) g²; d = g / (sqrt(s) + eps);
/// with momentum b = μ b + d; θ = θ - η b. L2 decay.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// α, the decay of the mean of squares.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// μ.
    pub momentum: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            alpha: 0.99,
            eps: 1e-8,
            momentum: 0.0,
        }
    }
}

impl Rule for RmsProp {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn slots(&self) -> Vec<&'static str> {
        match self.momentum == 0.0 {
            true => vec!["mean_gradient_sq"],
            false => vec!["mean_gradient_sq", "momentum"],
        }
    }

    fn check(&self) -> Result<()> {
        fraction("alpha", self.alpha)?;
        fraction("momentum", self.momentum)?;
        not_negative("eps", self.eps)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let gradient = rules::with_l2(&u)?;
        u.slots[0] = blend(&u.slots[0], self.alpha, &gradient.sqr()?, 1.0 - self.alpha)?;
        let mut direction = (gradient / (u.slots[0].sqrt()? + self.eps)?)?;
        if let Some(buffer) = u.slots.get_mut(1) {
            *buffer = ((&*buffer * self.momentum)? + direction)?;
            direction = buffer.clone();
        }
        Ok((u.value - (direction * u.lr)?)?)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        let mean = Squares {
            keep: self.alpha,
            add: 1.0 - self.alpha,
            eps: self.eps,
            momentum: self.momentum,
        };
        step(mean, u)
    }
}

/// s = keep·s + add·g², d = g / (sqrt(s) + eps), and with momentum b = μ b + d.
#[derive(Clone, Copy)]
struct Squares {
    /// 1 for Adagrad's sum, α for RMSProp's mean.
    keep: f64,
    /// 1 or 1-α.
    add: f64,
    eps: f64,
    /// μ, used where there is a slot for b.
    momentum: f64,
}

#[derive(Clone, Copy)]
struct SquaresEntry<T> {
    clip: Clip<T>,
    l2: Option<T>,
    keep: T,
    add: T,
    eps: T,
    momentum: T,
    lr: T,
}

impl<T: Real> SquaresEntry<T> {
    /// s and d.
    #[inline(always)]
    fn next(&self, value: T, squares: T, gradient: T) -> (T, T) {
        let gradient = with_l2(self.clip.of(gradient), value, self.l2);
        let squares = squares * self.keep + gradient * gradient * self.add;
        (squares, gradient / (squares.sqrt() + self.eps))
    }
}

impl<T: Real> Entry<T, 2, 1> for SquaresEntry<T> {
    #[inline(always)]
    fn entry(&self, [value, squares]: [T; 2], [gradient]: [T; 1]) -> ([T; 2], [T; 2]) {
        let (squares, direction) = self.next(value, squares, gradient);
        let (new, terms) = moved(value, value - direction * self.lr);
        ([new, squares], terms)
    }
}

impl<T: Real> Entry<T, 3, 1> for SquaresEntry<T> {
    #[inline(always)]
    fn entry(&self, [value, squares, buffer]: [T; 3], [gradient]: [T; 1]) -> ([T; 3], [T; 2]) {
        let (squares, direction) = self.next(value, squares, gradient);
        let buffer = buffer * self.momentum + direction;
        let (new, terms) = moved(value, value - buffer * self.lr);
        ([new, squares, buffer], terms)
    }
}

fn step(rule: Squares, u: &InPlace<'_>) -> Result<Option<f64>> {
    match u.value.dtype() {
        DType::F32 => step_of::<f32>(rule, u),
        DType::F64 => step_of::<f64>(rule, u),
        _ => Ok(None),
    }
}

fn step_of<T: Real>(rule: Squares, u: &InPlace<'_>) -> Result<Option<f64>> {
    let entry = SquaresEntry::<T> {
        clip: u.clipping.of(),
        l2: (u.weight_decay != 0.0).then(|| T::from_f64(u.weight_decay)),
        keep: T::from_f64(rule.keep),
        add: T::from_f64(rule.add),
        eps: T::from_f64(rule.eps),
        momentum: T::from_f64(rule.momentum),
        lr: T::from_f64(u.lr),
    };
    let sums = match u.slots {
        [squares] => update([u.value, squares], [u.gradient], entry)?,
        [squares, buffer] => update([u.value, squares, buffer], [u.gradient], entry)?,
        _ => None,
    };
    Ok(sums.map(|[change, _]| change))
}
