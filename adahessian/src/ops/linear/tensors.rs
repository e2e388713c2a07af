//! The linear map of `cpu.rs` in candle's products and formulas, on tensors without a graph.

use super::Linear;
use super::groups::Groups;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::SumOfProducts;
use crate::numeric::formula::{Space, plus as plus_symbols};
use crate::ops::Activation;
use candle_core::Tensor;

impl Groups {
    /// Rows as [N, width], or [G, N, width/G].
    fn rows(&self, x: &Tensor, width: usize) -> Result<Tensor> {
        let x = x.contiguous()?;
        Ok(match self.groups {
            1 => x.reshape(((), width))?,
            groups => {
                let rows = x.reshape(((), groups, width / groups))?;
                rows.transpose(0, 1)?.contiguous()?
            }
        })
    }

    /// [N, width] of rows.
    fn joined(&self, rows: Tensor, width: usize) -> Result<Tensor> {
        Ok(match self.groups {
            1 => rows,
            _ => rows.transpose(0, 1)?.reshape(((), width))?,
        })
    }

    /// W as [out, in], or [G, out/G, in/G].
    fn weight(&self, w: &Tensor) -> Result<Tensor> {
        let (inputs, outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        Ok(match self.groups {
            1 => w.reshape((outputs, inputs))?,
            groups => w.reshape((groups, outputs, inputs))?,
        })
    }
}

/// Matrices, turned.
fn turned(w: &Tensor) -> Result<Tensor> {
    Ok(w.transpose(w.rank() - 2, w.rank() - 1)?)
}

/// x and W as rows and matrices, and c where the activation is not the identity.
pub(super) struct Saved {
    x: Tensor,
    w: Tensor,
    c: Option<Tensor>,
}

/// What the second level leaves: h as rows, t g where the activation bends, and the cotangents of gx and gW.
pub(super) struct Left {
    slope: Tensor,
    bend: Option<Tensor>,
    v_x: Option<Tensor>,
    v_w: Option<Tensor>,
}

impl Linear {
    /// u act'(c), and what bends beside it.
    fn through(
        &self,
        c: &Option<Tensor>,
        u: Option<&Tensor>,
        bend: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let Some(c) = c else {
            return Ok(u.cloned());
        };
        let space = Space::whole(c.dims());
        let (c, u) = (space.entries(c)?, space.some(u)?);
        let slope = u.map(|u| self.activation.slope(&space, &c, &u));
        let sum = plus_symbols(slope, space.some(bend)?);
        let [sum] = space.compute_some([sum])?;
        Ok(sum)
    }
}

impl Kernel<Tensors> for Linear {
    type Saved = Saved;
    /// h as rows.
    type Kept = Option<Tensor>;
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let sizes = &self.sizes;
        let x = sizes.rows(&inputs[0], sizes.inputs)?;
        let w = sizes.weight(&inputs[1])?;
        let product = sizes.joined(x.matmul(&turned(&w)?)?, sizes.outputs)?;
        let bends = self.activation != Activation::Identity;
        if inputs.get(2).is_none() && !bends {
            let c = None;
            return Ok((product.into(), Saved { x, w, c }));
        }
        let space = Space::rows(product.dims(), sizes.outputs);
        let mut c = space.entries(&product)?;
        if let Some(bias) = inputs.get(2) {
            c = c + space.places(bias)?;
        }
        let y = self.activation.value(&space, &c);
        let ([y], [c]) = space.compute_both([y], [Some(c).filter(|_| bends)])?;
        Ok((y.into(), Saved { x, w, c }))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, Option<Tensor>)> {
        let (sizes, Saved { x, w, c }) = (&self.sizes, point.saved);
        let bend = deferred.as_ref().and_then(|left| left.bend.as_ref());
        let k = self.through(c, gradient, bend)?;
        let gb = match (&k, wanted.get(2)) {
            (Some(k), Some(true)) => {
                let space = Space::columns(k.dims(), sizes.outputs);
                let sum = space.entries(k)?.sum();
                let [sum] = space.compute([sum])?;
                Some(sum)
            }
            _ => None,
        };
        let k = k.map(|k| sizes.rows(&k, sizes.outputs)).transpose()?;
        let (mut gx, mut gw) = (SumOfProducts::new(), SumOfProducts::new());
        let mut add = |u: &Tensor, w: Option<&Tensor>, x: Option<&Tensor>| -> Result<()> {
            if let (Some(w), true) = (w, wanted[0]) {
                gx.add(u, w)?;
            }
            if let (Some(x), true) = (x, wanted[1]) {
                gw.add(&turned(u)?, x)?;
            }
            Ok(())
        };
        if let Some(k) = &k {
            add(k, Some(w), Some(x))?;
        }
        if let Some(Left {
            slope, v_x, v_w, ..
        }) = &deferred
        {
            add(slope, v_w.as_ref(), v_x.as_ref())?;
        }
        let (gx, gw) = (gx.sum(), gw.sum());
        let gx = gx.map(|gx| sizes.joined(gx, sizes.inputs)).transpose()?;
        let all = [gx, gw, gb].map(|gradient| gradient.map(Into::into));
        Ok((all.into(), k))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        kept: &Option<Tensor>,
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let (sizes, Saved { x, w, c }) = (&self.sizes, point.saved);
        let g = gradient.view()?;
        let v_x = numbers(cotangents.first())?;
        let v_x = v_x.map(|v| sizes.rows(&v, sizes.inputs)).transpose()?;
        let v_w = numbers(cotangents.get(1))?;
        let v_w = v_w.map(|v| sizes.weight(&v)).transpose()?;
        let mut along = SumOfProducts::new();
        if let Some(v_x) = &v_x {
            along.add(v_x, &turned(w)?)?;
        }
        if let Some(v_w) = &v_w {
            along.add(x, &turned(v_w)?)?;
        }
        let along = along.sum();
        let along = along.map(|t| sizes.joined(t, sizes.outputs)).transpose()?;
        let v_b = numbers(cotangents.get(2))?;

        let rows = g.elem_count() / sizes.outputs.max(1);
        let space = Space::rows(&[rows, sizes.outputs], sizes.outputs);
        let mut t = space.some(along.as_ref())?;
        if let Some(v_b) = &v_b {
            t = plus_symbols(t, Some(space.places(v_b)?));
        }
        let (mut tangent, mut bend, mut slope) = (t.clone(), None, None);
        if let Some(c) = c {
            let (c, g) = (space.entries(c)?, space.entries(&g)?);
            if let Some(t) = &t {
                tangent = Some(self.activation.slope(&space, &c, t));
                bend = self.activation.bend(&c, &(t * &g));
            }
            slope = Some(self.activation.slope(&space, &c, &g)).filter(|_| kept.is_none());
        }
        let [tangent, bend, slope] = space.compute_some([tangent, bend, slope])?;
        let slope = match (kept, slope) {
            (Some(h), _) => h.clone(),
            (None, Some(slope)) => sizes.rows(&slope, sizes.outputs)?,
            (None, None) => sizes.rows(&g, sizes.outputs)?,
        };
        let tangent = match tangent {
            Some(tangent) => tangent,
            None => g.zeros_like()?,
        };
        let left = Left {
            slope,
            bend,
            v_x,
            v_w,
        };
        Ok((tangent.into(), left))
    }
}
