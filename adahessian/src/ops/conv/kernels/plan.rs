//! Sizes and offsets of one convolution, computed once.

use super::super::{Convolution, Method};
use crate::numeric::Real;

/// Columns that a product has at least, where there are enough images.
const COLUMNS: usize = 256;

/// The faster method. Views of images of fewer than 64 pixels are mostly border, and a kernel that is
/// read once for so few positions costs more than its products.
fn faster(positions: usize, outs: usize) -> Method {
    match positions < 64 && outs >= 16 {
        true => Method::Columns,
        false => Method::Views,
    }
}

/// A convolution of images [c, h, w] with kernels [out, c/groups, kh, kw].
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub out: usize,
    pub oh: usize,
    pub ow: usize,
    pub groups: usize,
    /// Entries of one output channel's kernel: c/groups · kh · kw.
    pub k: usize,
    pub method: Method,
    /// Images that are computed together.
    pub block: usize,
    ys: Vec<usize>,
    xs: Vec<usize>,
    stride: usize,
    /// Phases in y and x that have pixels: a side that is shorter than the stride has fewer than that.
    phases: [usize; 2],
    padding: usize,
    /// Height and width of one phase of the input grid.
    qh: usize,
    pub qw: usize,
    /// For each entry of a kernel, where its view begins in its group's part of the input grid.
    pub offsets: Vec<usize>,
    /// The grid of the output's gradient.
    pub back: Backward,
}

/// The output gradient's grid, and the phases of the input that are computed from it.
#[derive(Clone, Debug)]
pub(crate) struct Backward {
    pub height: usize,
    pub width: usize,
    /// Where output row 0 and column 0 lie in the grid; may be outside.
    top: isize,
    left: isize,
    pub phases: Vec<Phase>,
}

/// The input pixels (s·i + y, s·j + x) and the taps that reach them.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// The first input row and column of the phase.
    pub y: usize,
    pub x: usize,
    pub rows: usize,
    pub columns: usize,
    /// Where the views of the first row and column begin.
    pub base: usize,
    /// Indices of the taps, and where each one's view begins relative to `base`.
    pub taps: Vec<(usize, usize)>,
}

/// Numbers past the end of a grid that a vector may read.
pub(crate) const SLACK: usize = 64;

impl Plan {
    /// For shapes that [`Convolution::check`] accepted.
    pub fn new(conv: &Convolution, x: &[usize], weight: &[usize], oh: usize, ow: usize) -> Self {
        let (c, h, w) = (x[1], x[2], x[3]);
        let (out, part, kh, kw) = (weight[0], weight[1], weight[2], weight[3]);
        let s = conv.stride;
        let (padded_h, padded_w) = (h + 2 * conv.padding, w + 2 * conv.padding);
        let (qh, qw) = (padded_h.div_ceil(s), padded_w.div_ceil(s));
        let phases = [s.min(padded_h), s.min(padded_w)];
        let steps = |k: usize| (0..k).map(|i| i * conv.dilation).collect::<Vec<_>>();
        let (ys, xs) = (steps(kh), steps(kw));
        let mut offsets = Vec::with_capacity(part * kh * kw);
        for i in 0..part {
            for y in &ys {
                for x in &xs {
                    let phase = (y % s) * phases[1] + x % s;
                    let plane = i * phases[0] * phases[1] + phase;
                    offsets.push(plane * qh * qw + (y / s) * qw + x / s);
                }
            }
        }
        let method = match conv.method {
            Method::Measured => faster(oh * ow, out / conv.groups),
            method => method,
        };
        Self {
            method,
            block: match method {
                Method::Columns => (COLUMNS / (oh * ow).max(1)).clamp(1, x[0].max(1)),
                _ => 1,
            },
            c,
            h,
            w,
            out,
            oh,
            ow,
            groups: conv.groups,
            k: part * kh * kw,
            stride: s,
            phases,
            padding: conv.padding,
            qh,
            qw,
            offsets,
            back: Backward::new(conv, (h, w), &ys, &xs),
            ys,
            xs,
        }
    }

    /// Numbers in one channel of the input grid.
    pub fn channel(&self) -> usize {
        self.phases[0] * self.phases[1] * self.qh * self.qw
    }

    pub fn grid_length(&self) -> usize {
        self.c * self.channel() + SLACK
    }

    pub fn gradient_grid_length(&self) -> usize {
        self.out * self.back.height * self.back.width + SLACK
    }

