//! The first-order rules entry by entry: the arithmetic of [`crate::optim::rules`], in its order.

use crate::error::Result;
use crate::numeric::Real;
use crate::optim::in_place::{Clip, Entry, update};
use crate::optim::rules::{InPlace, Lamb, Sgd};
use candle_core::DType;

/// What weight decay does.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Decay {
    /// It adds λθ to the gradient.
    L2,
    /// It shrinks θ.
    Decoupled,
}

#[derive(Clone, Copy)]
struct SgdEntry<T> {
    clip: Clip<T>,
    decay: Option<T>,
    momentum: T,
    nesterov: bool,
    lr: T,
}

impl<T: Real> SgdEntry<T> {
    fn new(rule: &Sgd, u: &InPlace<'_>) -> Self {
        Self {
            clip: u.clipping.of(),
            decay: (u.weight_decay != 0.0).then(|| T::from_f64(u.weight_decay)),
            momentum: T::from_f64(rule.momentum),
            nesterov: rule.nesterov,
            lr: T::from_f64(u.lr),
        }
    }
}

/// g + λθ.
#[inline(always)]
pub(super) fn with_l2<T: Real>(gradient: T, value: T, decay: Option<T>) -> T {
    match decay {
        Some(decay) => gradient + value * decay,
        None => gradient,
    }
}

/// The new value, its change squared among the terms.
#[inline(always)]
pub(super) fn moved<T: Real>(old: T, new: T) -> (T, [T; 2]) {
    let change = new - old;
    (new, [change * change, T::ZERO])
}

impl<T: Real> Entry<T, 1, 1> for SgdEntry<T> {
    #[inline(always)]
    fn entry(&self, [value]: [T; 1], [gradient]: [T; 1]) -> ([T; 1], [T; 2]) {
        let gradient = with_l2(self.clip.of(gradient), value, self.decay);
        let (new, terms) = moved(value, value - gradient * self.lr);
        ([new], terms)
    }
}

impl<T: Real> Entry<T, 2, 1> for SgdEntry<T> {
    #[inline(always)]
    fn entry(&self, [value, buffer]: [T; 2], [gradient]: [T; 1]) -> ([T; 2], [T; 2]) {
        let gradient = with_l2(self.clip.of(gradient), value, self.decay);
        let buffer = buffer * self.momentum + gradient;
        let direction = match self.nesterov {
            true => gradient + buffer * self.momentum,
            false => buffer,
        };
        let (new, terms) = moved(value, value - direction * self.lr);
        ([new, buffer], terms)
    }
}

pub(super) fn sgd(rule: &Sgd, u: &InPlace<'_>) -> Result<Option<f64>> {
    match u.value.dtype() {
        DType::F32 => sgd_of::<f32>(rule, u),
        DType::F64 => sgd_of::<f64>(rule, u),
        _ => Ok(None),
    }
}

fn sgd_of<T: Real>(rule: &Sgd, u: &InPlace<'_>) -> Result<Option<f64>> {
    let entry = SgdEntry::<T>::new(rule, u);
    let sums = match u.slots {
        [] => update([u.value], [u.gradient], entry)?,
        [buffer, ..] => update([u.value, buffer], [u.gradient], entry)?,
    };
    Ok(sums.map(|[change, _]| change))
}

/// m and v of Adam, and the direction m̂ / (sqrt(v̂) + eps).
#[derive(Clone, Copy)]
struct Moments<T> {
    clip: Clip<T>,
    /// (β, 1-β) of both.
    mean: (T, T),
    square: (T, T),
    /// 1 / (1-βᵗ) of both.
    corrections: (T, T),
    eps: T,
}

impl<T: Real> Moments<T> {
    fn new(betas: (f64, f64), eps: f64, u: &InPlace<'_>) -> Self {
        let pair = |beta: f64| (T::from_f64(beta), T::from_f64(1.0 - beta));
        let correction = |beta: f64| T::from_f64(1.0 / (1.0 - beta.powi(u.count as i32)));
        Self {
            clip: u.clipping.of(),
            mean: pair(betas.0),
            square: pair(betas.1),
            corrections: (correction(betas.0), correction(betas.1)),
            eps: T::from_f64(eps),
        }
    }

    #[inline(always)]
    fn next(&self, mean: T, square: T, gradient: T) -> (T, T) {
        let mean = mean * self.mean.0 + gradient * self.mean.1;
        let square = square * self.square.0 + gradient * gradient * self.square.1;
        (mean, square)
    }

    #[inline(always)]
    fn direction(&self, mean: T, square: T) -> T {
        let root = (square * self.corrections.1).sqrt();
        mean * self.corrections.0 / (root + self.eps)
    }
}

