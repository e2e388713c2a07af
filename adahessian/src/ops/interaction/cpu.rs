//! Pairwise products of feature vectors as one operation.
//!
//! With t the n vectors of a sample, G(y) the symmetric matrix that has a pair's y at both of its
//! places and zeros on its diagonal:
//! ```text
//! F:   y = (t₀, ⟨tᵢ, tⱼ⟩ for i > j)
//! A:   gt = G(g) t, and the first m entries of g for t₀
//! ∂A:  ḡ = (v₀, ⟨vᵢ, tⱼ⟩ + ⟨vⱼ, tᵢ⟩)
//! ∂F:  t̄ = G(ȳ) t + G(g) v, and the first m entries of ȳ for t₀
//! ```

use super::{Interaction, Sizes};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Real};

/// The vectors of all samples: t₀ in one array, the others in another; zeros where there is none.
type Parts<'a, T> = [Option<&'a [T]>; 2];

/// Samples that one thread works on at a time.
const SAMPLES: usize = 16;

impl Sizes {
    /// The n vectors of a sample, side by side.
    #[inline(always)]
    fn gather<T: Real>(&self, sample: usize, parts: Parts<'_, T>, to: &mut [T]) {
        let width = self.width;
        let rest = (self.vectors - 1) * width;
        let (first, others) = to.split_at_mut(width);
        match parts[0] {
            Some(dense) => first.copy_from_slice(&dense[sample * width..][..width]),
            None => first.fill(T::ZERO),
        }
        match parts[1] {
            Some(bags) => others.copy_from_slice(&bags[sample * rest..][..rest]),
            None => others.fill(T::ZERO),
        }
    }

    /// y of every sample: `Products` of its vectors, or of its vectors with their cotangents.
    fn products<T: Real>(&self, t: Parts<'_, T>, v: Option<Parts<'_, T>>) -> Buffer<T> {
        let Sizes { vectors, width, .. } = *self;
        let length = width + self.pairs();
        let mut y = Buffer::scratch(self.batch * length);
        parallel::each(y.chunks_mut(SAMPLES * length), |chunk, y| {
            let mut room = Buffer::scratch(2 * vectors * width);
            let (a, b) = room.split_at_mut(vectors * width);
            for (i, y) in y.chunks_exact_mut(length).enumerate() {
                let sample = chunk * SAMPLES + i;
                self.gather(sample, t, a);
                if let Some(v) = v {
                    self.gather(sample, v, b);
                }
                let (start, pairs) = y.split_at_mut(width);
                start.copy_from_slice(match v {
                    Some(_) => &b[..width],
                    None => &a[..width],
                });
                let task = Products {
                    width,
                    t: a,
                    v: v.is_some().then_some(&*b),
                    pairs,
                };
                simd::run(task);
            }
        });
        y
    }

    /// Gradients of the dense vectors and the bags: the sum over `terms` of G(y) t.
    fn spread<T: Real>(
        &self,
        terms: &[(&[T], Parts<'_, T>)],
        start: Option<&[T]>,
    ) -> [Buffer<T>; 2] {
        let Sizes {
            batch,
            vectors,
            width,
        } = *self;
        let (length, rest) = (width + self.pairs(), (vectors - 1) * width);
        let mut dense = Buffer::scratch(batch * width);
        let mut bags = Buffer::scratch(batch * rest);
        let chunks = dense.chunks_mut(SAMPLES * width);
        let chunks = chunks.zip(bags.chunks_mut(SAMPLES * rest));
        parallel::each(chunks, |chunk, (dense, bags)| {
            let mut room = Buffer::scratch(2 * vectors * width);
            let (t, sum) = room.split_at_mut(vectors * width);
            let samples = dense
                .chunks_exact_mut(width)
                .zip(bags.chunks_exact_mut(rest));
            for (i, (dense, bags)) in samples.enumerate() {
                let sample = chunk * SAMPLES + i;
                sum.fill(T::ZERO);
                if let Some(start) = start {
                    sum[..width].copy_from_slice(&start[sample * length..][..width]);
                }
                for (y, vectors) in terms {
                    self.gather(sample, *vectors, t);
                    let pairs = &y[sample * length..][width..length];
                    let sum = &mut *sum;
                    simd::run(Spread {
                        width,
                        t,
                        pairs,
                        sum,
                    });
                }
                dense.copy_from_slice(&sum[..width]);
                bags.copy_from_slice(&sum[width..]);
            }
        });
        [dense, bags]
    }
}

/// ⟨tᵢ, tⱼ⟩, or ⟨vᵢ, tⱼ⟩ + ⟨vⱼ, tᵢ⟩, for one sample.
struct Products<'a, T> {
    width: usize,
    t: &'a [T],
    v: Option<&'a [T]>,
    pairs: &'a mut [T],
}

#[inline(always)]
fn inner<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; 8];
    let (groups, rest) = a.as_chunks::<8>();
    let (others, last) = b.as_chunks::<8>();
    for (a, b) in groups.iter().zip(others) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (&a, &b)) in rest.iter().zip(last).enumerate() {
        sums[lane] += a * b;
    }
    sums.into_iter().sum()
}

