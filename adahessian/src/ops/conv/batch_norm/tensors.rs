//! act(BN(x ∗ w) + r) by the equations of [`normalised`](super::normalised), in candle's operations on
//! tensors without a graph.

use super::ConvBatchNorm;
use super::rows::Fused;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Entrywise, Kernel, Tensors};
use crate::error::Result;
use crate::ops::Activation;
use crate::ops::conv::tensors::{Products, channel_sums};
use candle_core::Tensor;

/// What the derivatives are computed from; numbers a channel are [1, C, 1, 1].
pub(in crate::ops::conv) struct Saved {
    products: Products,
    /// x̂
    normal: Tensor,
    /// s, and γ s
    scale: Tensor,
    weighted: Tensor,
    /// a, where the activation is not the identity.
    before: Option<Tensor>,
    /// Values a channel.
    count: f64,
}

/// h and u of the first pass, and in training H and Hx.
pub(in crate::ops::conv) struct Kept {
    h: Tensor,
    u: Tensor,
    means: Option<[Tensor; 2]>,
}

/// What the second level leaves: ā, c̄_A, γ̄_A, u and the cotangents of gx and gw.
pub(in crate::ops::conv) struct Left {
    bend: Option<Tensor>,
    convolved: Option<Tensor>,
    weight: Option<Tensor>,
    u: Tensor,
    v_x: Option<Tensor>,
    v_w: Option<Tensor>,
}

impl Saved {
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        Ok((channel_sums(x)? / self.count)?)
    }

    /// B0(h) from the means of h and h x̂.
    fn centred(&self, h: &Tensor, [mean, along]: &[Tensor; 2]) -> Result<Tensor> {
        let rest = h.broadcast_sub(mean)?;
        Ok((rest - self.normal.broadcast_mul(along)?)?)
    }

    fn means(&self, h: &Tensor) -> Result<[Tensor; 2]> {
        Ok([self.mean(h)?, self.mean(&(h * &self.normal)?)?])
    }
}

fn broad(x: &Tensor) -> Result<Tensor> {
    Ok(x.reshape((1, (), 1, 1))?)
}

impl ConvBatchNorm {
    fn activation(&self) -> Activation {
        match self.activation {
            Fused::Identity => Activation::Identity,
            Fused::Relu => Activation::Relu,
            Fused::Silu => Activation::Silu,
        }
    }

    /// u act'(a)
    fn through(&self, saved: &Saved, u: &Tensor) -> Result<Tensor> {
        match &saved.before {
            Some(a) => self.activation().sloped(a, u),
            None => Ok(u.clone()),
        }
    }

    /// γ s B0(h), and in training H and Hx.
    fn inward(&self, saved: &Saved, h: &Tensor) -> Result<(Tensor, Option<[Tensor; 2]>)> {
        let (centred, means) = match &self.fixed {
            Some(_) => (h.clone(), None),
            None => {
                let means = saved.means(h)?;
                (saved.centred(h, &means)?, Some(means))
            }
        };
        Ok((centred.broadcast_mul(&saved.weighted)?, means))
    }
}

impl Kernel<Tensors> for ConvBatchNorm {
    type Saved = Saved;
    type Kept = Option<Kept>;
    type Deferred = Left;

