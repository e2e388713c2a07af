//! The linear map of `cpu.rs` in candle's products and formulas, on tensors without a graph.

use super::Linear;
use super::groups::Groups;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
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

/// x Wᵀ of rows.
fn onward(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&w.transpose(w.rank() - 2, w.rank() - 1)?)?)
}

/// uᵀ x of rows.
fn between(u: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(u.transpose(u.rank() - 2, u.rank() - 1)?.matmul(x)?)
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
        let product = sizes.joined(onward(&x, &w)?, sizes.outputs)?;
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
        let (mut gx, mut gw) = (None, None);
        if let Some(k) = &k {
            gx = wanted[0].then(|| k.matmul(w)).transpose()?;
            gw = wanted[1].then(|| between(k, x)).transpose()?;
        }
        if let Some(Left {
            slope: h, v_x, v_w, ..
        }) = &deferred
        {
            if let (Some(v_w), true) = (v_w, wanted[0]) {
                gx = plus(gx, Some(h.matmul(v_w)?))?;
            }
            if let (Some(v_x), true) = (v_x, wanted[1]) {
                gw = plus(gw, Some(between(h, v_x)?))?;
            }
        }
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
        let from_x = v_x.as_ref().map(|v| onward(v, w)).transpose()?;
        let from_w = v_w.as_ref().map(|v| onward(x, v)).transpose()?;
        let joined = |t: Option<Tensor>| t.map(|t| sizes.joined(t, sizes.outputs)).transpose();
        let (from_x, from_w) = (joined(from_x)?, joined(from_w)?);
        let v_b = numbers(cotangents.get(2))?;

        let rows = g.elem_count() / sizes.outputs.max(1);
        let space = Space::rows(&[rows, sizes.outputs], sizes.outputs);
        let mut t = plus_symbols(space.some(from_x.as_ref())?, space.some(from_w.as_ref())?);
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
