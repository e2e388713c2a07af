//! Dropout, residual addition and layer norm of `cpu.rs` as formulas, on tensors without a graph.

use super::Norm;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::formula::{Space, plus};
use crate::numeric::traced::Symbol;
use candle_core::Tensor;

/// x̂ and s of every row, as the input and [rows], and γ.
pub(super) struct Saved {
    unit: Tensor,
    scale: Tensor,
    weight: Tensor,
}

/// z̄_A and γ̄_A.
pub(super) struct Left {
    sum: Option<Tensor>,
    weight: Option<Tensor>,
}

/// Rows with x̂ and s.
struct Rows {
    space: Space,
    unit: Symbol,
    scale: Symbol,
}

impl Saved {
    fn width(&self) -> usize {
        self.weight.elem_count()
    }

    fn rows(&self) -> Result<Rows> {
        let space = Space::rows(self.unit.dims(), self.width());
        let (unit, scale) = (space.entries(&self.unit)?, space.shared(&self.scale)?);
        Ok(Rows { space, unit, scale })
    }

    /// Over the rows.
    fn columns(&self) -> Space {
        Space::columns(self.unit.dims(), self.width())
    }
}

impl Rows {
    /// B(u), with mean(u x̂).
    fn centred(&self, u: &Symbol) -> (Symbol, Symbol) {
        let along = self.space.mean(&(u * &self.unit));
        let rest = u - self.space.mean(u) - &self.unit * &along;
        (rest * &self.scale, along)
    }
}

impl Norm {
    /// m x
    fn masked(&self, space: &Space, x: &Symbol, like: &Tensor) -> Result<Symbol> {
        match &self.mask {
            Some(mask) => Ok(x * space.entries(&mask.factors(like)?)?),
            None => Ok(x.clone()),
        }
    }
}

impl Kernel<Tensors> for Norm {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
        let space = Space::rows(x.dims(), weight.elem_count());
        let mut z = self.masked(&space, &space.entries(x)?, x)?;
        if let Some(residual) = inputs.get(3) {
            z = z + space.entries(residual)?;
        }
        let centred = &z - space.mean(&z);
        let scale = (space.mean(&centred.square()) + self.eps).sqrt().recip();
        let unit = centred * &scale;
        let y = &unit * space.places(weight)? + space.places(bias)?;
        let [y, unit, scale] = space.compute([y, unit, scale])?;
        let saved = Saved {
            unit,
            scale,
            weight: weight.clone(),
        };
        Ok((y.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let saved = point.saved;
        let (left_sum, left_weight) = match deferred {
            Some(left) => (left.sum, left.weight),
            None => (None, None),
        };
        let rows = saved.rows()?;
        let mut sum = rows.space.some(left_sum.as_ref())?;
        if let Some(g) = gradient {
            let h = rows.space.entries(g)? * rows.space.places(&saved.weight)?;
            sum = plus(Some(rows.centred(&h).0), sum);
        }
        let wants_residual = wanted.get(3).copied().unwrap_or(false);
        let masked = sum.as_ref().filter(|_| wanted[0]);
        let masked = masked.map(|sum| self.masked(&rows.space, sum, &saved.unit));
        let masked = masked.transpose()?;
        // Without a mask both are one.
        let whole = sum.filter(|_| wants_residual && (self.mask.is_some() || !wanted[0]));
        let [x, whole] = rows.space.compute_some([masked, whole])?;
        let residual = whole.or_else(|| x.clone().filter(|_| wants_residual));

        let columns = saved.columns();
        let (mut weight, mut bias) = (None, None);
        if let Some(g) = gradient {
            let g = columns.entries(g)?;
            if wanted[1] {
                weight = Some((&g * columns.entries(&saved.unit)?).sum());
            }
            bias = wanted[2].then(|| g.sum());
        }
        if let (Some(left), true) = (left_weight, wanted[1]) {
            weight = plus(weight, Some(columns.shared(&left)?));
        }
        let [weight, bias] = columns.compute_some([weight, bias])?;
        let all = [x, weight, bias, residual].map(|gradient| gradient.map(Into::into));
        Ok((all.into_iter().take(wanted.len()).collect(), ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let (saved, gradient) = (point.saved, gradient.view()?);
        let v_x = numbers(cotangents.first())?;
        let v_residual = numbers(cotangents.get(3))?;
        let rows = saved.rows()?;
        let space = &rows.space;
        let (g, weight) = (space.entries(&gradient)?, space.places(&saved.weight)?);
        let v_x = rows.space.some(v_x.as_ref())?;
        let v_x = v_x
            .map(|v| self.masked(space, &v, &saved.unit))
            .transpose()?;
        let v = plus(v_x, rows.space.some(v_residual.as_ref())?);
        let place = |i: usize| -> Result<Option<Symbol>> {
            let v = numbers(cotangents.get(i))?;
            v.map(|v| space.places(&v)).transpose()
        };
        let (v_weight, v_bias) = (place(1)?, place(2)?);

        let (mut tangent, mut sum, mut bv) = (None, None, None);
        if let Some(v) = v {
            let (centred, v_along) = rows.centred(&v);
            let (bh, h_along) = rows.centred(&(&g * &weight));
            let common = space.mean(&(&v * &bh));
            let bent = &rows.unit * common + bh * v_along + &centred * h_along;
            sum = Some(-(bent * &rows.scale));
            tangent = Some(&centred * &weight);
            bv = Some(centred);
        }
        if let Some(v_weight) = v_weight {
            sum = plus(Some(rows.centred(&(&g * &v_weight)).0), sum);
            tangent = plus(Some(&rows.unit * v_weight), tangent);
        }
        tangent = plus(tangent, v_bias);
        let [tangent, sum, bv] = rows.space.compute_some([tangent, sum, bv])?;
        let columns = saved.columns();
        let of_weight = match &bv {
            Some(bv) => Some((columns.entries(&gradient)? * columns.entries(bv)?).sum()),
            None => None,
        };
        let [weight] = columns.compute_some([of_weight])?;
        let tangent = tangent.map_or_else(|| gradient.zeros_like(), Ok)?;
        Ok((tangent.into(), Left { sum, weight }))
    }
}
