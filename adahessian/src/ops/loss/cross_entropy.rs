//! Softmax cross entropy as one operation that keeps no copy of the logits.
//!
//! With p = softmax l of a row, q its target distribution and w its weight:
//! ```text
//! F:   L = Σ w (log Σ eˡ - ⟨q, l⟩)
//! A:   gl = g w (p - q)
//! ∂A:  ḡ = Σ w ⟨v, p - q⟩
//! ∂F:  l̄ = L̄ w (p - q) + g w p (v - ⟨v, p⟩)
//! ```

use super::targets::{Targets, distribution, read_targets};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Handle, Kernel, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Real, each_row, largest, rows_in_piece, sums, widened};
use candle_core::{D, Tensor};

/// The mean over the counted rows of -Σ_c q_c log softmax(logits)_c, where q puts 1 - s on the
/// target and spreads s evenly over all C classes (s = `label_smoothing`; 0 is the plain loss).
///
/// `logits` are [.., C] and `targets` `[..]` of an integer dtype, a class for each row of logits: [N, C] and `[N]`, or
/// [B, T, C] and [B, T] of sequences, which need no reshaping. Rows whose target is `ignore_index` are not counted. The
/// result is a scalar in the logits' dtype. The targets are read on the CPU, where they usually come from; from a GPU
/// they are copied, which waits for it.
///
/// Where it is composed, it is log Σ eˡ less the logits times a constant distribution, because `gather`
/// (in `candle_nn::loss`) fails or is silently wrong at second order as soon as something non-linear
/// follows. The largest logit of a row is taken from all of them as a constant, which changes no
/// derivative: as a function (in `candle_nn::ops::log_softmax`) its own are sums of cancelling terms, and
/// their rounding is twenty times all other in a Hessian over thousands of classes.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or dtypes that do not fit, a target that is no class (it
/// says in which row), no counted row at all, and smoothing outside [0, 1]; candle's errors.
pub fn cross_entropy<X: Operand>(
    logits: &X,
    targets: &Tensor,
    label_smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<X> {
    X::of(on(logits, targets, label_smoothing, ignore_index)?)
}

fn on(
    logits: &dyn Operand,
    targets: &Tensor,
    label_smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<Handle> {
    let targets = read_targets(logits.dims(), targets, label_smoothing, ignore_index)?;
    let classes = logits.dims().last().copied().unwrap_or(0);
    call(CrossEntropy { classes, targets }, &[logits])
}

pub(super) struct CrossEntropy {
    pub(super) classes: usize,
    pub(super) targets: Targets,
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross entropy"
    }

    fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![])
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let logits = match inputs[0].rank() {
            2 => inputs[0].clone(),
            _ => inputs[0].reshape(((), self.classes))?,
        };
        // Half precision stops adding at 256 (bf16), of a thousand classes at a quarter.
        let dtype = logits.dtype();
        let logits = &self.targets.counted(&widened(&logits)?)?;
        let [q, weights] = distribution(&self.targets, logits)?;
        let largest = logits.detach().max_keepdim(D::Minus1)?;
        let rest = logits.broadcast_sub(&largest)?;
        let norms = rest.exp()?.sum_keepdim(D::Minus1)?.log()?; // [N, 1]
        // The largest logit is in neither term: what all have in common costs no digits.
        // Of a class that is ruled out, by a logit of -∞, 0 is taken, and not 0 · ∞.
        let products = (&rest * &q)?;
        let products = q.eq(0.0)?.where_cond(&products.zeros_like()?, &products)?;
        let loss = ((norms * weights)?.sum_all()? - products.sum_all()?)?;
        Ok(loss.to_dtype(dtype)?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

/// One row's target distribution: `even` for every class and `more` for one.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    pub even: T,
    pub more: T,
    pub class: usize,
}

impl CrossEntropy {
    /// The row's distribution times its weight, and the weight; `None` where it is not counted.
    pub(super) fn row<T: Real>(&self, row: usize) -> Option<(Row<T>, T)> {
        let class = self.targets.classes[row]?;
        let Targets {
            weight, smoothing, ..
        } = self.targets;
        let row = Row {
            even: T::from_f64(weight * smoothing / self.classes as f64),
            more: T::from_f64(weight * (1.0 - smoothing)),
            class,
        };
        Some((row, T::from_f64(weight)))
    }

    /// log Σ eˡ of a row, and its part of the loss; 0 where it is not counted.
    pub(super) fn loss_of<T: Real>(&self, row: usize, l: &[T]) -> (Norm<T>, f64) {
        let (largest, rest) = simd::run(LogSumExp(l));
        let norm = Norm { largest, rest };
        let Some((q, weight)) = self.row::<T>(row) else {
            return (norm, 0.0);
        };
        let even = match q.even == T::ZERO {
            true => T::ZERO,
            false => q.even * sums([l], |[l]| [l - largest])[0],
        };
        // The largest logit is in neither term: what all have in common costs no digits.
        let term = weight * rest - even - q.more * (l[q.class] - largest);
        (norm, term.to_f64())
    }

    /// w ⟨x, p - q⟩ of a row.
    fn along<T: Real>(&self, row: usize, logits: &[T], norm: Norm<T>, x: &[T]) -> f64 {
        let Some((q, weight)) = self.row::<T>(row) else {
            return 0.0;
        };
        let Dots { by_p, sum } = simd::run(Dot { logits, norm, x });
        (weight * by_p - q.even * sum - q.more * x[q.class]).to_f64()
    }
}

/// log Σ eˡ of a row in two parts, whose sum would lose the digits of the second where the first is large.
#[derive(Clone, Copy)]
pub(super) struct Norm<T> {
    /// The largest l.
    largest: T,
    /// log Σ e^(l - largest).
    rest: T,
}

impl<T: Real> Norm<T> {
    /// Both parts.
    pub fn parts(self) -> [T; 2] {
        [self.largest, self.rest]
    }

    /// Of a row, from the norms of all.
    pub fn of(all: &[T], row: usize) -> Self {
        Self {
            largest: all[2 * row],
            rest: all[2 * row + 1],
        }
    }

    /// p of a logit.
    #[inline(always)]
    pub fn share(self, l: T) -> T {
        (l - self.largest - self.rest).exp()
    }
}

/// log Σ eˡ of a row, as the largest l and the logarithm of Σ e^(l - largest).
struct LogSumExp<'a, T>(&'a [T]);

