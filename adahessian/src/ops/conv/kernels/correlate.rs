//! y[o, p] = Σ_k w[o, k] · grid[offset(k) + p]

use super::plan::Plan;
use crate::numeric::simd::{self, Task, Vector, Width};
use crate::numeric::{Buffer, Real};

/// The most output channels that are computed together.
const MOST: usize = 8;

/// Output channels that are computed together: of 32 registers 8 · 3 hold sums, of 16 there are 6 · 2
/// with two views and a weight beside them. (4 · 3 would leave nothing to load ahead into: the
/// compiler then keeps a sum in memory, and each product waits for it, which takes twice the time.)
const fn block(registers: usize) -> usize {
    match registers {
        32 => MOST,
        _ => 6,
    }
}

/// Kernels in the order in which they are read: blocks of 8 or 6 output channels,
/// [block][k][channel], the last one filled up with zeros.
pub(crate) struct Packed<T: Real> {
    data: Buffer<T>,
    /// Per group (and phase, for the input gradient), where its blocks begin.
    starts: Vec<usize>,
}

impl<T: Real> Packed<T> {
    /// For the forward pass: w is [out, k].
    pub fn forward(plan: &Plan, weight: &[T]) -> Self {
        let (outs, k, wide) = (plan.out_part(), plan.k, block(simd::registers::<T>()));
        let sizes = vec![outs.next_multiple_of(wide) * k; plan.groups];
        let (mut data, starts) = allocate(&sizes);
        for (group, &start) in starts.iter().enumerate() {
            let weight = &weight[group * outs * k..][..outs * k];
            for (o, row) in weight.chunks_exact(k).enumerate() {
                let block = &mut data[start + o / wide * wide * k..];
                for (i, &w) in row.iter().enumerate() {
                    block[i * wide + o % wide] = w;
                }
            }
        }
        Self { data, starts }
    }

    /// For the input gradient: outputs are the input channels, summed are output channels and the
    /// taps of a phase.
    pub fn backward(plan: &Plan, weight: &[T]) -> Self {
        let (ins, outs, taps) = (plan.part(), plan.out_part(), plan.taps());
        let wide = block(simd::registers::<T>());
        let size =
            |phase: &super::plan::Phase| ins.next_multiple_of(wide) * outs * phase.taps.len();
        let groups = 0..plan.groups;
        let sizes: Vec<usize> = groups
            .flat_map(|_| plan.back.phases.iter().map(size))
            .collect();
        let (mut data, starts) = allocate(&sizes);
        let mut start = starts.iter();
        for group in 0..plan.groups {
            for phase in &plan.back.phases {
                let Some(&start) = start.next() else { break };
                let k = outs * phase.taps.len();
                for o in 0..outs {
                    let weight = &weight[(group * outs + o) * ins * taps..][..ins * taps];
                    for (i, kernel) in weight.chunks_exact(taps).enumerate() {
                        let block = &mut data[start + i / wide * wide * k..];
                        for (t, &(tap, _)) in phase.taps.iter().enumerate() {
                            let at = o * phase.taps.len() + t;
                            block[at * wide + i % wide] = kernel[tap];
                        }
                    }
                }
            }
        }
        Self { data, starts }
    }
}

fn allocate<T: Real>(sizes: &[usize]) -> (Buffer<T>, Vec<usize>) {
    let mut total = 0;
    let starts = sizes.iter().map(|size| {
        let start = total;
        total += size;
        start
    });
    let starts = starts.collect();
    (Buffer::zeroed(total), starts)
}

/// One correlation: which views, and where the results go.
struct Correlation<'a, T> {
    /// [block][k][channel], as packed
    weight: &'a [T],
    grid: &'a [T],
    offsets: &'a [usize],
    /// Numbers from one row of the grid to the next.
    grid_width: usize,
    rows: usize,
    columns: usize,
    /// [channels, rows · columns]
    result: &'a mut [T],
    channels: usize,
    accumulate: bool,
    /// Room for a block's channels of whole grid rows.
    scratch: &'a mut [T],
}

/// Numbers of scratch memory that [`forward`] and [`backward`] want.
pub(crate) fn scratch_length(plan: &Plan) -> usize {
    let forward = plan.oh * plan.qw;
    let backward = plan
        .back
        .phases
        .iter()
        .map(|p| p.rows * plan.back.width)
        .max();
    let phase = plan.back.phases.iter().map(|p| p.rows * p.columns).max();
    let one = forward.max(backward.unwrap_or(0)) + super::plan::SLACK;
    MOST * one + plan.part() * phase.unwrap_or(0)
}

/// The vectors with the least waste for rows of this length.
fn width<T: Real>(columns: usize) -> Width {
    let wide = simd::lanes::<T>(Width::Widest);
    let half = simd::lanes::<T>(Width::Half);
    match columns.is_multiple_of(wide) || !columns.is_multiple_of(half) {
        true => Width::Widest,
        false => Width::Half,
    }
}

