//! Steps on a CUDA device as kernels: any rule, written down once ([`numeric::traced`](crate::numeric::traced)) and made into one that steps many
//! variables in one launch, in place ([`ptx`]). A rule of somebody else's is none the slower.
//!
//! | | launches |
//! |---|---|
//! | D averaged over its blocks | 1 |
//! | θ and the running quantities, from g and D | 1 |
//! | the same with trust | 2 |
//! | what a bound takes back, where it binds | 1 |
//! | all z ⊙ Hz | 1 |
//! | squares of all gradients, or of all z ⊙ Hz | 1 |
//!
//! for all variables of one type and of one step's numbers together (up to 16 million entries), where a step that
//! is composed of candle's operations has dozens, and copies of everything. Entry by entry the numbers are the
//! CPU's, to the last bit; sums are not: averages over blocks, norms, and with them what a bound or a trust leaves.

#[cfg(feature = "cuda")]
mod arrays;
#[cfg(feature = "cuda")]
mod entrywise;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(any(test, feature = "cuda"))]
mod program;
#[cfg(any(test, feature = "cuda"))]
mod ptx;
#[cfg(feature = "cuda")]
mod step;
#[cfg(any(test, feature = "cuda"))]
mod symbols;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(super) use entrywise::products;
#[cfg(feature = "cuda")]
pub(crate) use entrywise::squares;
#[cfg(feature = "cuda")]
pub(super) use step::{runs_on, step};
#[cfg(not(feature = "cuda"))]
pub(crate) use without::squares;
#[cfg(not(feature = "cuda"))]
pub(super) use without::{products, runs_on, step};

/// Without CUDA there are no such kernels.
#[cfg(not(feature = "cuda"))]
mod without {
    use crate::error::Result;
    use crate::optim::pass::{Later, Outcome};
    use crate::optim::pending::Clipping;
    use crate::optim::rule::Rule;
    use crate::optim::together::Member;
    use candle_core::Tensor;

    pub fn runs_on(_: &Tensor) -> bool {
        false
    }

    pub fn step<R: Rule>(
        _: &R,
        _: Clipping,
        _: &[Member<'_>],
        _: &mut Later,
    ) -> Result<Option<Outcome>> {
        Ok(None)
    }

    pub fn products(_: &[(&Tensor, &Tensor)]) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }

    pub fn squares(_: &[Tensor]) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }
}
