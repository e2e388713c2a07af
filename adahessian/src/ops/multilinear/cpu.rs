//! Multi-linear attention as one operation.
//!
//! With W's columns and T's in one order of the pairs, P_{(j,k)} = m_j ⊙ v_k and P' its derivative in a direction (m', v'):
//! ```text
//! F:   T = a Pᵀ + s where visible, 0 elsewhere;   y = T Wᵀ
//! A:   gT = g W where visible;   ga = gT P;   gP = gTᵀ a;   gs = Σ_i gT_i;   gW = gᵀ T
//!      gm_j = Σ_k gP_{(j,k)} ⊙ v_k;   gv_k = Σ_j gP_{(j,k)} ⊙ m_j
//! ∂A:  T' = v_a Pᵀ + a P'ᵀ + v_s along the cotangents;   ḡ = T' Wᵀ + T v_Wᵀ
//! ∂F:  T̄ = ȳ W + g v_W;   gT = g W;   ā = T̄ P + gT P';   P̄ = T̄ᵀ a + gTᵀ v_a;   P̄' = gTᵀ a;   W̄ = ȳᵀ T + gᵀ T'
//!      m̄_j = Σ_k P̄ ⊙ v_k + P̄' ⊙ v_{v,k};   v̄_k = Σ_j P̄ ⊙ m_j + P̄' ⊙ v_{m,j};   s̄ = Σ_i T̄_i
//! ```
//! One block of queries at a time, so that none of the T is held whole; all sequences together, so that W is read once a
//! block.

use super::MultilinearAttention;
use super::pairs::{Block, Sizes};
use super::work::{Factors, Received, Sums, Work};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point, View};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::{Buffer, Matrix, Onto, Real, multiply};

/// W's place among the inputs.
const WEIGHT: usize = 4;

impl Work {
    /// The block's rows of an array [B, T, D], [B · queries, D].
    fn gather<T: Real>(&self, block: Block, data: &[T]) -> Buffer<T> {
        let Sizes {
            length, outputs, ..
        } = self.sizes;
        let (from, size) = (block.first * outputs, block.queries * outputs);
        let mut rows = Buffer::scratch(self.sizes.batch * size);
        let sequences = data.chunks_exact(length * outputs);
        for (to, sequence) in rows.chunks_exact_mut(size).zip(sequences) {
            to.copy_from_slice(&sequence[from..][..size]);
        }
        rows
    }

    fn scatter<T: Real>(&self, block: Block, rows: &[T], to: &mut [T]) {
        let Sizes {
            length, outputs, ..
        } = self.sizes;
        let (at, size) = (block.first * outputs, block.queries * outputs);
        let sequences = to.chunks_exact_mut(length * outputs);
        for (rows, sequence) in rows.chunks_exact(size).zip(sequences) {
            sequence[at..][..size].copy_from_slice(rows);
        }
    }

    /// T of all sequences as a matrix.
    fn matrix<'a, T>(&self, block: Block, values: &'a [T]) -> Matrix<'a, T> {
        let rows = self.sizes.batch * block.queries;
        Matrix::rows_of(values, rows, block.pairs, block.pairs)
    }

    /// The block's pairs of a weight in shells.
    fn columns<'a, T>(&self, block: Block, shells: &'a [T]) -> Matrix<'a, T> {
        let all = self.sizes.length * self.sizes.length;
        Matrix::rows_of(shells, self.sizes.outputs, block.pairs, all)
    }

    /// rows (+)= values · shellsᵀ
    fn map<T: Real>(&self, block: Block, values: &[T], shells: &[T], onto: Onto, rows: &mut [T]) {
        let (values, weight) = (self.matrix(block, values), self.columns(block, shells));
        multiply(
            rows,
            self.sizes.outputs,
            0,
            onto,
            values,
            weight.transposed(),
        );
    }

    /// values (+)= rows · shells; what no query sees is cleared at the end, by `clear`.
    fn map_back<T: Real>(
        &self,
        block: Block,
        rows: &[T],
        shells: &[T],
        onto: Onto,
        values: &mut [T],
    ) {
        let outputs = self.sizes.outputs;
        let count = self.sizes.batch * block.queries;
        let rows = Matrix::rows_of(rows, count, outputs, outputs);
        let weight = self.columns(block, shells);
        multiply(values, block.pairs, 0, onto, rows, weight);
    }

    fn clear<T: Real>(&self, block: Block, values: &mut [T]) {
        for sequence in values.chunks_exact_mut(block.queries * block.pairs) {
            for (query, row) in sequence.chunks_exact_mut(block.pairs).enumerate() {
                row[self.sizes.visible(block.first + query)..].fill(T::ZERO);
            }
        }
    }

    /// The gradient of a weight in shells += rowsᵀ · values.
    fn add_to_weight<T: Real>(&self, block: Block, rows: &[T], values: &[T], shells: &mut [T]) {
        let outputs = self.sizes.outputs;
        let count = self.sizes.batch * block.queries;
        let rows = Matrix::rows_of(rows, count, outputs, outputs).transposed();
        let all = self.sizes.length * self.sizes.length;
        multiply(shells, all, 0, Onto::Add, rows, self.matrix(block, values));
    }
}

/// What the second level leaves: g and the cotangents of the gradients.
pub(super) struct Left<T: Real> {
    gradient: Array<T>,
    cotangents: [Option<Array<T>>; 5],
}