/// c (+)= w ∗ x for one image: `grid` of [`Plan::fill_grid`], `result` [out, oh, ow].
pub(crate) fn forward<T: Real>(
    plan: &Plan,
    weight: &Packed<T>,
    grid: &[T],
    result: &mut [T],
    accumulate: bool,
    scratch: &mut [T],
) {
    let size = plan.out_part() * plan.oh * plan.ow;
    let groups = result
        .chunks_exact_mut(size)
        .zip(&weight.starts)
        .enumerate();
    for (group, (result, &start)) in groups {
        let task = Correlation {
            weight: &weight.data[start..],
            grid: &grid[group * plan.part() * plan.channel()..],
            offsets: &plan.offsets,
            grid_width: plan.qw,
            rows: plan.oh,
            columns: plan.ow,
            result,
            channels: plan.out_part(),
            accumulate,
            scratch: &mut *scratch,
        };
        simd::run_at(width::<T>(plan.ow), task);
    }
}

/// x̄ (+)= wᵀ ∗ u for one image: `grid` of [`Plan::fill_gradient_grid`], `result` [c, h, w].
pub(crate) fn backward<T: Real>(
    plan: &Plan,
    weight: &Packed<T>,
    grid: &[T],
    result: &mut [T],
    accumulate: bool,
    scratch: &mut [T],
) {
    let plane = plan.back.height * plan.back.width;
    let (part, outs) = (plan.part(), plan.out_part());
    let mut starts = weight.starts.iter();
    for (group, result) in result.chunks_exact_mut(part * plan.h * plan.w).enumerate() {
        for phase in &plan.back.phases {
            let Some(&start) = starts.next() else { break };
            let offsets: Vec<usize> = (0..outs)
                .flat_map(|o| {
                    phase
                        .taps
                        .iter()
                        .map(move |&(_, offset)| o * plane + offset)
                })
                .collect();
            let (phase_result, scratch) = scratch.split_at_mut(part * phase.rows * phase.columns);
            let whole = plan.stride() == 1;
            let task = Correlation {
                weight: &weight.data[start..],
                grid: &grid[group * outs * plane + phase.base..],
                offsets: &offsets,
                grid_width: plan.back.width,
                rows: phase.rows,
                columns: phase.columns,
                result: if whole {
                    &mut *result
                } else {
                    &mut *phase_result
                },
                channels: part,
                accumulate: accumulate && whole,
                scratch,
            };
            simd::run_at(width::<T>(phase.columns), task);
            if !whole {
                interleave(plan, phase, phase_result, result, accumulate);
            }
        }
    }
}

/// Writes a phase's pixels to their places in the image.
fn interleave<T: Real>(
    plan: &Plan,
    phase: &super::plan::Phase,
    from: &[T],
    image: &mut [T],
    accumulate: bool,
) {
    let s = plan.stride();
    let channels = from.chunks_exact(phase.rows * phase.columns);
    for (from, image) in channels.zip(image.chunks_exact_mut(plan.h * plan.w)) {
        for (i, row) in from.chunks_exact(phase.columns).enumerate() {
            let line = &mut image[(phase.y + i * s) * plan.w..][..plan.w];
            let pixels = line.iter_mut().skip(phase.x).step_by(s).zip(row);
            match accumulate {
                true => pixels.for_each(|(to, &from)| *to += from),
                false => pixels.for_each(|(to, &from)| *to = from),
            }
        }
    }
}

impl<T: Real> Task<T> for Correlation<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        // SAFETY: the features are the caller's promise.
        unsafe {
            match REGISTERS {
                32 => self.blocks::<V, { block(32) }>(),
                _ => self.blocks::<V, { block(16) }>(),
            }
        }
    }
}

