//! Batches in parallel: fixed chunks of images, so that no sum depends on the number of threads.

use super::super::Method;
use super::correlate::Packed;
use super::{Plan, columns, correlate, outer};
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real, rows_in_piece};

/// How a batch is cut: a function of the shapes alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks {
    pub images: usize,
    /// Images in each chunk but the last.
    pub per: usize,
    /// Images that are computed together.
    block: usize,
}

/// Some images of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// The first one's number within the chunk.
    local: usize,
    /// The first one's number within the batch.
    pub image: usize,
    pub count: usize,
}

impl Block {
    /// The block's part of data of the whole batch, `size` numbers an image.
    pub fn of<'a, T>(&self, data: &'a [T], size: usize) -> &'a [T] {
        &data[self.image * size..][..self.count * size]
    }

    /// The block's part of data of its chunk.
    pub fn in_chunk<'a, T>(&self, data: &'a mut [T], size: usize) -> &'a mut [T] {
        &mut data[self.local * size..][..self.count * size]
    }

    /// The images: their numbers within the block and within the batch.
    pub fn images(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let first = self.image;
        (0..self.count).map(move |i| (i, first + i))
    }
}

impl Chunks {
    /// Sixteen chunks, fewer where each one's weight gradient is large.
    pub fn new(plan: &Plan, images: usize) -> Self {
        const NUMBERS: usize = 1 << 24;
        let most = (NUMBERS / sums_length(plan).max(1)).clamp(4, 16);
        Self {
            images,
            per: images.div_ceil(most).max(1),
            block: plan.block,
        }
    }

    pub fn count(&self) -> usize {
        self.images.div_ceil(self.per)
    }

    /// The blocks of a chunk.
    pub fn blocks(&self, chunk: usize) -> impl Iterator<Item = Block> + use<> {
        let (first, block) = (chunk * self.per, self.block);
        let end = (first + self.per).min(self.images);
        (first..end).step_by(block).map(move |image| Block {
            local: image - first,
            image,
            count: block.min(end - image),
        })
    }
}

/// Kernels as the plan's method reads them.
pub(crate) enum Kernel<'a, T: Real> {
    Packed(Packed<T>),
    Plain(&'a [T]),
}

impl<'a, T: Real> Kernel<'a, T> {
    /// For [`Workspace::correlate`].
    pub fn forward(plan: &Plan, weight: &'a [T]) -> Self {
        match plan.method {
            Method::Measured | Method::Views => Self::Packed(Packed::forward(plan, weight)),
            Method::Columns => Self::Plain(weight),
        }
    }

    /// For [`Workspace::input_gradient`].
    pub fn backward(plan: &Plan, weight: &'a [T]) -> Self {
        match plan.method {
            Method::Measured | Method::Views => Self::Packed(Packed::backward(plan, weight)),
            Method::Columns => Self::Plain(weight),
        }
    }
}

/// The memory that one chunk works in. Its methods take up to [`Plan::block`] images.
pub(crate) struct Workspace<T: Real> {
    /// The input grid, or the images' columns.
    grid: Buffer<T>,
    /// The output gradient's grid, or its columns.
    other_grid: Buffer<T>,
    /// The output gradient, positions first, or as rows.
    transposed: Buffer<T>,
    scratch: Buffer<T>,
}

impl<T: Real> Workspace<T> {
    /// With an input grid.
    pub fn forward(plan: &Plan) -> Self {
        let (grid, scratch) = match plan.method {
            Method::Measured | Method::Views => {
                (plan.grid_length(), correlate::scratch_length(plan))
            }
            Method::Columns => (
                plan.columns_length(),
                plan.out * plan.block * plan.oh * plan.ow,
            ),
        };
        Self {
            grid: Buffer::zeroed(grid),
            other_grid: Buffer::zeroed(0),
            transposed: Buffer::zeroed(0),
            scratch: Buffer::scratch(scratch),
        }
    }

    /// With an input grid, an output gradient's grid, and room for a transposed gradient.
    pub fn backward(plan: &Plan) -> Self {
        let (grid, transposed) = match plan.method {
            Method::Measured | Method::Views => {
                (plan.gradient_grid_length(), outer::transposed_length(plan))
            }
            Method::Columns => (plan.columns_length(), 0),
        };
        Self {
            other_grid: Buffer::zeroed(grid),
            // Only filled-up channels must be zero.
            transposed: match plan.out_part().is_multiple_of(outer::ALIGN) {
                true => Buffer::scratch(transposed),
                false => Buffer::zeroed(transposed),
            },
            ..Self::forward(plan)
        }
    }

