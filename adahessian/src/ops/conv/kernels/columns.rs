//! Convolution as products of matrices, for images so small that shifted views would mostly see the
//! border: the deep layers of large networks.
//!
//! With X the columns of several images, [c·kh·kw, images·positions], and U the output gradient,
//! [out, images·positions], per group: y = W X, w̄ = U Xᵀ, X̄ = Wᵀ U, and x̄ from X̄ by adding every
//! entry to the pixel that it was copied from.

use super::plan::Plan;
use crate::numeric::Real;
use std::ops::Range;

impl Plan {
    /// Numbers in the columns of a block of images.
    pub fn columns_length(&self) -> usize {
        self.c * self.taps() * self.block * self.oh * self.ow
    }

    /// Along one direction: the output positions whose tap lies inside the image, and the pixel
    /// that the first of them sees.
    fn inside(&self, step: usize, size: usize, count: usize) -> (Range<usize>, usize) {
        let (s, p) = (self.stride(), self.padding());
        let first = p.saturating_sub(step).div_ceil(s);
        let end = (size + p).saturating_sub(step).div_ceil(s).min(count);
        // Of a tap that sees nothing the first pixel is none, and its place may be no number.
        match first < end {
            true => (first..end, first * s + step - p),
            false => (end..end, 0),
        }
    }

    /// Calls `work` with each row of the columns, the image and the places of a run of entries in the
    /// row, and the place of the first one's pixel in the image.
    fn each_run(&self, images: usize, mut work: impl FnMut(usize, usize, Range<usize>, usize)) {
        let (ys, xs) = self.steps();
        let positions = self.oh * self.ow;
        for c in 0..self.c {
            for (i, y) in ys.iter().enumerate() {
                let (rows, first_row) = self.inside(*y, self.h, self.oh);
                for (j, x) in xs.iter().enumerate() {
                    let (columns, first) = self.inside(*x, self.w, self.ow);
                    if rows.is_empty() || columns.is_empty() {
                        continue; // this tap sees nothing but border, and its first pixel is none
                    }
                    let row = (c * ys.len() + i) * xs.len() + j;
                    for image in 0..images {
                        for (line, oy) in rows.clone().enumerate() {
                            let start = image * positions + oy * self.ow;
                            let pixel = (c * self.h + first_row + line * self.stride()) * self.w;
                            let run = start + columns.start..start + columns.end;
                            work(row, image, run, pixel + first);
                        }
                    }
                }
            }
        }
    }

    /// The columns of some images.
    pub fn fill_columns<T: Real>(&self, x: &[T], images: usize, columns: &mut [T]) {
        let (size, width) = (self.c * self.h * self.w, images * self.oh * self.ow);
        let columns = &mut columns[..self.c * self.taps() * width];
        columns.fill(T::ZERO);
        let s = self.stride();
        self.each_run(images, |row, image, run, pixel| {
            let from = x[image * size + pixel..].iter().step_by(s);
            let to = &mut columns[row * width..][run];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        });
    }

    /// Adds the entries of columns to the pixels that they belong to.
    fn add_columns<T: Real>(&self, columns: &[T], images: usize, x: &mut [T]) {
        let (size, width) = (self.c * self.h * self.w, images * self.oh * self.ow);
        let s = self.stride();
        self.each_run(images, |row, image, run, pixel| {
            let to = x[image * size + pixel..].iter_mut().step_by(s);
            let from = &columns[row * width..][run];
            to.zip(from).for_each(|(to, &from)| *to += from);
        });
    }
}

/// Rows [out, images·positions] from images [images][out][positions].
fn gather<T: Real>(plan: &Plan, u: &[T], rows: &mut [T]) {
    let positions = plan.oh * plan.ow;
    let width = u.len() / plan.out;
    for (image, u) in u.chunks_exact(plan.out * positions).enumerate() {
        for (o, u) in u.chunks_exact(positions).enumerate() {
            rows[o * width + image * positions..][..positions].copy_from_slice(u);
        }
    }
}