    /// Copies an image into a grid whose border is zero already.
    pub fn fill_grid<T: Real>(&self, image: &[T], grid: &mut [T]) {
        let (s, p) = (self.stride, self.padding);
        for (c, image) in image.chunks_exact(self.h * self.w).enumerate() {
            let grid = &mut grid[c * self.channel()..][..self.channel()];
            for (y, row) in image.chunks_exact(self.w).enumerate() {
                let y = y + p;
                if s == 1 {
                    grid[y * self.qw + p..][..self.w].copy_from_slice(row);
                    continue;
                }
                for phase in 0..self.phases[1] {
                    // Pixels x with (x + p) % s == phase.
                    let first = match phase >= p % s {
                        true => phase - p % s,
                        false => phase + (s - p % s),
                    };
                    if first >= self.w {
                        continue;
                    }
                    let plane = (y % s) * self.phases[1] + phase;
                    let start = plane * self.qh * self.qw + (y / s) * self.qw;
                    let start = start + (first + p) / s;
                    let pixels = row.iter().skip(first).step_by(s);
                    grid[start..]
                        .iter_mut()
                        .zip(pixels)
                        .for_each(|(to, &from)| *to = from);
                }
            }
        }
    }

    /// Copies an output gradient into a grid whose border is zero already.
    pub fn fill_gradient_grid<T: Real>(&self, gradient: &[T], grid: &mut [T]) {
        for (o, gradient) in gradient.chunks_exact(self.oh * self.ow).enumerate() {
            let grid = &mut grid[o * self.back.height * self.back.width..];
            for (y, row) in gradient.chunks_exact(self.ow).enumerate() {
                self.back.fill_row(y, row, grid);
            }
        }
    }

    /// Input channels of a group.
    pub fn part(&self) -> usize {
        self.c / self.groups
    }

    /// Output channels of a group.
    pub fn out_part(&self) -> usize {
        self.out / self.groups
    }

    pub fn taps(&self) -> usize {
        self.ys.len() * self.xs.len()
    }

    /// Where the taps lie below and right of the kernel's first one.
    pub fn steps(&self) -> (&[usize], &[usize]) {
        (&self.ys, &self.xs)
    }

    pub fn padding(&self) -> usize {
        self.padding
    }

    pub fn stride(&self) -> usize {
        self.stride
    }
}

impl Backward {
    fn new(conv: &Convolution, (h, w): (usize, usize), ys: &[usize], xs: &[usize]) -> Self {
        let (s, p) = (conv.stride, conv.padding);
        let reach = |steps: &[usize]| steps.last().map_or(0, |last| last / s);
        let (reach_y, reach_x) = (reach(ys), reach(xs));
        // Rows r of the padded image's phase that hold pixels: s·r + phase - p in 0..size.
        let rows = |phase: usize, size: usize| {
            let first = p.saturating_sub(phase).div_ceil(s);
            let end = (size + p).saturating_sub(phase).div_ceil(s);
            (first, end.max(first))
        };
        let span = |size: usize| {
            let phases = 0..s.min(size + p);
            let all = phases.map(|phase| rows(phase, size)).filter(|(a, b)| a < b);
            all.fold((usize::MAX, 0), |(a, b), (c, d)| (a.min(c), b.max(d)))
        };
        let ((top, bottom), (left, right)) = (span(h), span(w));
        let (height, width) = (bottom - top + reach_y, right - left + reach_x);
        let mut phases = Vec::new();
        // Those beyond have no pixels.
        for py in 0..s.min(h + p) {
            for px in 0..s.min(w + p) {
                let ((y0, y1), (x0, x1)) = (rows(py, h), rows(px, w));
                if y0 == y1 || x0 == x1 {
                    continue;
                }
                let mut taps = Vec::new();
                for (i, y) in ys.iter().enumerate().filter(|(_, y)| *y % s == py) {
                    for (j, x) in xs.iter().enumerate().filter(|(_, x)| *x % s == px) {
                        let offset = (reach_y - y / s) * width + reach_x - x / s;
                        taps.push((i * xs.len() + j, offset));
                    }
                }
                phases.push(Phase {
                    y: s * y0 + py - p,
                    x: s * x0 + px - p,
                    rows: y1 - y0,
                    columns: x1 - x0,
                    base: (y0 - top) * width + x0 - left,
                    taps,
                });
            }
        }
        Self {
            height,
            width,
            top: reach_y as isize - top as isize,
            left: reach_x as isize - left as isize,
            phases,
        }
    }

    /// Writes row `y` of one channel's output gradient into the channel's grid.
    #[inline(always)]
    pub fn fill_row<T: Copy>(&self, y: usize, row: &[T], grid: &mut [T]) {
        let Ok(line) = usize::try_from(y as isize + self.top) else {
            return;
        };
        if line >= self.height {
            return;
        }
        let skip = (-self.left).max(0) as usize;
        let start = self.left.max(0) as usize;
        if skip >= row.len() || start >= self.width {
            return;
        }
        let count = (row.len() - skip).min(self.width - start);
        grid[line * self.width + start..][..count].copy_from_slice(&row[skip..][..count]);
    }
}