#[derive(Clone, Copy)]
struct AdamEntry<T> {
    moments: Moments<T>,
    /// λ where it is added to the gradient.
    l2: Option<T>,
    /// 1 - ηλ where it shrinks the value.
    shrink: Option<T>,
    lr: T,
}

impl<T: Real> Entry<T, 3, 1> for AdamEntry<T> {
    #[inline(always)]
    fn entry(&self, [value, mean, square]: [T; 3], [gradient]: [T; 1]) -> ([T; 3], [T; 2]) {
        let gradient = with_l2(self.moments.clip.of(gradient), value, self.l2);
        let (mean, square) = self.moments.next(mean, square, gradient);
        let step = self.moments.direction(mean, square) * self.lr;
        let kept = match self.shrink {
            Some(shrink) => value * shrink,
            None => value,
        };
        let (new, terms) = moved(value, kept - step);
        ([new, mean, square], terms)
    }
}

pub(super) fn adam(
    betas: (f64, f64),
    eps: f64,
    decay: Decay,
    u: &InPlace<'_>,
) -> Result<Option<f64>> {
    match u.value.dtype() {
        DType::F32 => adam_of::<f32>(betas, eps, decay, u),
        DType::F64 => adam_of::<f64>(betas, eps, decay, u),
        _ => Ok(None),
    }
}

fn adam_of<T: Real>(
    betas: (f64, f64),
    eps: f64,
    decay: Decay,
    u: &InPlace<'_>,
) -> Result<Option<f64>> {
    let [mean, square] = u.slots else {
        return Ok(None);
    };
    let entry = AdamEntry::<T> {
        moments: Moments::new(betas, eps, u),
        l2: (decay == Decay::L2 && u.weight_decay != 0.0).then(|| T::from_f64(u.weight_decay)),
        shrink: (decay == Decay::Decoupled).then(|| T::from_f64(1.0 - u.lr * u.weight_decay)),
        lr: T::from_f64(u.lr),
    };
    let sums = update([u.value, mean, square], [u.gradient], entry)?;
    Ok(sums.map(|[change, _]| change))
}

/// The first pass of LAMB: m and v, and the norms of θ and of r.
#[derive(Clone, Copy)]
struct LambNorms<T> {
    moments: Moments<T>,
    decay: T,
}

impl<T: Real> LambNorms<T> {
    #[inline(always)]
    fn direction(&self, value: T, mean: T, square: T) -> T {
        self.moments.direction(mean, square) + value * self.decay
    }
}

impl<T: Real> Entry<T, 2, 2> for LambNorms<T> {
    #[inline(always)]
    fn entry(&self, [mean, square]: [T; 2], [gradient, value]: [T; 2]) -> ([T; 2], [T; 2]) {
        let gradient = self.moments.clip.of(gradient);
        let (mean, square) = self.moments.next(mean, square, gradient);
        let direction = self.direction(value, mean, square);
        ([mean, square], [value * value, direction * direction])
    }
}

/// The second: θ - η r · trust.
#[derive(Clone, Copy)]
struct LambStep<T> {
    norms: LambNorms<T>,
    rate: T,
}

impl<T: Real> Entry<T, 1, 2> for LambStep<T> {
    #[inline(always)]
    fn entry(&self, [value]: [T; 1], [mean, square]: [T; 2]) -> ([T; 1], [T; 2]) {
        let direction = self.norms.direction(value, mean, square);
        let (new, terms) = moved(value, value - direction * self.rate);
        ([new], terms)
    }
}

pub(super) fn lamb(rule: &Lamb, u: &InPlace<'_>) -> Result<Option<f64>> {
    match u.value.dtype() {
        DType::F32 => lamb_of::<f32>(rule, u),
        DType::F64 => lamb_of::<f64>(rule, u),
        _ => Ok(None),
    }
}

fn lamb_of<T: Real>(rule: &Lamb, u: &InPlace<'_>) -> Result<Option<f64>> {
    let [mean, square] = u.slots else {
        return Ok(None);
    };
    let norms = LambNorms::<T> {
        moments: Moments::new(rule.betas, rule.eps, u),
        decay: T::from_f64(u.weight_decay),
    };
    let Some([value_sq, direction_sq]) = update([mean, square], [u.gradient, u.value], norms)?
    else {
        return Ok(None);
    };
    let rate = T::from_f64(u.lr * rule.trust(value_sq.sqrt(), direction_sq.sqrt()));
    let sums = update([u.value], [mean, square], LambStep { norms, rate })?;
    Ok(sums.map(|[change, _]| change))
}