type Views<'a, T> = [Option<View<'a, T>>; 5];

fn factors<'a, T: Real>(views: &'a Views<'_, T>) -> Factors<'a, T> {
    let [a, m, v, s, _] = views.each_ref().map(|view| view.as_deref());
    Factors { a, m, v, s }
}

/// The values at which it is differentiated.
fn at<'a, T: Real>(point: &'a Point<T, Work>) -> Result<Factors<'a, T>> {
    Ok(Factors {
        a: Some(point.input(0)?),
        m: Some(point.input(1)?),
        v: Some(point.input(2)?),
        s: Some(point.input(3)?),
    })
}

impl<T: Real> Kernel<Cpu<T>> for MultilinearAttention {
    type Saved = Work;
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Work)> {
        let shapes: Vec<&[usize]> = (0..=WEIGHT).map(|i| inputs.shape(i)).collect();
        let work = Work::new(Sizes::of(&shapes, self.causal)?);
        let Sizes {
            batch,
            length,
            outputs,
            ..
        } = work.sizes;
        let at = Factors {
            a: Some(&inputs[0]),
            m: Some(&inputs[1]),
            v: Some(&inputs[2]),
            s: Some(&inputs[3]),
        };
        let shells = work.shells(&inputs[WEIGHT]);
        let mut y = Buffer::scratch(batch * length * outputs);
        for block in work.sizes.blocks() {
            let values = work.values(block, at, None);
            let mut rows = Buffer::scratch(batch * block.queries * outputs);
            work.map(block, &values, &shells, Onto::Replace, &mut rows);
            work.scatter(block, &rows, &mut y);
        }
        Ok((y.into(), work))
    }

    fn adjoint(
        &self,
        point: &Point<T, Work>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (work, at) = (point.saved, at(point)?);
        let left = deferred.as_ref();
        let g = left.map(|left| left.gradient.view()).transpose()?;
        let mut views: Views<'_, T> = Default::default();
        if let Some(left) = left {
            for (view, cotangent) in views.iter_mut().zip(&left.cotangents) {
                *view = cotangent.as_ref().map(Array::view).transpose()?;
            }
        }
        let along = factors(&views);
        let shells = work.shells(point.input(WEIGHT)?);
        let other_shells = views[WEIGHT].as_deref().map(|weight| work.shells(weight));
        let mut sums = Sums::new(&work.sizes);
        let mut weight = Buffer::zeroed(match wanted[WEIGHT] {
            true => shells.len(),
            false => 0,
        });
        for block in work.sizes.blocks() {
            let rows = gradient.map(|y| work.gather(block, y));
            let other_rows = g.as_deref().map(|g| work.gather(block, g));
            let size = work.sizes.batch * block.queries * block.pairs;
            let mut value = Buffer::zeroed(size);
            if let Some(rows) = &rows {
                work.map_back(block, rows, &shells, Onto::Add, &mut value);
            }
            if let (Some(rows), Some(shells)) = (&other_rows, &other_shells) {
                work.map_back(block, rows, shells, Onto::Add, &mut value);
            }
            work.clear(block, &mut value);
            let tangent = other_rows.as_deref().map(|rows| {
                let mut tangent = Buffer::scratch(size);
                work.map_back(block, rows, &shells, Onto::Replace, &mut tangent);
                work.clear(block, &mut tangent);
                tangent
            });
            let received = Received {
                value: &value,
                tangent: tangent.as_deref().map(|tangent| (tangent, along)),
            };
            work.gradients(block, at, received, &mut sums);
            if wanted[WEIGHT] {
                if let Some(rows) = &rows {
                    let values = work.values(block, at, None);
                    work.add_to_weight(block, rows, &values, &mut weight);
                }
                if let Some(rows) = &other_rows {
                    let values = work.values(block, at, Some(along));
                    work.add_to_weight(block, rows, &values, &mut weight);
                }
            }
        }
        let weight = wanted[WEIGHT].then(|| work.unshelled(&weight));
        let sums = sums.into_buffers().into_iter().zip(wanted);
        let sums = sums.map(|(sum, wanted)| wanted.then_some(sum));
        Ok((sums.chain([weight]).collect(), ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Work>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let (work, at) = (point.saved, at(point)?);
        let mut views: Views<'_, T> = Default::default();
        for (view, cotangent) in views.iter_mut().zip(cotangents) {
            *view = cotangent.as_ref().map(Held::view).transpose()?;
        }
        let along = factors(&views);
        let shells = work.shells(point.input(WEIGHT)?);
        let other_shells = views[WEIGHT].as_deref().map(|weight| work.shells(weight));
        let mut y = Buffer::scratch(gradient.view()?.len());
        for block in work.sizes.blocks() {
            let mut rows = Buffer::scratch(work.sizes.batch * block.queries * work.sizes.outputs);
            let values = work.values(block, at, Some(along));
            work.map(block, &values, &shells, Onto::Replace, &mut rows);
            if let Some(shells) = &other_shells {
                let values = work.values(block, at, None);
                work.map(block, &values, shells, Onto::Add, &mut rows);
            }
            work.scatter(block, &rows, &mut y);
        }
        let left = Left {
            gradient: gradient.clone(),
            cotangents: std::array::from_fn(|i| cotangents[i].as_ref().map(Held::keep)),
        };
        Ok((y.into(), left))
    }
}
