//! The same numbers in another shape, parts of a tensor, and several as one.

use super::wrong;
use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::{Buffer, Real};
use candle_core::Tensor;

/// The same numbers in their order, in another shape.
///
/// # Errors
/// [`crate::Error::Setting`] for a shape with another number of entries; candle's errors.
pub fn reshape<X: Operand>(x: &X, shape: &[usize]) -> Result<X> {
    X::of(reshaped(x, shape)?)
}

fn reshaped(x: &dyn Operand, shape: &[usize]) -> Result<Handle> {
    linear_map(Reshape(shape.to_vec()), &[x])
}

struct Reshape(Vec<usize>);

impl LinearMap for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let here = inputs[0].iter().product::<usize>();
        let mut asked = self.0.iter();
        let asked = asked.try_fold(1usize, |count, &dim| count.checked_mul(dim));
        match asked == Some(here) {
            true => Ok(self.0.clone()),
            false => {
                let expected = format!("{here} entries, as {:?}", inputs[0]);
                wrong("shape", expected, format!("{:?}", self.0))
            }
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        Ok(inputs[0].contiguous()?.reshape(&*self.0)?)
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        Buffer::copy_of(inputs[0].unwrap_or(&[])) // there is one input, so there it is
    }

    fn transposed<T: Real>(&self, g: &[T], _: usize, _: usize) -> Buffer<T> {
        Buffer::copy_of(g)
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, _: usize, shape: &[usize]) -> Result<Tensor> {
        Ok(g.reshape(shape)?)
    }
}

/// `length` entries of dimension `dim` from `start` on.
///
/// # Errors
/// [`crate::Error::Setting`] for a dimension or a range that is not there; candle's errors.
pub fn narrow<X: Operand>(x: &X, dim: usize, start: usize, length: usize) -> Result<X> {
    let part = Join::part(x.dims(), dim, start, length)?;
    X::of(joined(part, &[x])?)
}

/// Several tensors one behind the other along dimension `dim`; all other dimensions are equal.
///
/// # Errors
/// [`crate::Error::Setting`] for none at all or shapes that do not fit; candle's errors.
pub fn cat<X: Operand>(parts: &[&X], dim: usize) -> Result<X> {
    let Some(first) = parts.first() else {
        return wrong("parts to join", "at least one", "none");
    };
    let dims = |parts: &[&X]| Join::all(first.dims(), parts.iter().map(|part| part.dims()), dim);
    let mut map = dims(parts)?;
    // Parts without entries add none, and are no operands of anything.
    let is_empty = |part: &&&X| part.dims().contains(&0);
    let mut kept: Vec<&X> = parts
        .iter()
        .filter(|part| !is_empty(part))
        .copied()
        .collect();
    match kept.is_empty() {
        true => kept = parts.to_vec(),
        false => map = dims(&kept)?,
    }
    let parts: Vec<&dyn Operand> = kept.iter().map(|part| *part as &dyn Operand).collect();
    X::of(joined(map, &parts)?)
}

fn joined(map: Join, parts: &[&dyn Operand]) -> Result<Handle> {
    linear_map(map, parts)
}

/// The first `count` positions of every sequence, [B, count, D] from [B, T, D]: where only they are
/// asked for, a network's last layer need not be computed for the others.
///
/// # Errors
/// [`crate::Error::Setting`] for another shape or a count that does not fit; candle's errors.
pub fn first_positions<X: Operand>(x: &X, count: usize) -> Result<X> {
    let &[_, length, _] = x.dims() else {
        let got = format!("{:?}", x.dims());
        return wrong("hidden states", "[batch, positions, width]", got);
    };
    if count == 0 || count > length {
        let expected = format!("1 to {length}, the positions there are");
        return wrong("number of positions", expected, count.to_string());
    }
    narrow(x, 1, 0, count)
}

/// For every outer index, runs of numbers from each input, one behind the other: `narrow` has one run,
/// `cat` one of every input.
struct Join {
    shape: Vec<usize>,
    dim: usize,
    outer: usize,
    runs: Vec<Run>,
}

