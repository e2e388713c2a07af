//! What an operation computes entry by entry, with sums over groups of entries, written as a formula: one kernel
//! does all of it on a CUDA device ([`launch`]), candle's operations do it elsewhere ([`composed`]).
//!
//! Entries lie as [outer, groups, inner], and a sum goes over the outer and the inner ones of a group:
//!
//! | | outer | groups | inner |
//! |---|---|---|---|
//! | rows of n numbers, normalised | 1 | rows | n |
//! | channels of images | images | channels | pixels |
//! | the columns of rows, summed for a bias | rows | columns | 1 |
//! | entry by entry | 1 | 1 | entries |
//!
//! ```text
//! let space = Space::rows(x.dims(), n);
//! let x = space.entries(&x)?;
//! let centred = &x - space.mean(&x);
//! let scale = (space.mean(&centred.square()) + eps).sqrt().recip();
//! let [unit, scale] = space.compute([&centred * &scale, scale])?;
//! ```
//!
//! A GPU that is asked for a dozen small computations in turn waits for the asking most of the time; and each reads
//! and writes all of its numbers.

mod composed;
#[cfg(feature = "cuda")]
mod launch;
mod program;
#[cfg(any(test, feature = "cuda"))]
mod ptx;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::numeric::traced::{Instruction, Recorder, Symbol, Test};
use candle_core::Tensor;
use program::Program;
use std::cell::RefCell;

/// Outer entries, groups, inner entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    outer: usize,
    groups: usize,
    inner: usize,
}

impl Sizes {
    fn all(self) -> usize {
        self.outer * self.groups * self.inner
    }
}

/// How many whole numbers from 0 on f32 has all of.
pub(crate) const MOST_POSITIONS: usize = 1 << 24;

/// What comes from outside.
#[derive(Default)]
struct Given {
    entries: Vec<Tensor>,
    shared: Vec<Tensor>,
    places: Vec<Tensor>,
}

impl Given {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.entries.iter().chain(&self.shared).chain(&self.places)
    }
}

/// Where a formula's entries lie, and what it is computed from.
pub(crate) struct Space {
    /// Of a result that has a number for each entry.
    shape: Vec<usize>,
    sizes: Sizes,
    recorder: Recorder,
    given: RefCell<Given>,
}

impl Space {
    fn new(shape: &[usize], outer: usize, groups: usize, inner: usize) -> Self {
        Self {
            shape: shape.to_vec(),
            sizes: Sizes {
                outer,
                groups,
                inner,
            },
            recorder: Recorder::default(),
            given: RefCell::default(),
        }
    }

    /// A group is a row of `inner` entries.
    pub fn rows(shape: &[usize], inner: usize) -> Self {
        let all: usize = shape.iter().product();
        Self::new(shape, 1, all / inner.max(1), inner)
    }

    /// A group is a channel of [N, C, …].
    pub fn channels(shape: &[usize]) -> Self {
        let inner = shape[2..].iter().product();
        Self::new(shape, shape[0], shape[1], inner)
    }

    /// A group is a column of rows of `groups` entries.
    pub fn columns(shape: &[usize], groups: usize) -> Self {
        let all: usize = shape.iter().product();
        Self::new(shape, all / groups.max(1), groups, 1)
    }

    /// All entries are one group.
    pub fn whole(shape: &[usize]) -> Self {
        Self::new(shape, 1, 1, shape.iter().product())
    }

    /// A number for each entry.
    pub fn entries(&self, x: &Tensor) -> Result<Symbol> {
        let count = self.sizes.all();
        self.input(x, count, Instruction::Entry, |given| &mut given.entries)
    }

    /// A number for each group.
    pub fn shared(&self, x: &Tensor) -> Result<Symbol> {
        let count = self.sizes.groups;
        self.input(x, count, Instruction::Shared, |given| &mut given.shared)
    }

    /// A number for each place within a row, the same in all rows.
    pub fn places(&self, x: &Tensor) -> Result<Symbol> {
        let count = self.sizes.inner;
        self.input(x, count, Instruction::Place, |given| &mut given.places)
    }

