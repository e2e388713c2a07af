//! The three products of a linear map, dense or in groups.

use super::wrong;
use crate::error::Result;
use crate::numeric::{Buffer, Matrix, Onto, Real, multiply};

/// The sizes of a map from `inputs` to `outputs` numbers, in `groups` equal, consecutive parts.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Groups {
    pub inputs: usize,
    pub outputs: usize,
    pub groups: usize,
}

impl Groups {
    /// Whether a weight of this shape fits; the number of outputs.
    pub fn check(&self, weight: &[usize]) -> Result<usize> {
        let (&[outputs, part] | &[outputs, part, 1]) = weight else {
            let got = format!("{weight:?}");
            return wrong("weight of a linear map", "[out, in/groups]", got);
        };
        let (inputs, groups) = (self.inputs, self.groups);
        if groups == 0 || !outputs.is_multiple_of(groups) {
            let expected = format!("a divisor of its {outputs} outputs");
            return wrong("groups of a linear map", expected, groups.to_string());
        }
        if inputs == 0 {
            let expected = "at least one entry in the last dimension";
            return wrong("input of a linear map", expected, "none");
        }
        if part * groups != inputs {
            let expected = format!(
                "{} entries in the last dimension ({part} in each of {groups} groups)",
                part * groups
            );
            return wrong("input of a linear map", expected, inputs.to_string());
        }
        Ok(outputs)
    }

    /// Inputs and outputs of a group.
    fn parts(&self) -> (usize, usize) {
        (self.inputs / self.groups, self.outputs / self.groups)
    }

    /// The part of x, of y and of W that belongs to a group.
    fn views<'a, T>(&self, group: usize, x: &'a [T], y: &'a [T], w: &'a [T]) -> [Matrix<'a, T>; 3] {
        let (ins, outs) = self.parts();
        let of = |data: &'a [T], part: usize, step: usize| {
            let rows = data.len() / step;
            Matrix::rows_of(&data[(group * part).min(data.len())..], rows, part, step)
        };
        [
            of(x, ins, self.inputs),
            of(y, outs, self.outputs),
            Matrix::rows_of(&w[(group * outs * ins).min(w.len())..], outs, ins, ins),
        ]
    }

    /// y (+)= x Wᵀ
    pub fn forward<T: Real>(&self, x: &[T], w: &[T], y: &mut [T], onto: Onto) {
        for group in 0..self.groups {
            let [x, _, w] = self.views(group, x, &[], w);
            let offset = group * self.parts().1;
            multiply(y, self.outputs, offset, onto, x, w.transposed());
        }
    }

    /// x (+)= u W
    pub fn input_gradient<T: Real>(&self, u: &[T], w: &[T], x: &mut [T], onto: Onto) {
        for group in 0..self.groups {
            let [_, u, w] = self.views(group, &[], u, w);
            multiply(x, self.inputs, group * self.parts().0, onto, u, w);
        }
    }

    /// W (+)= uᵀ x
    pub fn weight_gradient<T: Real>(&self, u: &[T], x: &[T], w: &mut [T], onto: Onto) {
        let (ins, outs) = self.parts();
        for group in 0..self.groups {
            let [x, u, _] = self.views(group, x, u, &[]);
            multiply(w, ins, group * outs * ins, onto, u.transposed(), x);
        }
    }
}

/// A sum of products in memory that is written for the first time or added to.
pub(super) struct Sum<T: Real> {
    numbers: Buffer<T>,
    how: Onto,
}

impl<T: Real> Sum<T> {
    pub fn new(onto: Option<Buffer<T>>, length: usize) -> Self {
        match onto {
            Some(numbers) => Self {
                numbers,
                how: Onto::Add,
            },
            None => Self {
                numbers: Buffer::scratch(length),
                how: Onto::Replace,
            },
        }
    }

    pub fn add(&mut self, product: impl FnOnce(&mut [T], Onto)) {
        product(&mut self.numbers, self.how);
        self.how = Onto::Add;
    }

    pub fn end(mut self) -> Buffer<T> {
        if self.how == Onto::Replace {
            self.numbers.fill(T::ZERO);
        }
        self.numbers
    }
}
