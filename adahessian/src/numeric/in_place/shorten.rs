//! A change of which only a share is kept.

use super::entries::{sum, update_slices};
use super::{Entry, PIECE, pieces};
use crate::numeric::Real;

#[derive(Clone, Copy)]
struct Shorten<T>(T);

impl<T: Real> Entry<T, 1, 1> for Shorten<T> {
    #[inline(always)]
    fn entry(&self, [new]: [T; 1], [old]: [T; 1]) -> ([T; 1], [T; 2]) {
        // Of an endless change, whose share is 0, nothing is left.
        let kept = match self.0 == T::ZERO {
            true => old,
            false => old + (new - old) * self.0,
        };
        let change = kept - old;
        ([kept], [change * change, T::ZERO])
    }
}

/// old + share · (new - old) in the place of new, old where the share is 0; the squared norm of what is left of the change.
pub(crate) fn pull_back<T: Real>(new: &mut [T], old: &[T], share: f64) -> f64 {
    let entry = Shorten(T::from_f64(share));
    let parts = pieces(PIECE, [new], [old], &|_, new, old| {
        update_slices(new, old, entry)
    });
    sum(parts)[0]
}
