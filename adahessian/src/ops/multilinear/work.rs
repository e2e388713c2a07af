//! T, and what its gradient gives its factors, for a block of queries at a time.

use super::pairs::{Block, Sizes};
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Matrix, Onto, Real, Target, each_row, multiply_at};

/// a, m, v and s. As a direction, where one is missing it is zero.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a, T> {
    pub a: Option<&'a [T]>,
    pub m: Option<&'a [T]>,
    pub v: Option<&'a [T]>,
    pub s: Option<&'a [T]>,
}

/// The sizes, and the pairs in their order.
pub(super) struct Work {
    pub sizes: Sizes,
    pairs: Vec<[usize; 2]>,
}

/// Gradients of a, m, v, s.
pub(super) struct Sums<T: Real>([Buffer<T>; 4]);

impl<T: Real> Sums<T> {
    pub fn new(sizes: &Sizes) -> Self {
        let rows = || Buffer::zeroed(sizes.batch * sizes.length * sizes.rank);
        let s = Buffer::zeroed(sizes.batch * sizes.length * sizes.length);
        Self([rows(), rows(), rows(), s])
    }

    pub fn into_buffers(self) -> [Buffer<T>; 4] {
        self.0
    }
}

/// What T got, [B · queries, pairs], and what its derivative in a direction got.
#[derive(Clone, Copy)]
pub(super) struct Received<'a, T> {
    pub value: &'a [T],
    pub tangent: Option<(&'a [T], Factors<'a, T>)>,
}

impl Work {
    pub fn new(sizes: Sizes) -> Self {
        Self {
            pairs: sizes.pairs(),
            sizes,
        }
    }

    /// A weight [D, L²] with its columns in the order of the pairs, [D, T²].
    pub fn shells<T: Real>(&self, weight: &[T]) -> Buffer<T> {
        let (count, window) = (self.pairs.len(), self.sizes.window);
        let mut shells = Buffer::scratch(self.sizes.outputs * count);
        each_row(&mut shells, count, |row, to| {
            let row = &weight[row * window * window..];
            let columns = to.iter_mut().zip(&self.pairs);
            columns.for_each(|(to, [j, k])| *to = row[j * window + k]);
        });
        shells
    }

    /// The inverse, with zeros for pairs behind the last position.
    pub fn unshelled<T: Real>(&self, shells: &[T]) -> Buffer<T> {
        let (count, window) = (self.pairs.len(), self.sizes.window);
        let mut weight = Buffer::zeroed(self.sizes.outputs * window * window);
        each_row(&mut weight, window * window, |row, to| {
            let columns = shells[row * count..].iter().zip(&self.pairs);
            columns.for_each(|(x, [j, k])| to[j * window + k] = *x);
        });
        weight
    }

    /// T for a block of queries of all sequences, [B · queries, pairs], with zeros where a query may not see; or its
    /// derivative in a direction.
    pub fn values<T: Real>(
        &self,
        block: Block,
        at: Factors<'_, T>,
        along: Option<Factors<'_, T>>,
    ) -> Buffer<T> {
        let size = block.queries * block.pairs;
        let mut values = Buffer::scratch(self.sizes.batch * size);
        parallel::each(values.chunks_exact_mut(size), |sequence, to| {
            let own = |factors| self.own(factors, sequence);
            self.sequence(block, own(at), along.map(own), to);
        });
        values
    }

