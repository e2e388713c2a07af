//! Batches in parallel: fixed chunks of images, so that no sum depends on the number of threads.

use super::{Plan, correlate, outer};
use crate::ops::engine::{Buffer, Real};
use crate::ops::simd;
use rayon::prelude::*;

/// How a batch is cut: a function of the shapes alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks {
    pub images: usize,
    /// Images in each chunk but the last.
    pub per: usize,
}

impl Chunks {
    /// Sixteen chunks, fewer where each one's weight gradient is large.
    pub fn new(plan: &Plan, images: usize) -> Self {
        const NUMBERS: usize = 1 << 24;
        let most = (NUMBERS / outer::sums_length(plan).max(1)).clamp(4, 16);
        Self {
            images,
            per: images.div_ceil(most).max(1),
        }
    }

    pub fn count(&self) -> usize {
        self.images.div_ceil(self.per)
    }

    /// The images of a chunk: their numbers within it and within the batch.
    pub fn of(&self, chunk: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let first = chunk * self.per;
        let end = (first + self.per).min(self.images);
        (first..end).map(move |image| (image - first, image))
    }
}

/// The memory that one chunk works in.
pub(crate) struct Workspace<T: Real> {
    pub grid: Buffer<T>,
    pub other_grid: Buffer<T>,
    pub transposed: Buffer<T>,
    pub scratch: Buffer<T>,
}

impl<T: Real> Workspace<T> {
    /// With an input grid.
    pub fn forward(plan: &Plan) -> Self {
        Self {
            grid: Buffer::zeroed(plan.grid_length()),
            other_grid: Buffer::zeroed(0),
            transposed: Buffer::zeroed(0),
            scratch: Buffer::scratch(correlate::scratch_length(plan)),
        }
    }

    /// With an input grid, an output gradient's grid, and room for a transposed gradient.
    pub fn backward(plan: &Plan) -> Self {
        Self {
            other_grid: Buffer::zeroed(plan.gradient_grid_length()),
            transposed: Buffer::zeroed(outer::transposed_length(plan)),
            ..Self::forward(plan)
        }
    }

    /// result (+)= w ∗ x
    pub fn correlate(
        &mut self,
        plan: &Plan,
        weight: &correlate::Packed<T>,
        x: &[T],
        result: &mut [T],
        accumulate: bool,
    ) {
        plan.fill_grid(x, &mut self.grid);
        correlate::forward(plan, weight, &self.grid, result, accumulate, &mut self.scratch);
    }

    /// x̄ (+)= wᵀ ∗ u
    pub fn input_gradient(
        &mut self,
        plan: &Plan,
        weight: &correlate::Packed<T>,
        u: &[T],
        result: &mut [T],
        accumulate: bool,
    ) {
        plan.fill_gradient_grid(u, &mut self.other_grid);
        let grid = &self.other_grid;
        correlate::backward(plan, weight, grid, result, accumulate, &mut self.scratch);
    }

    /// sums += x ⊗ u
    pub fn weight_gradient(&mut self, plan: &Plan, x: &[T], u: &[T], sums: &mut [T]) {
        plan.fill_grid(x, &mut self.grid);
        self.weight_gradient_of_grid(plan, u, sums);
    }

    /// The same for the image that is in the grid already.
    pub fn weight_gradient_of_grid(&mut self, plan: &Plan, u: &[T], sums: &mut [T]) {
        outer::transpose(plan, u, &mut self.transposed);
        outer::add(plan, &self.grid, &self.transposed, sums);
    }
}

/// Σ of the chunks' weight gradients, in order; the first chunk's memory is used.
pub(crate) fn reduce<T: Real>(plan: &Plan, sums: &mut [T]) -> Buffer<T> {
    let length = outer::sums_length(plan);
    let (total, rest) = sums.split_at_mut(length);
    for part in rest.chunks_exact(length) {
        simd::add_assign(total, part);
    }
    outer::gather(plan, total)
}

/// Σ over images of per-image, per-channel sums.
pub(crate) fn channel_sums<const N: usize>(parts: &[[f64; N]], channels: usize) -> Vec<[f64; N]> {
    let mut total = vec![[0.0; N]; channels];
    for image in parts.chunks_exact(channels) {
        for (total, part) in total.iter_mut().zip(image) {
            total.iter_mut().zip(part).for_each(|(to, from)| *to += from);
        }
    }
    total
}

/// Σ over images and positions of u [n, channels, positions], per channel.
pub(crate) fn bias_gradient<T: Real>(u: &[T], channels: usize, positions: usize) -> Buffer<T> {
    let rows: Vec<f64> = u
        .par_chunks_exact(positions)
        .map(|row| row.iter().map(|x| x.to_f64()).sum())
        .collect();
    let mut gradient = Buffer::zeroed(channels);
    for (o, to) in gradient.iter_mut().enumerate() {
        *to = T::from_f64(rows.iter().skip(o).step_by(channels).sum());
    }
    gradient
}

/// `count` parts of a slice, empty ones if the slice is empty.
pub(crate) fn split<T: Send>(
    data: &mut [T],
    size: usize,
    count: usize,
) -> impl IndexedParallelIterator<Item = &mut [T]> {
    let mut parts: Vec<&mut [T]> = match data.is_empty() || size == 0 {
        true => Vec::new(),
        false => data.chunks_mut(size).collect(),
    };
    parts.resize_with(count, Default::default);
    parts.into_par_iter()
}