impl<T: Real> Task<T> for LogSumExp<'_, T> {
    type Output = (T, T);

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> (T, T) {
        let largest = largest(self.0);
        let [sum] = sums([self.0], |[x]| [(x - largest).exp()]);
        (largest, T::from_f64(sum.to_f64().ln()))
    }
}

struct Dot<'a, T> {
    logits: &'a [T],
    norm: Norm<T>,
    x: &'a [T],
}

/// ⟨x, p⟩ and Σ x.
struct Dots<T> {
    by_p: T,
    sum: T,
}

impl<T: Real> Task<T> for Dot<'_, T> {
    type Output = Dots<T>;

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> Dots<T> {
        let norm = self.norm;
        let [by_p, sum] = sums([self.logits, self.x], |[l, x]| [norm.share(l) * x, x]);
        Dots { by_p, sum }
    }
}

/// One row of l̄.
struct Backward<'a, T> {
    logits: &'a [T],
    norm: Norm<T>,
    q: Row<T>,
    /// L̄, and w.
    cotangent: T,
    weight: T,
    /// g w, v and ⟨v, p⟩ of the second pass.
    second: Option<(T, &'a [T], T)>,
    to: &'a mut [T],
}

impl<T: Real> Task<T> for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let (scale, even) = (self.cotangent * self.weight, self.cotangent * self.q.even);
        let entries = self.to.iter_mut().zip(self.logits);
        match self.second {
            None => entries.for_each(|(to, &l)| *to = self.norm.share(l) * scale - even),
            Some((factor, v, along)) => entries.zip(v).for_each(|((to, &l), &v)| {
                let p = self.norm.share(l);
                *to = p * (scale + factor * (v - along)) - even;
            }),
        }
        self.to[self.q.class] -= self.cotangent * self.q.more;
    }
}

/// g and v.
pub(super) struct Left<T: Real> {
    gradient: T,
    v: Option<Array<T>>,
}

impl<T: Real> Kernel<Cpu<T>> for CrossEntropy {
    /// log Σ eˡ of every row, in two parts.
    type Saved = Buffer<T>;
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Buffer<T>)> {
        let logits: &[T] = &inputs[0];
        let mut norms = Buffer::scratch(2 * self.targets.classes.len());
        let count = rows_in_piece(self.classes);
        let pieces = norms.chunks_mut(2 * count);
        let pieces = pieces.zip(logits.chunks(count * self.classes));
        let terms = parallel::map(pieces, |piece, (norms, logits)| {
            let rows = norms.chunks_exact_mut(2);
            let rows = rows.zip(logits.chunks_exact(self.classes));
            let terms = (piece * count..).zip(rows).map(|(row, (norm, l))| {
                let (found, term) = self.loss_of(row, l);
                norm.copy_from_slice(&found.parts());
                term
            });
            terms.collect::<Vec<f64>>()
        });
        let mut loss = Buffer::scratch(1);
        loss[0] = T::from_f64(terms.iter().flatten().sum());
        Ok((loss.into(), norms))
    }

    fn adjoint(
        &self,
        point: &Point<T, Buffer<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let logits = point.input(0)?;
        let cotangent = gradient.map_or(T::ZERO, |g| g[0]);
        let mut result = Buffer::scratch(logits.len());
        let v = deferred.as_ref().and_then(|left| left.v.as_ref());
        let v = v.map(Array::view).transpose()?;
        each_row(&mut result, self.classes, |row, to| {
            let Some((q, weight)) = self.row::<T>(row) else {
                return to.fill(T::ZERO);
            };
            let logits = &logits[row * self.classes..][..self.classes];
            let norm = Norm::of(point.saved, row);
            let second = deferred.as_ref().and_then(|left| {
                let v = &v.as_ref()?[row * self.classes..][..self.classes];
                let dots = simd::run(Dot { logits, norm, x: v });
                Some((left.gradient * weight, v, dots.by_p))
            });
            let task = Backward {
                logits,
                norm,
                q,
                cotangent,
                weight,
                second,
                to,
            };
            simd::run(task);
        });
        Ok((vec![Some(result)], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Buffer<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let mut tangent = Buffer::zeroed(1);
        if let Some(v) = &cotangents[0] {
            let (logits, v) = (point.input(0)?, v.view()?);
            let count = rows_in_piece(self.classes);
            let pieces = logits.chunks(count * self.classes);
            let pieces = pieces.zip(v.chunks(count * self.classes));
            let terms = parallel::map(pieces, |piece, (logits, v)| {
                let rows = logits.chunks_exact(self.classes);
                let rows = rows.zip(v.chunks_exact(self.classes));
                let along = |(row, (l, v))| self.along(row, l, Norm::of(point.saved, row), v);
                (piece * count..).zip(rows).map(along).collect::<Vec<f64>>()
            });
            tangent[0] = T::from_f64(terms.iter().flatten().sum());
        }
        let left = Left {
            gradient: gradient.view()?[0],
            v: cotangents[0].as_ref().map(Held::keep),
        };
        Ok((tangent.into(), left))
    }
}
