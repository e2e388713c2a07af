//! w̄[k, o] += Σ_p grid[offset(k) + p] · u[p, o]
//!
//! The gradient u lies in panels of 16 output channels. A few rows of a panel, which the first-level
//! cache holds, are gone through for every entry of the kernels before the next rows: of images with
//! 56 pixels a side this makes 1.1 to 1.7 times the speed, on those of 32 it changes little.

use super::plan::Plan;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Real};
use std::ops::Range;

/// Output channels are filled up to a multiple of this, whatever the processor.
pub(super) const ALIGN: usize = 16;

/// Bytes of a panel of the gradient that are gone through for all entries of the kernels, before the
/// next ones: half of a small first-level cache.
const STRIP: usize = 16 << 10;

/// Output channels of a group with filling.
fn padded(plan: &Plan) -> usize {
    plan.out_part().next_multiple_of(ALIGN)
}

/// Numbers in [`Sums`].
pub(crate) fn sums_length(plan: &Plan) -> usize {
    plan.groups * plan.k * padded(plan)
}

/// Numbers in the transposed gradient of one image.
pub(crate) fn transposed_length(plan: &Plan) -> usize {
    plan.groups * plan.oh * plan.ow * padded(plan)
}

/// u [out, p] in panels of 16 channels, [group][panel][p][16], for one image. The filling stays as it
/// is: zero it once.
pub(crate) fn transpose<T: Real>(plan: &Plan, u: &[T], to: &mut [T]) {
    let (positions, outs, wide) = (plan.oh * plan.ow, plan.out_part(), padded(plan));
    for (group, u) in u.chunks_exact(outs * positions).enumerate() {
        let panels = to[group * positions * wide..][..positions * wide]
            .chunks_exact_mut(positions * ALIGN)
            .zip(u.chunks(positions * ALIGN));
        for (panel, u) in panels {
            let rows = u.len() / positions;
            for p in (0..positions).step_by(ALIGN) {
                let columns = ALIGN.min(positions - p);
                let mut tile = [[T::ZERO; ALIGN]; ALIGN];
                for (i, row) in u.chunks_exact(positions).enumerate() {
                    for (j, &x) in row[p..][..columns].iter().enumerate() {
                        tile[j][i] = x;
                    }
                }
                let lines = panel[p * ALIGN..].chunks_exact_mut(ALIGN).zip(&tile);
                for (to, line) in lines.take(columns) {
                    to[..rows].copy_from_slice(&line[..rows]);
                }
            }
        }
    }
}

/// Adds one image's weight gradient to `sums`, [group][k][o].
pub(crate) fn add<T: Real>(plan: &Plan, grid: &[T], transposed: &[T], sums: &mut [T]) {
    let (positions, wide) = (plan.oh * plan.ow, padded(plan));
    for (group, sums) in sums.chunks_exact_mut(plan.k * wide).enumerate() {
        let task = Outer {
            plan,
            grid: &grid[group * plan.part() * plan.channel()..],
            gradient: &transposed[group * positions * wide..][..positions * wide],
            wide,
        };
        simd::run(Sum(task, sums));
    }
}

/// `sums` as a gradient [out, k].
pub(crate) fn gather<T: Real>(plan: &Plan, sums: &[T]) -> Buffer<T> {
    let (outs, wide, k) = (plan.out_part(), padded(plan), plan.k);
    let mut gradient = Buffer::scratch(plan.out * k);
    let groups = gradient
        .chunks_exact_mut(outs * k)
        .zip(sums.chunks_exact(k * wide));
    for (gradient, sums) in groups {
        for (o, row) in gradient.chunks_exact_mut(k).enumerate() {
            for (to, sums) in row.iter_mut().zip(sums.chunks_exact(wide)) {
                *to = sums[o];
            }
        }
    }
    gradient
}

struct Outer<'a, T> {
    plan: &'a Plan,
    grid: &'a [T],
    /// [panel][p][16]
    gradient: &'a [T],
    wide: usize,
}