    /// The number of an entry's place within its row. In f32 they are told apart up to [`MOST_POSITIONS`].
    pub fn position(&self) -> Symbol {
        self.recorder.input(Instruction::Position)
    }

    fn input(
        &self,
        x: &Tensor,
        count: usize,
        instruction: fn(usize) -> Instruction,
        list: fn(&mut Given) -> &mut Vec<Tensor>,
    ) -> Result<Symbol> {
        if x.elem_count() != count {
            return Err(Error::Engine {
                what: format!(
                    "a formula takes {count} numbers, and was given {:?}",
                    x.dims()
                ),
            });
        }
        let mut given = self.given.borrow_mut();
        let list = list(&mut given);
        list.push(x.contiguous()?);
        Ok(self.recorder.input(instruction(list.len() - 1)))
    }

    /// The numbers of a tensor, where there is one, as [`Space::entries`].
    pub fn some(&self, x: Option<&Tensor>) -> Result<Option<Symbol>> {
        x.map(|x| self.entries(x)).transpose()
    }

    /// A constant.
    pub fn constant(&self, value: f64) -> Symbol {
        self.recorder.constant(value)
    }

    /// Entries of a group.
    pub fn count(&self) -> f64 {
        (self.sizes.outer * self.sizes.inner) as f64
    }

    /// The mean over a group.
    pub fn mean(&self, x: &Symbol) -> Symbol {
        x.sum() / self.count()
    }

    /// `x` where it is above 0, else 0; what is not a number stays so.
    pub fn positive(&self, x: &Symbol) -> Symbol {
        let zero = self.constant(0.0);
        x.choose(Test::AtMost, &zero, &zero, x)
    }

    /// The results: of the space's shape where there is a number for each entry, else [groups].
    ///
    /// # Errors
    /// candle's, and those of the driver.
    pub fn compute<const N: usize>(self, results: [Symbol; N]) -> Result<[Tensor; N]> {
        let computed = self.computed(&results)?;
        computed.try_into().map_err(|_| other_number())
    }

    /// The same of what there is.
    pub fn compute_some<const N: usize>(
        self,
        results: [Option<Symbol>; N],
    ) -> Result<[Option<Tensor>; N]> {
        let there: Vec<Symbol> = results.iter().flatten().cloned().collect();
        let mut computed = self.computed(&there)?.into_iter();
        Ok(results.map(|result| result.and_then(|_| computed.next())))
    }

    /// What there is in any case, and what there is sometimes.
    pub fn compute_both<const N: usize, const M: usize>(
        self,
        always: [Symbol; N],
        sometimes: [Option<Symbol>; M],
    ) -> Result<([Tensor; N], [Option<Tensor>; M])> {
        let there = always.iter().chain(sometimes.iter().flatten());
        let there: Vec<Symbol> = there.cloned().collect();
        let mut computed = self.computed(&there)?;
        let mut rest = computed.split_off(N.min(computed.len())).into_iter();
        let always = computed.try_into().map_err(|_| other_number())?;
        let sometimes = sometimes.map(|result| result.and_then(|_| rest.next()));
        Ok((always, sometimes))
    }

    fn computed(self, results: &[Symbol]) -> Result<Vec<Tensor>> {
        if results.is_empty() {
            return Ok(Vec::new());
        }
        let program = Program::new(self.recorder.take(), results);
        let given = self.given.into_inner();
        #[cfg(feature = "cuda")]
        if let Some(results) = launch::run(&program, &given, self.sizes, &self.shape)? {
            return Ok(results);
        }
        composed::run(&program, &given, self.sizes, &self.shape)
    }
}

fn other_number() -> Error {
    Error::Engine {
        what: "a formula has another number of results than were asked for".into(),
    }
}

/// The sum of what there is.
pub(crate) fn plus(a: Option<Symbol>, b: Option<Symbol>) -> Option<Symbol> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}
