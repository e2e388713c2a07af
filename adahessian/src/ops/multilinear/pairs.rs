//! Sizes, and the order of the pairs.
//!
//! Pairs (j, k) stand in shells, by the larger of the two positions: the pairs that query i may see are then the first
//! (i + 1)² of them, a block of queries needs the first columns of every matrix and no others, and nothing has to be
//! picked.

use crate::error::Result;
use crate::ops::wrong;

/// Queries that are computed together: each block has the pairs of its last one.
const QUERIES: usize = 8;

/// The sizes of a multi-linear attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub batch: usize,
    /// T
    pub length: usize,
    /// R
    pub rank: usize,
    /// D
    pub outputs: usize,
    /// L
    pub window: usize,
    pub causal: bool,
}

/// Some queries, and the pairs that they are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub first: usize,
    pub queries: usize,
    pub pairs: usize,
}

impl Sizes {
    /// For a, m, v, s and the weight of these shapes.
    pub fn of(shapes: &[&[usize]], causal: bool) -> Result<Self> {
        if let &[
            &[batch, length, rank],
            m,
            v,
            &[too, rows, columns],
            &[outputs, square],
        ] = shapes
            && m == [batch, length, rank]
            && v == m
            && (too, rows, columns) == (batch, length, length)
            && shapes[0].iter().all(|&size| size > 0)
        {
            let window = square.isqrt();
            if window * window == square && window >= length && outputs > 0 {
                return Ok(Self {
                    batch,
                    length,
                    rank,
                    outputs,
                    window,
                    causal,
                });
            }
        }
        wrong(
            "operands of a multi-linear attention",
            "a, m, v [B, T, R], s [B, T, T] and a weight [D, L·L] with L at least T",
            format!("{shapes:?}"),
        )
    }

    /// All queries, in order.
    pub fn blocks(self) -> impl Iterator<Item = Block> {
        let starts = (0..self.length).step_by(QUERIES);
        starts.map(move |first| {
            let end = (first + QUERIES).min(self.length);
            let last = if self.causal { end } else { self.length };
            Block {
                first,
                queries: end - first,
                pairs: last * last,
            }
        })
    }

    /// The pairs, shell by shell.
    pub fn pairs(&self) -> Vec<[usize; 2]> {
        let shell = |m: usize| {
            let before = (0..m).flat_map(move |n| [[n, m], [m, n]]);
            before.chain([[m, m]])
        };
        (0..self.length).flat_map(shell).collect()
    }

    /// How many pairs a query may see.
    pub fn visible(&self, query: usize) -> usize {
        match self.causal {
            true => (query + 1) * (query + 1),
            false => self.length * self.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_the_first_pairs() {
        let shapes: [&[usize]; 5] = [&[2, 9, 3], &[2, 9, 3], &[2, 9, 3], &[2, 9, 9], &[4, 100]];
        for causal in [true, false] {
            let sizes = Sizes::of(&shapes, causal).unwrap();
            let pairs = sizes.pairs();
            assert_eq!(pairs.len(), 81);
            for i in 0..9 {
                let seen = &pairs[..sizes.visible(i)];
                let may = |&&[j, k]: &&[usize; 2]| !causal || (j <= i && k <= i);
                assert_eq!(pairs.iter().filter(may).count(), seen.len());
                assert!(seen.iter().all(|pair| may(&pair)));
            }
            let blocks: Vec<_> = sizes.blocks().collect();
            let queries: Vec<_> = blocks
                .iter()
                .flat_map(|b| b.first..b.first + b.queries)
                .collect();
            assert_eq!(queries, (0..9).collect::<Vec<_>>());
            let enough = |b: &Block| b.pairs == sizes.visible(b.first + b.queries - 1);
            assert!(blocks.iter().all(enough));
        }
    }
}
