//! On the CPU, in parts that are small enough to be in the cache when they are read again.

use super::LinearCrossEntropy;
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, FEW, Onto, Real, add, column_sums, dot, rows_in_piece};
use crate::ops::linear::{Groups, add_bias};
use crate::ops::loss::cross_entropy::{Norm, Row};

/// Logits of a part.
const LOGITS: usize = 1 << 22;

/// Up to so many entries of u are kept, which saves the second pass a product.
const KEPT: usize = 1 << 23;

/// u of a row in the place of its logits.
struct Slope<'a, T> {
    logits: &'a mut [T],
    norm: Norm<T>,
    q: Row<T>,
    weight: T,
}

impl<T: Real> Task<T> for Slope<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let Self {
            logits,
            norm,
            q,
            weight,
        } = self;
        let entries = logits.iter_mut();
        entries.for_each(|l| *l = norm.share(*l) * weight - q.even);
        logits[q.class] -= q.more;
    }
}

/// g u in the place of a row's logits, and r in the place of their tangents.
struct Bend<'a, T> {
    /// Whatever there is, where u is kept.
    logits: &'a mut [T],
    slopes: Option<&'a [T]>,
    tangents: &'a mut [T],
    norm: Norm<T>,
    q: Row<T>,
    weight: T,
    gradient: T,
}

impl<T: Real> Task<T> for Bend<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let Self {
            logits,
            slopes,
            tangents,
            norm,
            q,
            weight,
            gradient,
        } = self;
        // w p
        match slopes {
            None => logits.iter_mut().for_each(|l| *l = norm.share(*l) * weight),
            Some(u) => {
                let entries = logits.iter_mut().zip(u);
                entries.for_each(|(to, &u)| *to = u + q.even);
                logits[q.class] += q.more;
            }
        }
        let along = dot(logits, tangents) / weight;
        for (share, t) in logits.iter_mut().zip(tangents) {
            *t = gradient * *share * (*t - along);
            *share = gradient * (*share - q.even);
        }
        logits[q.class] -= gradient * q.more;
    }
}

/// What the forward pass leaves.
pub(super) struct Saved<T: Real> {
    /// log Σ eᶜ of every row, in two parts.
    norms: Buffer<T>,
    /// u of all rows, where it is not large.
    slopes: Option<Buffer<T>>,
    /// u W, uᵀ x and Σ u.
    gradients: [Option<Buffer<T>>; 3],
}

/// g, and the cotangents of the gradients.
pub(super) struct Left<T: Real> {
    gradient: T,
    v: [Option<Array<T>>; 3],
}

/// Values of x, W and b, or cotangents of their gradients.
#[derive(Clone, Copy)]
struct Three<'a, T> {
    x: Option<&'a [T]>,
    w: Option<&'a [T]>,
    b: Option<&'a [T]>,
}

/// x and W of a map, of which either may be zero.
type Pair<'a, T> = (Option<&'a [T]>, Option<&'a [T]>);

impl LinearCrossEntropy {
    fn sizes(&self) -> Groups {
        Groups {
            inputs: self.inputs,
            outputs: self.entropy.classes,
            groups: 1,
        }
    }