/// The reverse, writing or adding.
fn scatter<T: Real>(plan: &Plan, rows: &[T], y: &mut [T], accumulate: bool) {
    let positions = plan.oh * plan.ow;
    let width = y.len() / plan.out;
    for (image, y) in y.chunks_exact_mut(plan.out * positions).enumerate() {
        for (o, y) in y.chunks_exact_mut(positions).enumerate() {
            let from = &rows[o * width + image * positions..][..positions];
            match accumulate {
                true => y.iter_mut().zip(from).for_each(|(y, &x)| *y += x),
                false => y.copy_from_slice(from),
            }
        }
    }
}

/// y (+)= W X, with `columns` filled; `rows` is room for [out, images·positions].
pub(crate) fn forward<T: Real>(
    plan: &Plan,
    weight: &[T],
    columns: &[T],
    rows: &mut [T],
    y: &mut [T],
    accumulate: bool,
) {
    let (outs, k, width) = (plan.out_part(), plan.k, y.len() / plan.out);
    for group in 0..plan.groups {
        Product {
            left: &weight[group * outs * k..],
            left_steps: (k, 1),
            right: &columns[group * k * width..],
            right_steps: (width, 1),
            size: (outs, width, k),
        }
        .write(&mut rows[group * outs * width..], false);
    }
    scatter(plan, rows, y, accumulate);
}

/// sums += U Xᵀ, [out, k].
pub(crate) fn weight_gradient<T: Real>(
    plan: &Plan,
    columns: &[T],
    u: &[T],
    rows: &mut [T],
    sums: &mut [T],
) {
    gather(plan, u, rows);
    let (outs, k, width) = (plan.out_part(), plan.k, u.len() / plan.out);
    for group in 0..plan.groups {
        Product {
            left: &rows[group * outs * width..],
            left_steps: (width, 1),
            right: &columns[group * k * width..],
            right_steps: (1, width),
            size: (outs, k, width),
        }
        .write(&mut sums[group * outs * k..], true);
    }
}

/// x̄ (+)= Wᵀ U back in the images; `columns` is room for them.
pub(crate) fn input_gradient<T: Real>(
    plan: &Plan,
    weight: &[T],
    u: &[T],
    rows: &mut [T],
    columns: &mut [T],
    x: &mut [T],
    accumulate: bool,
) {
    gather(plan, u, rows);
    let (outs, k, width) = (plan.out_part(), plan.k, u.len() / plan.out);
    for group in 0..plan.groups {
        Product {
            left: &weight[group * outs * k..],
            left_steps: (1, k),
            right: &rows[group * outs * width..],
            right_steps: (width, 1),
            size: (k, width, outs),
        }
        .write(&mut columns[group * k * width..], false);
    }
    if !accumulate {
        x.fill(T::ZERO);
    }
    plan.add_columns(columns, width / (plan.oh * plan.ow), x);
}

/// A product of two matrices, each with its steps from row to row and from column to column.
struct Product<'a, T> {
    left: &'a [T],
    left_steps: (usize, usize),
    right: &'a [T],
    right_steps: (usize, usize),
    /// Rows, columns, and what is summed over.
    size: (usize, usize, usize),
}

impl<T: Real> Product<'_, T> {
    /// Writes the product, row after row, or adds it. On this thread: images run in parallel.
    fn write(&self, to: &mut [T], add: bool) {
        let (m, n, k) = self.size;
        if m == 0 || n == 0 {
            return;
        }
        let end = |steps: (usize, usize), rows: usize, columns: usize| {
            rows.saturating_sub(1) * steps.0 + columns.saturating_sub(1) * steps.1 + 1
        };
        assert!(to.len() >= m * n);
        assert!(k == 0 || self.left.len() >= end(self.left_steps, m, k));
        assert!(k == 0 || self.right.len() >= end(self.right_steps, k, n));
        // SAFETY: every entry that the strides reach lies inside its slice, as just checked, and `to`
        // is borrowed mutably, so it overlaps neither.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                to.as_mut_ptr(),
                1,
                n as isize,
                add,
                self.left.as_ptr(),
                self.left_steps.1 as isize,
                self.left_steps.0 as isize,
                self.right.as_ptr(),
                self.right_steps.1 as isize,
                self.right_steps.0 as isize,
                T::ONE,
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}
