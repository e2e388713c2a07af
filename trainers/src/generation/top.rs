//! The best of many candidates, without sorting them all.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row and a token that it may go on with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The row within the sentence.
    pub row: usize,
    pub token: u32,
    /// The sum of the logarithms of the probabilities of all tokens up to this one.
    pub sum: f64,
}

/// Better ones are less: a higher sum, then the lower row, then the lower token.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let sums = other.sum.total_cmp(&self.sum);
        let rows = self.row.cmp(&other.row);
        sums.then(rows).then(self.token.cmp(&other.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The best `limit` of the candidates, the best first. A heap keeps as many, the worst of them on top, so that
/// n candidates cost n comparisons and O(log `limit`) for each that is kept for a while.
pub(super) fn best(candidates: impl Iterator<Item = Candidate>, limit: usize) -> Vec<Candidate> {
    let mut kept = BinaryHeap::new();
    for candidate in candidates {
        if kept.len() < limit {
            kept.push(candidate);
        } else if let Some(mut worst) = kept.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    kept.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use super::{Candidate, best};

    #[test]
    fn the_best_are_those_of_a_sort_with_ties_in_order() {
        // Few values, so that many are equal.
        let candidate = |index: u64| Candidate {
            row: index as usize / 50,
            token: index as u32 % 50,
            sum: -((index * 2_654_435_761 % 1_009 % 7) as f64),
        };
        let mut sorted: Vec<Candidate> = (0..200).map(candidate).collect();
        sorted.sort_by(|a, b| {
            let sums = b.sum.partial_cmp(&a.sum).unwrap();
            sums.then((a.row, a.token).cmp(&(b.row, b.token)))
        });
        for limit in [0, 1, 7, 199, 200, 300] {
            // In whatever order they come.
            let kept = best((0..200).rev().map(candidate), limit);
            let ids =
                |all: &[Candidate]| -> Vec<_> { all.iter().map(|c| (c.row, c.token)).collect() };
            assert_eq!(ids(&kept), ids(&sorted[..limit.min(200)]), "{limit}");
        }
    }
}