    /// A sequence's part.
    fn own<'a, T>(&self, factors: Factors<'a, T>, sequence: usize) -> Factors<'a, T> {
        let Sizes { length, rank, .. } = self.sizes;
        let part = |data: Option<&'a [T]>, size| data.map(|data| &data[sequence * size..][..size]);
        Factors {
            a: part(factors.a, length * rank),
            m: part(factors.m, length * rank),
            v: part(factors.v, length * rank),
            s: part(factors.s, length * length),
        }
    }

    fn sequence<T: Real>(
        &self,
        block: Block,
        at: Factors<'_, T>,
        along: Option<Factors<'_, T>>,
        to: &mut [T],
    ) {
        let mut p = Buffer::scratch(block.pairs * self.sizes.rank);
        let mut how = Onto::Replace;
        let mut add = |a: Option<&[T]>, p: &[T]| {
            if let Some(a) = a {
                self.of_pairs(block, a, p, how, to);
                how = Onto::Add;
            }
        };
        let s = match along {
            None => {
                self.products(block.pairs, at, at, &mut p);
                add(at.a, &p);
                at.s
            }
            Some(along) => {
                if along.a.is_some() {
                    self.products(block.pairs, at, at, &mut p);
                    add(along.a, &p);
                }
                if along.m.is_some() || along.v.is_some() {
                    self.tangents(block.pairs, at, along, &mut p);
                    add(at.a, &p);
                }
                along.s
            }
        };
        if how == Onto::Replace {
            to.fill(T::ZERO);
        }
        let s = s.map(|s| self.in_shells(block.pairs, s));
        for (query, row) in to.chunks_exact_mut(block.pairs).enumerate() {
            let (seen, hidden) = row.split_at_mut(self.sizes.visible(block.first + query));
            if let Some(s) = &s {
                seen.iter_mut().zip(s.iter()).for_each(|(x, s)| *x += *s);
            }
            hidden.fill(T::ZERO);
        }
    }

    /// What a sequence's T [queries, pairs] is without s: a Pᵀ.
    fn of_pairs<T: Real>(&self, block: Block, a: &[T], p: &[T], onto: Onto, to: &mut [T]) {
        let Block { pairs, .. } = block;
        let p = Matrix::rows_of(p, pairs, self.sizes.rank, self.sizes.rank);
        let to = Target::new(to, pairs);
        let (a, p) = (self.queries(block, a), p.transposed());
        // SAFETY: `to` is borrowed mutably.
        unsafe { multiply_at(to, 0, onto, T::ONE, a, p, false) }
    }

    /// The block's queries of a sequence's array [T, R].
    fn queries<'a, T>(&self, block: Block, data: &'a [T]) -> Matrix<'a, T> {
        let rank = self.sizes.rank;
        Matrix::rows_of(&data[block.first * rank..], block.queries, rank, rank)
    }

    fn in_shells<T: Real>(&self, pairs: usize, s: &[T]) -> Buffer<T> {
        let mut shells = Buffer::scratch(pairs);
        let length = self.sizes.length;
        let columns = shells.iter_mut().zip(&self.pairs);
        columns.for_each(|(to, [j, k])| *to = s[j * length + k]);
        shells
    }

    /// P = m_j ⊙ v_k for the first pairs, [pairs, R].
    fn products<T: Real>(&self, pairs: usize, m: Factors<T>, v: Factors<T>, p: &mut [T]) {
        p.fill(T::ZERO);
        self.add_products(pairs, m, v, p);
    }

    /// The derivative of P.
    fn tangents<T: Real>(&self, pairs: usize, at: Factors<T>, along: Factors<T>, p: &mut [T]) {
        p.fill(T::ZERO);
        self.add_products(pairs, along, at, p);
        self.add_products(pairs, at, along, p);
    }

    fn add_products<T: Real>(&self, pairs: usize, m: Factors<T>, v: Factors<T>, p: &mut [T]) {
        if let (Some(m), Some(v)) = (m.m, v.v) {
            let (pairs, rank) = (&self.pairs[..pairs], self.sizes.rank);
            simd::run(Products {
                pairs,
                rank,
                m,
                v,
                p,
            });
        }
    }

    /// Adds what a block's T got to the gradients of its factors.
    pub fn gradients<T: Real>(
        &self,
        block: Block,
        at: Factors<'_, T>,
        received: Received<'_, T>,
        sums: &mut Sums<T>,
    ) {
        let Sizes { length, rank, .. } = self.sizes;
        let size = block.queries * block.pairs;
        let [a, m, v, s] = &mut sums.0;
        let rows = a
            .chunks_exact_mut(length * rank)
            .zip(m.chunks_exact_mut(length * rank))
            .zip(v.chunks_exact_mut(length * rank))
            .zip(s.chunks_exact_mut(length * length));
        parallel::each(rows, |sequence, (((a, m), v), s)| {
            let own = |factors| self.own(factors, sequence);
            let value = &received.value[sequence * size..][..size];
            let tangent = received
                .tangent
                .map(|(data, along)| (&data[sequence * size..][..size], own(along)));
            let received = Received { value, tangent };
            self.sequence_gradients(block, own(at), received, [a, m, v, s]);
        });
    }

    fn sequence_gradients<T: Real>(
        &self,
        block: Block,
        at: Factors<'_, T>,
        received: Received<'_, T>,
        [to_a, to_m, to_v, to_s]: [&mut [T]; 4],
    ) {
        let (pairs, rank) = (block.pairs, self.sizes.rank);
        let rows = |data| Matrix::rows_of(data, block.queries, pairs, pairs);
        let value = rows(received.value);
        let tangent = received.tangent.map(|(data, along)| (rows(data), along));
        let mut p = Buffer::scratch(pairs * rank);
        self.products(pairs, at, at, &mut p);
        self.add_to_queries(block, value, &p, to_a);
        if let Some((tangent, along)) = tangent {
            self.tangents(pairs, at, along, &mut p);
            self.add_to_queries(block, tangent, &p, to_a);
        }
        // From here on it holds gradients of P, and of its derivative.
        let mut spread = |along: Factors<'_, T>, p: &[T]| {
            let pairs = &self.pairs[..pairs];
            let (m, v) = (along.m, along.v);
            let task = Spread {
                pairs,
                rank,
                p,
                m,
                v,
                to_m: &mut *to_m,
                to_v: &mut *to_v,
            };
            simd::run(task);
        };
        self.pairs_gradient(block, value, at.a, Onto::Replace, &mut p);
        if let Some((tangent, along)) = tangent {
            self.pairs_gradient(block, tangent, along.a, Onto::Add, &mut p);
        }
        spread(at, &p);
        if let Some((tangent, along)) = tangent {
            self.pairs_gradient(block, tangent, at.a, Onto::Replace, &mut p);
            spread(along, &p);
        }
        let length = self.sizes.length;
        for row in received.value.chunks_exact(pairs) {
            let columns = row.iter().zip(&self.pairs);
            columns.for_each(|(x, [j, k])| to_s[j * length + k] += *x);
        }
    }

    /// The block's queries of `to` += received P.
    fn add_to_queries<T: Real>(
        &self,
        block: Block,
        received: Matrix<'_, T>,
        p: &[T],
        to: &mut [T],
    ) {
        let rank = self.sizes.rank;
        let p = Matrix::rows_of(p, block.pairs, rank, rank);
        let to = Target::new(to, rank);
        // SAFETY: `to` is borrowed mutably.
        unsafe {
            multiply_at(
                to,
                block.first * rank,
                Onto::Add,
                T::ONE,
                received,
                p,
                false,
            )
        }
    }

    /// The gradient of P: receivedᵀ a, [pairs, R].
    fn pairs_gradient<T: Real>(
        &self,
        block: Block,
        received: Matrix<'_, T>,
        a: Option<&[T]>,
        onto: Onto,
        p: &mut [T],
    ) {
        let Some(a) = a else { return };
        let (to, a) = (Target::new(p, self.sizes.rank), self.queries(block, a));
        // SAFETY: `p` is borrowed mutably.
        unsafe { multiply_at(to, 0, onto, T::ONE, received.transposed(), a, false) }
    }
}