    fn reads(&self, input: usize) -> bool {
        input < 2
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let products = Products::new(&self.conv, inputs.shape(0), inputs.shape(1));
        let c = products.forward(&inputs[0], &inputs[1])?;
        let (n, channels, h, w) = c.dims4()?;
        let count = (n * h * w) as f64;
        let (centred, variance) = match &self.fixed {
            None => {
                let mean = (channel_sums(&c)? / count)?;
                let centred = c.broadcast_sub(&mean)?;
                let variance = (channel_sums(&centred.sqr()?)? / count)?;
                self.note(mean.reshape(channels)?, variance.reshape(channels)?);
                (centred, variance)
            }
            Some(running) => {
                let of = |var: &candle_core::Var| -> Result<Tensor> {
                    broad(&var.as_detached_tensor().to_dtype(c.dtype())?)
                };
                (
                    c.broadcast_sub(&of(&running.mean)?)?,
                    of(&running.variance)?,
                )
            }
        };
        let scale = (variance + self.eps)?.sqrt()?.recip()?;
        let normal = centred.broadcast_mul(&scale)?;
        let (weight, bias) = (broad(&inputs[2])?, broad(&inputs[3])?);
        let mut a = normal.broadcast_mul(&weight)?.broadcast_add(&bias)?;
        if let Some(residual) = inputs.get(4) {
            a = (a + residual)?;
        }
        let y = self.activation().composed(&a)?;
        let saved = Saved {
            products,
            normal,
            weighted: (&scale * weight)?,
            scale,
            before: (self.activation() != Activation::Identity).then_some(a),
            count,
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
    ) -> Result<(Gradients, Option<Kept>)> {
        let saved = point.saved;
        let (x, w, products) = (point.input(0)?, point.input(1)?, &saved.products);
        let first = gradient.map(|g| self.through(saved, g)).transpose()?;
        let k = plus(first, deferred.as_ref().and_then(|left| left.bend.clone()))?;
        let (mut of_scale, mut of_shift, mut kept, mut inner) = (None, None, None, None);
        if let Some(h) = &k {
            let (u, means) = self.inward(saved, h)?;
            let total = |mean: &Tensor| mean.affine(saved.count, 0.0)?.flatten_all();
            let [shift, scale] = match &means {
                Some([mean, along]) => [total(mean)?, total(along)?],
                None => [
                    channel_sums(h)?.flatten_all()?,
                    channel_sums(&(h * &saved.normal)?)?.flatten_all()?,
                ],
            };
            (of_scale, of_shift) = (Some(scale), Some(shift));
            inner = Some(u.clone());
            let h = h.clone();
            kept = Some(Kept { h, u, means });
        }
        let left = deferred.as_ref();
        of_scale = plus(of_scale, left.and_then(|left| left.weight.clone()))?;
        let inner = plus(inner, left.and_then(|left| left.convolved.clone()))?;
        let (mut gx, mut gw) = (None, None);
        if let Some(u) = &inner {
            gx = wanted[0]
                .then(|| products.input_gradient(u, w))
                .transpose()?;
            gw = wanted[1]
                .then(|| products.weight_gradient(x, u))
                .transpose()?;
        }
        if let Some(Left { u, v_x, v_w, .. }) = left {
            if let (Some(v_w), true) = (v_w, wanted[0]) {
                gx = plus(gx, Some(products.input_gradient(u, v_w)?))?;
            }
            if let (Some(v_x), true) = (v_x, wanted[1]) {
                gw = plus(gw, Some(products.weight_gradient(v_x, u)?))?;
            }
        }
        let residual = wanted.get(4).copied().unwrap_or(false);
        let residual = k.filter(|_| residual);
        let all = [gx, gw, of_scale, of_shift, residual];
        let all = all.map(|gradient| gradient.map(Into::into));
        Ok((all.into_iter().take(wanted.len()).collect(), kept))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        kept: &Option<Kept>,
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let saved = point.saved;
        let Some(Kept { h, u, means }) = kept else {
            return Err(crate::Error::Engine {
                what: "a convolution's first pass has kept nothing".into(),
            });
        };
        let g = gradient.view()?;
        let (x, w, products) = (point.input(0)?, point.input(1)?, &saved.products);
        let Saved {
            normal,
            scale,
            weighted,
            ..
        } = saved;
        let v_x = numbers(cotangents.first())?;
        let v_w = numbers(cotangents.get(1))?;
        let v_scale = numbers(cotangents.get(2))?.map(|v| broad(&v)).transpose()?;
        let v_shift = numbers(cotangents.get(3))?.map(|v| broad(&v)).transpose()?;
        let from_x = v_x.as_ref().map(|v| products.forward(v, w)).transpose()?;
        let from_w = v_w.as_ref().map(|v| products.forward(x, v)).transpose()?;

        // h̄, c̄_A and γ̄_A by their terms.
        let (mut bar, mut convolved, mut of_weight) = (None, None, None);
        if let Some(t) = plus(from_x, from_w)? {
            let product = saved.mean(&(&t * h)?)?; // TH
            let mut shared = product;
            let mut centred = t.clone();
            if let Some([h_mean, h_along]) = means {
                let t_means = saved.means(&t)?;
                let [t_mean, t_along] = &t_means;
                let rest = ((t_mean * h_mean)? + (t_along * h_along)?)?;
                shared = (shared - rest)?;
                centred = saved.centred(&t, &t_means)?;
                let squared = (weighted * scale)?; // γ s²
                let along_normal = normal.broadcast_mul(&(&squared * &shared)?)?;
                // B0(h) is u / (γ s), where γ may be 0.
                let h_centred = saved.centred(h, &[h_mean.clone(), h_along.clone()])?;
                let by_h = h_centred.broadcast_mul(&(&squared * t_along)?)?;
                let by_t = centred.broadcast_mul(&(&squared * h_along)?)?;
                convolved = Some(((along_normal + by_h)? + by_t)?.neg()?);
            }
            let n = saved.count;
            of_weight = Some(((scale * shared)? * n)?.flatten_all()?);
            bar = Some(centred.broadcast_mul(weighted)?);
        }
        if let Some(v) = &v_scale {
            let centred = match means {
                Some(means) => saved.centred(h, means)?,
                None => h.clone(),
            };
            let part = centred.broadcast_mul(&(v * scale)?)?;
            convolved = plus(convolved, Some(part))?;
            bar = plus(bar, Some(normal.broadcast_mul(v)?))?;
        }
        if let Some(v) = &v_shift {
            bar = Some(match bar {
                Some(bar) => bar.broadcast_add(v)?,
                None => v.broadcast_as(h.shape())?.contiguous()?,
            });
        }
        let bar = plus(bar, numbers(cotangents.get(4))?)?;
        let (tangent, bend) = match (bar, &saved.before) {
            (None, _) => (g.zeros_like()?, None),
            (Some(bar), None) => (bar, None),
            (Some(bar), Some(a)) => {
                let activation = self.activation();
                let bend = match activation {
                    Activation::Relu => None,
                    activation => activation.bent(a, &(&bar * &*g)?)?,
                };
                (activation.sloped(a, &bar)?, bend)
            }
        };
        let left = Left {
            bend,
            convolved,
            weight: of_weight,
            u: u.clone(),
            v_x,
            v_w,
        };
        Ok((tangent.into(), left))
    }
}