impl<T: Real> Correlation<'_, T> {
    #[inline(always)]
    unsafe fn blocks<V: Vector<T>, const BLOCK: usize>(mut self) {
        let k = self.offsets.len();
        let plane = self.rows * self.columns;
        // Rows of whole vectors are computed in place; others as one long row of the grid, from
        // which the pixels are copied.
        let exact = self.columns.is_multiple_of(V::LANES);
        let last = (self.rows - 1) * self.grid_width + self.columns;
        let line = match exact {
            true => plane,
            false => last.next_multiple_of(V::LANES),
        };
        let furthest = self.offsets.iter().max().copied().unwrap_or(0);
        // What the unsafe code below relies on.
        assert!(self.grid.len() >= furthest + last.next_multiple_of(V::LANES));
        assert!(self.weight.len() >= self.channels.next_multiple_of(BLOCK) * k);
        assert!(self.result.len() >= self.channels * plane);
        assert!(exact || self.scratch.len() >= BLOCK * line);
        let shape = Shape {
            vectors: line / V::LANES,
            per_row: if exact { self.columns / V::LANES } else { line },
            grid_width: if exact { self.grid_width } else { 0 },
            line,
        };
        for first in (0..self.channels).step_by(BLOCK) {
            let channels = BLOCK.min(self.channels - first);
            let result = match exact {
                true => &mut self.result[first * plane..][..channels * plane],
                false => &mut *self.scratch,
            };
            let tile = Tile::<T> {
                weight: &self.weight[first * k..][..BLOCK * k],
                offsets: self.offsets,
                grid: self.grid.as_ptr(),
                result: result.as_mut_ptr(),
                channels,
                accumulate: exact && self.accumulate,
            };
            // SAFETY: the lengths were checked above; the features are the caller's promise.
            unsafe {
                match (BLOCK, channels) {
                    (MOST, _) => tile.all::<V, BLOCK, MOST, 3>(&shape),
                    (_, 5..) => tile.all::<V, BLOCK, 6, 2>(&shape),
                    _ => tile.all::<V, BLOCK, 4, 2>(&shape),
                }
            }
            if !exact {
                self.compact(first, channels, line);
            }
        }
    }

    /// Copies the pixels of whole grid rows to the result.
    #[inline(always)]
    fn compact(&mut self, first: usize, channels: usize, line: usize) {
        let plane = self.rows * self.columns;
        let result = &mut self.result[first * plane..][..channels * plane];
        for (from, to) in self
            .scratch
            .chunks_exact(line)
            .zip(result.chunks_exact_mut(plane))
        {
            for (i, to) in to.chunks_exact_mut(self.columns).enumerate() {
                let from = &from[i * self.grid_width..][..self.columns];
                match self.accumulate {
                    true => to.iter_mut().zip(from).for_each(|(to, &from)| *to += from),
                    false => to.copy_from_slice(from),
                }
            }
        }
    }
}

/// How the positions of a block are cut into vectors.
struct Shape {
    vectors: usize,
    /// Vectors in a row.
    per_row: usize,
    grid_width: usize,
    /// Numbers from one channel's results to the next.
    line: usize,
}

/// A block of channels.
struct Tile<'a, T> {
    /// [k][channel]
    weight: &'a [T],
    offsets: &'a [usize],
    grid: *const T,
    result: *mut T,
    channels: usize,
    accumulate: bool,
}

impl<T: Real> Tile<'_, T> {
    /// All positions, `COUNT` (2 or 3) vectors at a time, of the first `ROWS` channels of `BLOCK`.
    #[inline(always)]
    unsafe fn all<V: Vector<T>, const BLOCK: usize, const ROWS: usize, const COUNT: usize>(
        &self,
        shape: &Shape,
    ) {
        let mut vector = 0;
        // SAFETY: `Correlation::blocks` has checked the lengths.
        unsafe {
            while vector + COUNT <= shape.vectors {
                self.some::<V, BLOCK, ROWS, COUNT>(shape, vector);
                vector += COUNT;
            }
            match shape.vectors - vector {
                2 => self.some::<V, BLOCK, ROWS, 2>(shape, vector),
                1 => self.some::<V, BLOCK, ROWS, 1>(shape, vector),
                _ => {}
            }
        }
    }

    /// `ROWS` channels at `COUNT` vectors of positions.
    #[inline(always)]
    unsafe fn some<V: Vector<T>, const BLOCK: usize, const ROWS: usize, const COUNT: usize>(
        &self,
        shape: &Shape,
        first: usize,
    ) {
        // SAFETY: `Correlation::blocks` has checked the lengths.
        unsafe {
            let views: [*const T; COUNT] = std::array::from_fn(|j| {
                let (row, column) = ((first + j) / shape.per_row, (first + j) % shape.per_row);
                self.grid.add(row * shape.grid_width + column * V::LANES)
            });
            let mut sums = [[V::splat(T::ZERO); COUNT]; ROWS];
            let mut weight = self.weight.as_ptr();
            for &offset in self.offsets {
                let view: [V; COUNT] = std::array::from_fn(|j| V::load(views[j].add(offset)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let w = V::splat(*weight.add(i));
                    for (sum, &x) in sums.iter_mut().zip(&view) {
                        *sum = w.mul_add(x, *sum);
                    }
                }
                weight = weight.wrapping_add(BLOCK); // ends beyond the weights, where nothing reads
            }
            for (i, sums) in sums.iter().enumerate().take(self.channels) {
                for (j, &sum) in sums.iter().enumerate() {
                    let to = self.result.add(i * shape.line + (first + j) * V::LANES);
                    let sum = match self.accumulate {
                        true => sum.add(V::load(to)),
                        false => sum,
                    };
                    sum.store(to);
                }
            }
        }
    }
}