/// p += m_j ⊙ v_k for each pair.
struct Products<'a, T> {
    pairs: &'a [[usize; 2]],
    rank: usize,
    m: &'a [T],
    v: &'a [T],
    p: &'a mut [T],
}

impl<T: Real> Task<T> for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let rank = self.rank;
        for (p, [j, k]) in self.p.chunks_exact_mut(rank).zip(self.pairs) {
            let (m, v) = (&self.m[j * rank..][..rank], &self.v[k * rank..][..rank]);
            for h in 0..rank {
                p[h] += m[h] * v[h];
            }
        }
    }
}

/// m̄_j += p ⊙ v_k and v̄_k += p ⊙ m_j for each pair.
struct Spread<'a, T> {
    pairs: &'a [[usize; 2]],
    rank: usize,
    p: &'a [T],
    m: Option<&'a [T]>,
    v: Option<&'a [T]>,
    to_m: &'a mut [T],
    to_v: &'a mut [T],
}

impl<T: Real> Task<T> for Spread<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let rank = self.rank;
        for (p, [j, k]) in self.p.chunks_exact(rank).zip(self.pairs) {
            if let Some(v) = self.v {
                let (to, v) = (&mut self.to_m[j * rank..][..rank], &v[k * rank..][..rank]);
                for h in 0..rank {
                    to[h] += p[h] * v[h];
                }
            }
            if let Some(m) = self.m {
                let (to, m) = (&mut self.to_v[k * rank..][..rank], &m[j * rank..][..rank]);
                for h in 0..rank {
                    to[h] += p[h] * m[h];
                }
            }
        }
    }
}