impl<T: Real> Task<T> for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.width;
        let mut pairs = self.pairs.iter_mut();
        for i in 1..self.t.len() / width {
            for (j, to) in (0..i).zip(&mut pairs) {
                let [ti, tj] = [i, j].map(|k| &self.t[k * width..][..width]);
                *to = match self.v {
                    None => inner(ti, tj),
                    Some(v) => {
                        let [vi, vj] = [i, j].map(|k| &v[k * width..][..width]);
                        inner(vi, tj) + inner(vj, ti)
                    }
                };
            }
        }
    }
}

/// sum += G(y) t for one sample.
struct Spread<'a, T> {
    width: usize,
    t: &'a [T],
    pairs: &'a [T],
    sum: &'a mut [T],
}

impl<T: Real> Task<T> for Spread<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.width;
        let mut pairs = self.pairs.iter();
        for i in 1..self.t.len() / width {
            let (before, from) = self.sum.split_at_mut(i * width);
            let (ti, si) = (&self.t[i * width..][..width], &mut from[..width]);
            let others = before
                .chunks_exact_mut(width)
                .zip(self.t.chunks_exact(width));
            for ((sj, tj), &y) in others.zip(&mut pairs) {
                for k in 0..width {
                    si[k] += y * tj[k];
                    sj[k] += y * ti[k];
                }
            }
        }
    }
}

/// What the second level leaves: g and the cotangents of the gradients.
pub(super) struct Left<T: Real> {
    gradient: Array<T>,
    cotangents: [Option<Array<T>>; 2],
}

impl<T: Real> Kernel<Cpu<T>> for Interaction {
    type Saved = Sizes;
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Sizes)> {
        let sizes = Sizes::of(inputs.shape(0), inputs.shape(1))?;
        let t = [Some(&inputs[0]), Some(&inputs[1])];
        Ok((sizes.products(t, None).into(), sizes))
    }

    fn adjoint(
        &self,
        point: &Point<T, Sizes>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let t = [Some(point.input(0)?), Some(point.input(1)?)];
        let left = deferred.as_ref();
        let g = left.map(|left| left.gradient.view()).transpose()?;
        let view = |i: usize| left.and_then(|left| left.cotangents[i].as_ref().map(Array::view));
        let v = [view(0).transpose()?, view(1).transpose()?];
        let mut terms = Vec::with_capacity(2);
        if let Some(y) = gradient {
            terms.push((y, t));
        }
        if let Some(g) = &g {
            terms.push((&g[..], v.each_ref().map(|v| v.as_deref())));
        }
        let [dense, bags] = point.saved.spread(&terms, gradient);
        let gradients = vec![wanted[0].then_some(dense), wanted[1].then_some(bags)];
        Ok((gradients, ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Sizes>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let t = [Some(point.input(0)?), Some(point.input(1)?)];
        let view = |i: usize| cotangents[i].as_ref().map(Held::view).transpose();
        let views = [view(0)?, view(1)?];
        let v = views.each_ref().map(|v| v.as_deref());
        let left = Left {
            gradient: gradient.clone(),
            cotangents: [0, 1].map(|i| cotangents[i].as_ref().map(Held::keep)),
        };
        Ok((point.saved.products(t, Some(v)).into(), left))
    }
}