/// What is taken of an input for every outer index, in numbers.
struct Run {
    /// Numbers of the input for an outer index.
    step: usize,
    start: usize,
    length: usize,
}

/// Numbers before and in one entry of this dimension.
fn around(dims: &[usize], dim: usize) -> Result<(usize, usize)> {
    match dims.get(dim + 1..) {
        Some(inner) => Ok((dims[..dim].iter().product(), inner.iter().product())),
        None => {
            let expected = format!("below {}, as {dims:?} has", dims.len());
            wrong("dimension", expected, dim.to_string())
        }
    }
}

impl Join {
    fn part(dims: &[usize], dim: usize, start: usize, length: usize) -> Result<Self> {
        let (outer, inner) = around(dims, dim)?;
        let fits = start
            .checked_add(length)
            .is_some_and(|end| end <= dims[dim]);
        if !fits || length == 0 {
            let expected = format!("at least one entry, within the {} there are", dims[dim]);
            return wrong("range", expected, format!("{length} from {start}"));
        }
        let mut shape = dims.to_vec();
        shape[dim] = length;
        let run = Run {
            step: dims[dim] * inner,
            start: start * inner,
            length: length * inner,
        };
        Ok(Self {
            shape,
            dim,
            outer,
            runs: vec![run],
        })
    }

    fn all<'a>(
        first: &[usize],
        parts: impl Iterator<Item = &'a [usize]>,
        dim: usize,
    ) -> Result<Self> {
        let (outer, inner) = around(first, dim)?;
        let mut shape = first.to_vec();
        shape[dim] = 0;
        let mut runs = Vec::new();
        for part in parts {
            let others = |dims: &[usize]| [&dims[..dim], &dims[dim + 1..]].concat();
            if part.len() != first.len() || others(part) != others(first) {
                let expected = format!("{first:?} but for dimension {dim}");
                return wrong("part to join", expected, format!("{part:?}"));
            }
            shape[dim] += part[dim];
            let length = part[dim] * inner;
            runs.push(Run {
                step: length,
                start: 0,
                length,
            });
        }
        Ok(Self {
            shape,
            dim,
            outer,
            runs,
        })
    }

    fn width(&self) -> usize {
        self.runs.iter().map(|run| run.length).sum()
    }
}

impl LinearMap for Join {
    fn name(&self) -> &'static str {
        "parts"
    }

    fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape.clone())
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        match inputs {
            [x] => {
                let inner: usize = self.shape[self.dim + 1..].iter().product();
                let start = self.runs[0].start / inner.max(1);
                Ok(x.narrow(self.dim, start, self.shape[self.dim])?)
            }
            parts => Ok(Tensor::cat(parts, self.dim)?),
        }
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let width = self.width();
        let mut y = Buffer::zeroed(self.outer * width);
        let mut offset = 0;
        for (run, x) in self.runs.iter().zip(inputs) {
            let Some(x) = x else {
                offset += run.length;
                continue;
            };
            for outer in 0..self.outer {
                let from = &x[outer * run.step + run.start..][..run.length];
                y[outer * width + offset..][..run.length].copy_from_slice(from);
            }
            offset += run.length;
        }
        y
    }

    fn transposed<T: Real>(&self, g: &[T], input: usize, length: usize) -> Buffer<T> {
        let width = self.width();
        let offset: usize = self.runs[..input].iter().map(|run| run.length).sum();
        let run = &self.runs[input];
        let mut x = Buffer::zeroed(length);
        for outer in 0..self.outer {
            let from = &g[outer * width + offset..][..run.length];
            x[outer * run.step + run.start..][..run.length].copy_from_slice(from);
        }
        x
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, input: usize, shape: &[usize]) -> Result<Tensor> {
        let inner = self.shape[self.dim + 1..].iter().product::<usize>().max(1);
        let offset: usize = self.runs[..input].iter().map(|run| run.length).sum();
        let Run { start, length, .. } = &self.runs[input];
        let part = g.narrow(self.dim, offset / inner, length / inner)?;
        let (before, own) = (start / inner, length / inner);
        let after = shape[self.dim] - before - own;
        Ok(part.pad_with_zeros(self.dim, before, after)?)
    }
}