/// The sums [k][o] that an [`Outer`] is added to.
struct Sum<'a, T>(Outer<'a, T>, &'a mut [T]);

impl<T: Real> Task<T> for Sum<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let Sum(outer, sums) = self;
        let plan = outer.plan;
        let furthest = plan.offsets.iter().max().copied().unwrap_or(0);
        // What the unsafe code below relies on.
        assert!(outer.grid.len() >= furthest + (plan.oh - 1) * plan.qw + plan.ow);
        assert!(outer.gradient.len() >= plan.oh * plan.ow * outer.wide);
        assert!(sums.len() >= plan.k * outer.wide);
        let sums = sums.as_mut_ptr();
        let vectors = outer.wide / V::LANES;
        let rows = (STRIP / (plan.ow * ALIGN * size_of::<T>())).max(1);
        for first in (0..plan.oh).step_by(rows) {
            let rows = first..(first + rows).min(plan.oh);
            let mut vector = 0;
            while vector < vectors {
                let count = (vectors - vector).min(2);
                // SAFETY: the lengths were checked above; the features are the caller's promise.
                unsafe {
                    match (REGISTERS, count) {
                        (32, 2) => outer.column::<V, 8, 2>(sums, vector, &rows),
                        (32, _) => outer.column::<V, 8, 1>(sums, vector, &rows),
                        (_, 2) => outer.column::<V, 4, 2>(sums, vector, &rows),
                        _ => outer.column::<V, 4, 1>(sums, vector, &rows),
                    }
                }
                vector += count;
            }
        }
    }
}

impl<T: Real> Outer<'_, T> {
    /// All entries of the kernels for `COUNT` vectors of output channels, over some rows of positions.
    #[inline(always)]
    unsafe fn column<V: Vector<T>, const ROWS: usize, const COUNT: usize>(
        &self,
        results: *mut T,
        vector: usize,
        rows: &Range<usize>,
    ) {
        let mut k = 0;
        // SAFETY: `run` has checked the lengths.
        unsafe {
            while k + ROWS <= self.plan.k {
                self.tile::<V, ROWS, COUNT>(results, k, vector, rows);
                k += ROWS;
            }
            while k < self.plan.k {
                self.tile::<V, 1, COUNT>(results, k, vector, rows);
                k += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Vector<T>, const ROWS: usize, const COUNT: usize>(
        &self,
        results: *mut T,
        k: usize,
        vector: usize,
        rows: &Range<usize>,
    ) {
        let plan = self.plan;
        let positions = plan.oh * plan.ow;
        // SAFETY: `run` has checked the lengths.
        unsafe {
            let views: [*const T; ROWS] =
                std::array::from_fn(|i| self.grid.as_ptr().add(plan.offsets[k + i]));
            let mut gradients: [*const T; COUNT] = std::array::from_fn(|j| {
                let o = (vector + j) * V::LANES;
                let panel = self.gradient.as_ptr().add(o / ALIGN * ALIGN * positions);
                panel.add(rows.start * plan.ow * ALIGN + o % ALIGN)
            });
            let mut sums = [[V::splat(T::ZERO); COUNT]; ROWS];
            for y in rows.clone() {
                let row = y * plan.qw;
                for p in row..row + plan.ow {
                    let u: [V; COUNT] = std::array::from_fn(|j| V::load(gradients[j]));
                    for (sums, view) in sums.iter_mut().zip(&views) {
                        let x = V::splat(*view.add(p));
                        for (sum, &u) in sums.iter_mut().zip(&u) {
                            *sum = x.mul_add(u, *sum);
                        }
                    }
                    // Ends beyond the gradient, where nothing reads.
                    gradients = gradients.map(|gradient| gradient.wrapping_add(ALIGN));
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let to = results.add((k + i) * self.wide + vector * V::LANES);
                for (j, &sum) in sums.iter().enumerate() {
                    let to = to.add(j * V::LANES);
                    sum.add(V::load(to)).store(to);
                }
            }
        }
    }
}