    fn fill(&mut self, plan: &Plan, x: &[T]) {
        match plan.method {
            Method::Measured | Method::Views => plan.fill_grid(x, &mut self.grid),
            Method::Columns => {
                let images = x.len() / (plan.c * plan.h * plan.w);
                plan.fill_columns(x, images, &mut self.grid);
            }
        }
    }

    /// result (+)= w ∗ x
    pub fn correlate(
        &mut self,
        plan: &Plan,
        weight: &Kernel<T>,
        x: &[T],
        result: &mut [T],
        accumulate: bool,
    ) {
        self.fill(plan, x);
        let (grid, scratch) = (&self.grid, &mut self.scratch);
        match weight {
            Kernel::Packed(w) => correlate::forward(plan, w, grid, result, accumulate, scratch),
            Kernel::Plain(w) => columns::forward(plan, w, grid, scratch, result, accumulate),
        }
    }

    /// x̄ (+)= wᵀ ∗ u
    pub fn input_gradient(
        &mut self,
        plan: &Plan,
        weight: &Kernel<T>,
        u: &[T],
        result: &mut [T],
        accumulate: bool,
    ) {
        let (grid, scratch) = (&mut self.other_grid, &mut self.scratch);
        match weight {
            Kernel::Packed(w) => {
                plan.fill_gradient_grid(u, grid);
                correlate::backward(plan, w, grid, result, accumulate, scratch);
            }
            Kernel::Plain(w) => {
                columns::input_gradient(plan, w, u, scratch, grid, result, accumulate);
            }
        }
    }

    /// sums += x ⊗ u
    pub fn weight_gradient(&mut self, plan: &Plan, x: &[T], u: &[T], sums: &mut [T]) {
        self.fill(plan, x);
        self.weight_gradient_of_grid(plan, u, sums);
    }

    /// The same for the images that were filled in last.
    pub fn weight_gradient_of_grid(&mut self, plan: &Plan, u: &[T], sums: &mut [T]) {
        match plan.method {
            Method::Measured | Method::Views => {
                outer::transpose(plan, u, &mut self.transposed);
                outer::add(plan, &self.grid, &self.transposed, sums);
            }
            Method::Columns => {
                columns::weight_gradient(plan, &self.grid, u, &mut self.scratch, sums);
            }
        }
    }
}

/// Numbers in one chunk's weight gradient.
pub(crate) fn sums_length(plan: &Plan) -> usize {
    match plan.method {
        Method::Measured | Method::Views => outer::sums_length(plan),
        Method::Columns => plan.out * plan.k,
    }
}

/// Σ of the chunks' weight gradients, in order; the first chunk's memory is used.
pub(crate) fn reduce<T: Real>(plan: &Plan, sums: &mut [T]) -> Buffer<T> {
    let length = sums_length(plan);
    let (total, rest) = sums.split_at_mut(length);
    for part in rest.chunks_exact(length) {
        simd::add_assign(total, part);
    }
    match plan.method {
        Method::Measured | Method::Views => outer::gather(plan, total),
        Method::Columns => Buffer::copy_of(total),
    }
}

/// Σ over images of per-image, per-channel sums.
pub(crate) fn channel_sums<const N: usize>(parts: &[[f64; N]], channels: usize) -> Vec<[f64; N]> {
    let mut total = vec![[0.0; N]; channels];
    for image in parts.chunks_exact(channels) {
        for (total, part) in total.iter_mut().zip(image) {
            total
                .iter_mut()
                .zip(part)
                .for_each(|(to, from)| *to += from);
        }
    }
    total
}

/// Σ over images and positions of u [n, channels, positions], per channel.
pub(crate) fn bias_gradient<T: Real>(u: &[T], channels: usize, positions: usize) -> Buffer<T> {
    let pieces = u.chunks(rows_in_piece(positions) * positions);
    let sum = |row: &[T]| row.iter().map(|x| x.to_f64()).sum();
    let rows = parallel::map(pieces, |_, rows| {
        rows.chunks_exact(positions).map(sum).collect::<Vec<f64>>()
    });
    let rows = rows.concat();
    let mut gradient = Buffer::zeroed(channels);
    for (o, to) in gradient.iter_mut().enumerate() {
        *to = T::from_f64(rows.iter().skip(o).step_by(channels).sum());
    }
    gradient
}

/// `count` parts of a slice, empty ones if the slice is empty.
pub(crate) fn split<T: Send>(data: &mut [T], size: usize, count: usize) -> Vec<&mut [T]> {
    let mut parts: Vec<&mut [T]> = match data.is_empty() || size == 0 {
        true => Vec::new(),
        false => data.chunks_mut(size).collect(),
    };
    parts.resize_with(count, Default::default);
    parts
}
