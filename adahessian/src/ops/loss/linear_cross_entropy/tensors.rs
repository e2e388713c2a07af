//! In candle's products and formulas, on tensors without a graph.

use super::LinearCrossEntropy;
use crate::engine::tensors::{self, Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::SumOfProducts;
use crate::numeric::formula::{Space, plus};
use crate::numeric::traced::Symbol;
use crate::ops::loss::tensors::{centred, times};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// Logits of a part: a GPU has memory, and is slowed by every call.
const LOGITS: usize = 1 << 26;

/// What the forward pass leaves: x as rows, w (0 where a row is not counted) and the class of every row (-1 where it is
/// not), and uW, uᵀx and Σu.
pub(super) struct Saved {
    x: Tensor,
    weights: Tensor,
    classes: Tensor,
    gradients: [Option<Tensor>; 3],
}

/// g, and the cotangents of the gradients.
pub(super) struct Left {
    gradient: Tensor,
    v: [Option<Tensor>; 3],
}

fn rows_of(x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    Ok(x.narrow(0, rows.start, rows.len())?)
}

/// The gradients of x, W and b, part by part.
struct Growing {
    x: Vec<Tensor>,
    w: SumOfProducts,
    b: Option<Tensor>,
}

impl Growing {
    fn new() -> Self {
        Self {
            x: Vec::new(),
            w: SumOfProducts::new(),
            b: None,
        }
    }

    /// Adds u W + …, uᵀ x + … and Σ u of the next rows, for triples (u, W, x).
    fn add(
        &mut self,
        wanted: [bool; 3],
        triples: [(Option<&Tensor>, Option<&Tensor>, Option<&Tensor>); 2],
    ) -> Result<()> {
        let mut gx = SumOfProducts::new();
        for (u, w, x) in triples {
            if let (Some(u), Some(w), true) = (u, w, wanted[0]) {
                gx.add(u, w)?;
            }
            if let (Some(u), Some(x), true) = (u, x, wanted[1]) {
                self.w.add(&u.t()?, x)?;
            }
        }
        self.x.extend(gx.sum());
        if let (Some(u), true) = (triples[0].0, wanted[2]) {
            let space = Space::columns(u.dims(), u.dim(1)?);
            let sum = space.entries(u)?.sum();
            let [sum] = space.compute([sum])?;
            self.b = Some(match self.b.take() {
                Some(b) => (b + sum)?,
                None => sum,
            });
        }
        Ok(())
    }

    fn end(self) -> Result<[Option<Tensor>; 3]> {
        let x = match &self.x[..] {
            [] => None,
            [x] => Some(x.clone()),
            all => Some(Tensor::cat(all, 0)?),
        };
        Ok([x, self.w.sum(), self.b])
    }
}

impl LinearCrossEntropy {
    /// x Wᵀ + b of rows.
    fn logits(&self, space: &Space, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Symbol> {
        let product = space.entries(&x.matmul(&w.t()?)?)?;
        Ok(match b {
            Some(b) => product + space.places(b)?,
            None => product,
        })
    }

    fn space(&self, rows: &Range<usize>) -> Space {
        Space::rows(&[rows.len(), self.entropy.classes], self.entropy.classes)
    }

    /// r and g u of a part.
    fn bent(
        &self,
        rows: &Range<usize>,
        (point, w, b): (&Saved, &Tensor, Option<&Tensor>),
        left: &Left,
    ) -> Result<[Option<Tensor>; 2]> {
        let [v_x, v_w, v_b] = &left.v;
        let x = rows_of(&point.x, rows)?;
        let mut tangents = SumOfProducts::new();
        if let Some(v_x) = v_x {
            tangents.add(&rows_of(v_x, rows)?, &w.t()?)?;
        }
        if let Some(v_w) = v_w {
            tangents.add(&x, &v_w.t()?)?;
        }
        let space = self.space(rows);
        let t = space.some(tangents.sum().as_ref())?;
        let v_b = match v_b {
            Some(v_b) => Some(space.places(v_b)?),
            None => None,
        };
        let Some(t) = plus(t, v_b) else {
            return Ok([None, None]);
        };
        let weights = rows_of(&point.weights, rows)?;
        let class = space.shared(&rows_of(&point.classes, rows)?)?;
        let logit = self.logits(&space, &x, w, b)?;
        let weight = space.shared(&weights)?;
        let p = self.entropy.powers(&space, &logit, &weight).shares();
        let factor = space.shared(&times(&left.gradient, &weights)?)?;
        let t = centred(&space, &t);
        let along = (&t * &p).sum();
        let r = (t - along) * &p * &factor;
        let u = self.entropy.slope(&space, &p, &class) * factor;
        let [r, u] = space.compute([r, u])?;
        Ok([Some(r), Some(u)])
    }
}

impl Kernel<Tensors> for LinearCrossEntropy {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Left;

    fn forward(&self, inputs: &Inputs, keep: bool) -> Result<(Output, Saved)> {
        let (w, b) = (&inputs[1], inputs.get(2));
        let x = inputs[0].contiguous()?.reshape(((), self.inputs))?;
        let [weights, classes] = self.entropy.of_rows(&x)?;
        let wanted = self.tracked.map(|tracked| tracked && keep);
        let (mut growing, mut loss) = (Growing::new(), None);
        for rows in self.parts(LOGITS) {
            let x = rows_of(&x, &rows)?;
            let [weights, classes] = [&weights, &classes].map(|of| rows_of(of, &rows));
            let (weights, classes) = (weights?, classes?);
            let space = self.space(&rows);
            let logit = self.logits(&space, &x, w, b)?;
            let (p, part) = self
                .entropy
                .probabilities(space, &logit, &weights, &classes)?;
            loss = tensors::plus(loss, Some(part))?;
            if wanted.contains(&true) {
                let space = self.space(&rows);
                let (p, class) = (space.entries(&p)?, space.shared(&classes)?);
                let u = self.entropy.slope(&space, &p, &class) * space.shared(&weights)?;
                let [u] = space.compute([u])?;
                growing.add(wanted, [(Some(&u), Some(w), Some(&x)), (None, None, None)])?;
            }
        }
        let loss = match loss {
            Some(loss) => loss.to_dtype(x.dtype())?,
            None => Tensor::zeros((), DType::F64, x.device())?.to_dtype(x.dtype())?,
        };
        let saved = Saved {
            x,
            weights,
            classes,
            gradients: growing.end()?,
        };
        Ok((loss.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let wanted = [0, 1, 2].map(|i| wanted.get(i).copied().unwrap_or(false));
        let mut growing = Growing::new();
        if let Some(left) = &deferred {
            let (w, b) = (point.input(1)?, point.optional(2)?);
            for rows in self.parts(LOGITS) {
                let [r, u] = self.bent(&rows, (point.saved, w, b), left)?;
                let x = rows_of(&point.saved.x, &rows)?;
                let v_x = left.v[0].as_ref().map(|v| rows_of(v, &rows)).transpose()?;
                let first = (r.as_ref(), Some(w), Some(&x));
                let second = (u.as_ref(), left.v[1].as_ref(), v_x.as_ref());
                growing.add(wanted, [first, second])?;
            }
        }
        let second = growing.end()?;
        let mut all = Vec::new();
        for ((saved, second), wanted) in point.saved.gradients.iter().zip(second).zip(wanted) {
            let Some(saved) = saved.as_ref().filter(|_| wanted) else {
                all.push(None);
                continue;
            };
            let space = Space::whole(saved.dims());
            let first = match gradient {
                Some(g) => Some(space.entries(saved)? * space.shared(g)?),
                None => None,
            };
            let sum = plus(first, space.some(second.as_ref())?);
            let [sum] = space.compute_some([sum])?;
            all.push(sum.map(Into::into));
        }
        all.truncate(point.lengths().count());
        Ok((all, ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let gradient = gradient.view()?.into_tensor();
        let mut v = [None, None, None];
        let mut tangent = None;
        for (i, saved) in point.saved.gradients.iter().enumerate() {
            let (Some(saved), Some(own)) = (saved, numbers(cotangents.get(i))?) else {
                continue;
            };
            let own = own.contiguous()?.reshape(saved.dims())?;
            let space = Space::whole(saved.dims());
            let sum = (space.entries(saved)? * space.entries(&own)?).sum();
            let [sum] = space.compute([sum])?;
            tangent = tensors::plus(tangent, Some(sum.reshape(())?))?;
            v[i] = Some(own);
        }
        let tangent = match tangent {
            Some(tangent) => tangent,
            None => gradient.zeros_like()?,
        };
        Ok((tangent.into(), Left { gradient, v }))
    }
}