    /// Σ x wᵀ + b of rows, for pairs (x, w) of which both are there.
    fn map<T: Real>(&self, pairs: [Pair<'_, T>; 2], bias: Option<&[T]>, to: &mut [T]) {
        let mut how = Onto::Replace;
        for pair in pairs {
            if let (Some(x), Some(w)) = pair {
                self.sizes().forward(x, w, to, how);
                how = Onto::Add;
            }
        }
        if how == Onto::Replace {
            to.fill(T::ZERO);
        }
        if let Some(bias) = bias {
            add_bias(to, bias);
        }
    }

    /// Adds u W, uᵀ x and Σ u, of rows that begin with number `start`, to gradients.
    fn spread<T: Real>(
        &self,
        u: &[T],
        (start, x, w): (usize, Option<&[T]>, Option<&[T]>),
        to: &mut [Option<Buffer<T>>],
    ) {
        let sizes = self.sizes();
        let rows = u.len() / sizes.outputs;
        let part = start * sizes.inputs..(start + rows) * sizes.inputs;
        if let (Some(gx), Some(w)) = (&mut to[0], w) {
            sizes.input_gradient(u, w, &mut gx[part], Onto::Add);
        }
        if let (Some(gw), Some(x)) = (&mut to[1], x) {
            sizes.weight_gradient(u, x, gw, Onto::Add);
        }
    }

    /// Makes what the second level adds to the gradients, part by part.
    fn second<T: Real>(
        &self,
        (saved, gradient): (&Saved<T>, T),
        at: Three<T>,
        v: Three<T>,
        to: &mut [Option<Buffer<T>>],
    ) {
        let (inputs, classes) = (self.inputs, self.entropy.classes);
        let mut memory: [Option<Buffer<T>>; 2] = [None, None];
        for rows in self.parts(LOGITS) {
            let length = rows.len() * classes;
            let [c, t] = memory
                .each_mut()
                .map(|m| &mut m.get_or_insert_with(|| Buffer::scratch(length))[..length]);
            let part = rows.start * inputs..rows.end * inputs;
            let [x, v_x] = [at.x, v.x].map(|x| x.map(|x| &x[part.clone()]));
            if saved.slopes.is_none() {
                self.map([(x, at.w), (None, None)], at.b, c);
            }
            self.map([(v_x, at.w), (x, v.w)], v.b, t);
            let bend = |row: usize, logits: &mut [T], tangents: &mut [T]| {
                let Some((q, weight)) = self.entropy.row::<T>(row) else {
                    logits.fill(T::ZERO);
                    return tangents.fill(T::ZERO);
                };
                let slopes = saved.slopes.as_ref();
                let task = Bend {
                    logits,
                    slopes: slopes.map(|u| &u[row * classes..][..classes]),
                    tangents,
                    norm: Norm::of(&saved.norms, row),
                    q,
                    weight,
                    gradient,
                };
                simd::run(task);
            };
            let count = rows_in_piece(classes);
            let pieces = c.chunks_mut(count * classes);
            let pieces = pieces.zip(t.chunks_mut(count * classes));
            parallel::each(pieces, |piece, (c, t)| {
                let all = c.chunks_exact_mut(classes);
                let all = (rows.start + piece * count..).zip(all.zip(t.chunks_exact_mut(classes)));
                all.for_each(|(row, (logits, tangents))| bend(row, logits, tangents));
            });
            self.spread(t, (rows.start, x, at.w), to);
            if let Some(gb) = &mut to[2] {
                add(gb, &column_sums(t, classes));
            }
            self.spread(c, (rows.start, v_x, v.w), to);
        }
    }
}

/// A multiple of what is saved, added to what is there.
fn scaled<T: Real>(saved: &[T], by: T, onto: Option<Buffer<T>>) -> Buffer<T> {
    let fresh = onto.is_none();
    let mut to = onto.unwrap_or_else(|| Buffer::scratch(saved.len()));
    let each = |(to, &x): (&mut T, &T)| match fresh {
        true => *to = by * x,
        false => *to += by * x,
    };
    match saved.len() <= FEW {
        true => to.iter_mut().zip(saved).for_each(each),
        false => {
            let pieces = to.chunks_mut(FEW).zip(saved.chunks(FEW));
            parallel::each(pieces, |_, (to, x)| to.iter_mut().zip(x).for_each(each));
        }
    }
    to
}

impl<T: Real> Kernel<Cpu<T>> for LinearCrossEntropy {
    type Saved = Saved<T>;
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, keep: bool) -> Result<(Output<T>, Saved<T>)> {
        let (x, w, b) = (&inputs[0], Some(&inputs[1]), inputs.get(2));
        let classes = self.entropy.classes;
        let mut norms = Buffer::scratch(2 * self.entropy.targets.classes.len());
        let lengths = [x.len(), inputs[1].len(), classes];
        let mut gradients = [0, 1, 2].map(|i| {
            let wanted = keep && self.tracked[i];
            wanted.then(|| Buffer::zeroed(lengths[i]))
        });
        let all = self.entropy.targets.classes.len() * classes;
        let mut slopes = (keep && all <= KEPT).then(|| Buffer::scratch(all));
        let (mut memory, mut sum) = (None, 0.0);
        for rows in self.parts(LOGITS) {
            let length = rows.len() * classes;
            let c = match &mut slopes {
                Some(slopes) => &mut slopes[rows.start * classes..][..length],
                None => {
                    let memory = memory.get_or_insert_with(|| Buffer::scratch(length));
                    &mut memory[..length]
                }
            };
            let x = Some(&x[rows.start * self.inputs..rows.end * self.inputs]);
            self.map([(x, w), (None, None)], b, c);
            let term = |row: usize, logits: &mut [T], norm: &mut [T]| {
                let (found, term) = self.entropy.loss_of(row, logits);
                norm.copy_from_slice(&found.parts());
                match self.entropy.row::<T>(row) {
                    None => logits.fill(T::ZERO),
                    Some((q, weight)) if keep => {
                        let task = Slope {
                            logits,
                            norm: found,
                            q,
                            weight,
                        };
                        simd::run(task);
                    }
                    Some(_) => {}
                }
                term
            };
            let count = rows_in_piece(classes);
            let pieces = c.chunks_mut(count * classes);
            let pieces = pieces.zip(norms[2 * rows.start..].chunks_mut(2 * count));
            let terms = parallel::map(pieces, |piece, (c, norms)| {
                let all = c.chunks_exact_mut(classes).zip(norms.chunks_exact_mut(2));
                let all = (rows.start + piece * count..).zip(all);
                let terms = all.map(|(row, (logits, norm))| term(row, logits, norm));
                terms.collect::<Vec<f64>>()
            });
            sum += terms.iter().flatten().sum::<f64>();
            if keep {
                self.spread(c, (rows.start, x, w), &mut gradients);
            }
            if let Some(gb) = &mut gradients[2] {
                add(gb, &column_sums(c, classes));
            }
        }
        let loss = Buffer::copy_of(&[T::from_f64(sum)]);
        let saved = Saved {
            norms,
            slopes,
            gradients,
        };
        Ok((loss.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let cotangent = gradient.map_or(T::ZERO, |g| g[0]);
        let saved = &point.saved.gradients;
        let mut all = [None, None, None];
        for (i, wanted) in wanted.iter().enumerate() {
            if let (Some(saved), true) = (&saved[i], wanted) {
                all[i] = Some(scaled(saved, cotangent, onto[i].take()));
            }
        }
        if let Some(left) = &deferred {
            let [x, w, b] = left.v.each_ref().map(|v| v.as_ref().map(Array::view));
            let (x, w, b) = (x.transpose()?, w.transpose()?, b.transpose()?);
            let v = Three {
                x: x.as_deref(),
                w: w.as_deref(),
                b: b.as_deref(),
            };
            let at = Three {
                x: Some(point.input(0)?),
                w: Some(point.input(1)?),
                b: point.optional(2)?,
            };
            self.second((point.saved, left.gradient), at, v, &mut all);
        }
        let mut all = Vec::from(all);
        all.truncate(wanted.len());
        Ok((all, ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let mut tangent = 0.0;
        for (saved, v) in point.saved.gradients.iter().zip(cotangents) {
            if let (Some(saved), Some(v)) = (saved, v) {
                tangent += along(saved, &v.view()?);
            }
        }
        let keep = |i: usize| cotangents.get(i)?.as_ref().map(Held::keep);
        let left = Left {
            gradient: gradient.view()?[0],
            v: [keep(0), keep(1), keep(2)],
        };
        Ok((Buffer::copy_of(&[T::from_f64(tangent)]).into(), left))
    }
}

/// Σ a b, in pieces that do not depend on the threads.
fn along<T: Real>(a: &[T], b: &[T]) -> f64 {
    let pieces = a.chunks(FEW).zip(b.chunks(FEW));
    let sums = parallel::map(pieces, |_, (a, b)| dot(a, b).to_f64());
    sums.iter().sum()
}
