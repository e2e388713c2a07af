//! act(BN(x ∗ w) + r) by the equations of [`normalised`](super::normalised) as formulas, on tensors without a graph.

use super::ConvBatchNorm;
use super::rows::Fused;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors, there};
use crate::error::Result;
use crate::numeric::formula::{Space, plus};
use crate::numeric::traced::Symbol;
use crate::ops::Activation;
use crate::ops::conv::tensors::{Products, no_product};
use candle_core::Tensor;

/// What the derivatives are computed from; numbers a channel are [C].
pub(in crate::ops::conv) struct Saved {
    products: Products,
    /// x̂
    normal: Tensor,
    /// s, and γ s
    scale: Tensor,
    weighted: Tensor,
    /// a, where the activation is not the identity.
    before: Option<Tensor>,
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

/// Channels with x̂, s, γ s and a.
struct Channels {
    space: Space,
    normal: Symbol,
    scale: Symbol,
    weighted: Symbol,
    before: Option<Symbol>,
}

impl Saved {
    fn channels(&self) -> Result<Channels> {
        let space = Space::channels(self.normal.dims());
        Ok(Channels {
            normal: space.entries(&self.normal)?,
            scale: space.shared(&self.scale)?,
            weighted: space.shared(&self.weighted)?,
            before: space.some(self.before.as_ref())?,
            space,
        })
    }
}

impl Channels {
    /// B0(h) from the means of h and h x̂.
    fn centred(&self, h: &Symbol, [mean, along]: &[Symbol; 2]) -> Symbol {
        h - mean - &self.normal * along
    }

    fn means(&self, h: &Symbol) -> [Symbol; 2] {
        [self.space.mean(h), self.space.mean(&(h * &self.normal))]
    }
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
    fn through(&self, channels: &Channels, u: &Symbol) -> Symbol {
        match &channels.before {
            Some(a) => self.activation().slope(&channels.space, a, u),
            None => u.clone(),
        }
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
        let c = products.forward(&[(&inputs[0], &inputs[1])])?;
        let c = c.ok_or_else(no_product)?;
        let space = Space::channels(c.dims());
        let x = space.entries(&c)?;
        let (centred, variance, moments) = match &self.fixed {
            None => {
                let mean = space.mean(&x);
                let centred = &x - &mean;
                let variance = space.mean(&centred.square());
                (centred, variance.clone(), [Some(mean), Some(variance)])
            }
            Some(running) => {
                let of = |var: &candle_core::Var| {
                    space.shared(&var.as_detached_tensor().to_dtype(c.dtype())?)
                };
                (x - of(&running.mean)?, of(&running.variance)?, [None, None])
            }
        };
        let scale = (variance + self.eps).sqrt().recip();
        let normal = centred * &scale;
        let weight = space.shared(&inputs[2])?;
        let weighted = &scale * &weight;
        let mut a = &normal * weight + space.shared(&inputs[3])?;
        if let Some(residual) = inputs.get(4) {
            a = a + space.entries(residual)?;
        }
        let y = self.activation().value(&space, &a);
        let before = Some(a).filter(|_| self.activation() != Activation::Identity);
        let [mean, variance] = moments;
        let (always, sometimes) = ([y, normal, scale, weighted], [before, mean, variance]);
        let ([y, normal, scale, weighted], [before, mean, variance]) =
            space.compute_both(always, sometimes)?;
        if let (Some(mean), Some(variance)) = (mean, variance) {
            self.note(mean, variance);
        }
        let saved = Saved {
            products,
            normal,
            scale,
            weighted,
            before,
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
        let left = deferred.as_ref();
        let First {
            kept,
            inner,
            of_scale,
            of_shift,
        } = self.first(saved, gradient, left)?;
        let (first, second) = (inner.as_ref(), left.map(|left| &left.u));
        let v_x = left.and_then(|left| left.v_x.as_ref());
        let v_w = left.and_then(|left| left.v_w.as_ref());
        let (mut gx, mut gw) = (None, None);
        if wanted[0] {
            gx = products.input_gradient(&there([(first, Some(w)), (second, v_w)]))?;
        }
        if wanted[1] {
            gw = products.weight_gradient(&there([(Some(x), first), (v_x, second)]))?;
        }
        let wants_residual = wanted.get(4).copied().unwrap_or(false);
        let residual = kept.as_ref().map(|kept| kept.h.clone());
        let residual = residual.filter(|_| wants_residual);
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
        let Some(kept) = kept else {
            return Err(missing());
        };
        let (x, w, products) = (point.input(0)?, point.input(1)?, &saved.products);
        let v_x = numbers(cotangents.first())?;
        let v_w = numbers(cotangents.get(1))?;
        let pairs = there([(v_x.as_ref(), Some(w)), (Some(x), v_w.as_ref())]);
        let along = products.forward(&pairs)?;
        let g = gradient.view()?;
        let second = self.second(saved, &g, kept, along.as_ref(), cotangents)?;
        let tangent = second.tangent.map_or_else(|| g.zeros_like(), Ok)?;
        let left = Left {
            bend: second.bend,
            convolved: second.convolved,
            weight: second.weight,
            u: kept.u.clone(),
            v_x,
            v_w,
        };
        Ok((tangent.into(), left))
    }
}

fn missing() -> crate::Error {
    crate::Error::Engine {
        what: "a convolution's first pass has kept nothing".into(),
    }
}

/// The first pass before the products: what it keeps, c̄, and the gradients of γ and β.
struct First {
    kept: Option<Kept>,
    inner: Option<Tensor>,
    of_scale: Option<Tensor>,
    of_shift: Option<Tensor>,
}

/// The second level behind the products: ȳ's tangent, ā, c̄_A and γ̄_A.
struct Second {
    tangent: Option<Tensor>,
    bend: Option<Tensor>,
    convolved: Option<Tensor>,
    weight: Option<Tensor>,
}

impl ConvBatchNorm {
    fn first(
        &self,
        saved: &Saved,
        gradient: Option<&Tensor>,
        left: Option<&Left>,
    ) -> Result<First> {
        let channels = saved.channels()?;
        let space = &channels.space;
        let bend = space.some(left.and_then(|left| left.bend.as_ref()))?;
        let as_it_is = saved.before.is_none() && bend.is_none();
        let g = space.some(gradient)?;
        let g = g.map(|g| self.through(&channels, &g));
        let convolved = space.some(left.and_then(|left| left.convolved.as_ref()))?;
        let weight = left.and_then(|left| left.weight.as_ref());
        let weight = weight.map(|weight| space.shared(weight)).transpose()?;
        let Some(h) = plus(g, bend) else {
            let [inner, of_scale] = channels.space.compute_some([convolved, weight])?;
            return Ok(First {
                kept: None,
                inner,
                of_scale,
                of_shift: None,
            });
        };
        let means = channels.means(&h);
        let centred = match &self.fixed {
            None => channels.centred(&h, &means),
            Some(_) => h.clone(),
        };
        let u = centred * &channels.weighted;
        let [of_shift, of_scale] = means.clone().map(|mean| mean * space.count());
        let of_scale = plus(Some(of_scale), weight);
        let inner = convolved.map(|convolved| &u + convolved);
        let [mean, along] = means.map(|mean| Some(mean).filter(|_| self.fixed.is_none()));
        let h = Some(h).filter(|_| !as_it_is);
        let ([u, of_shift], [h, mean, along, of_scale, inner]) = channels
            .space
            .compute_both([u, of_shift], [h, mean, along, of_scale, inner])?;
        // Without an activation it is the gradient itself.
        let h = h.or_else(|| gradient.cloned()).ok_or_else(missing)?;
        let means = mean.zip(along).map(|(mean, along)| [mean, along]);
        Ok(First {
            inner: inner.or_else(|| Some(u.clone())),
            kept: Some(Kept { h, u, means }),
            of_scale,
            of_shift: Some(of_shift),
        })
    }

    fn second(
        &self,
        saved: &Saved,
        gradient: &Tensor,
        kept: &Kept,
        along: Option<&Tensor>,
        cotangents: &[Option<Held>],
    ) -> Result<Second> {
        let channels = saved.channels()?;
        let Channels {
            space,
            normal,
            scale,
            weighted,
            before,
        } = &channels;
        let h = space.entries(&kept.h)?;
        let means = match &kept.means {
            Some([mean, along]) => Some([space.shared(mean)?, space.shared(along)?]),
            None => None,
        };
        // B0(h) is u / (γ s), where γ may be 0.
        let h_centred = match &means {
            Some(means) => channels.centred(&h, means),
            None => h.clone(),
        };
        let shared = |i: usize| -> Result<Option<Symbol>> {
            let v = numbers(cotangents.get(i))?;
            v.map(|v| space.shared(&v)).transpose()
        };
        let (v_scale, v_shift) = (shared(2)?, shared(3)?);
        let v_residual = numbers(cotangents.get(4))?;

        // h̄, c̄_A and γ̄_A by their terms.
        let (mut bar, mut convolved, mut weight) = (None, None, None);
        if let Some(t) = space.some(along)? {
            let mut shared = space.mean(&(&t * &h)); // TH
            let mut centred = t.clone();
            if let Some([h_mean, h_along]) = &means {
                let t_means = channels.means(&t);
                let [t_mean, t_along] = &t_means;
                shared = shared - (t_mean * h_mean + t_along * h_along);
                centred = channels.centred(&t, &t_means);
                let squared = weighted * scale; // γ s²
                let along_normal = normal * (&squared * &shared);
                let by_h = &h_centred * (&squared * t_along);
                let by_t = &centred * (&squared * h_along);
                convolved = Some(-(along_normal + by_h + by_t));
            }
            weight = Some(scale * shared * space.count());
            bar = Some(centred * weighted);
        }
        if let Some(v) = &v_scale {
            convolved = plus(convolved, Some(&h_centred * (v * scale)));
            bar = plus(bar, Some(normal * v));
        }
        bar = plus(bar, v_shift.map(|v| v.spread()));
        bar = plus(bar, space.some(v_residual.as_ref())?);
        let bend = match (&bar, before) {
            (Some(bar), Some(a)) => {
                let w = bar * space.entries(gradient)?;
                self.activation().bend(a, &w)
            }
            _ => None,
        };
        let tangent = bar.map(|bar| self.through(&channels, &bar));
        let [tangent, bend, convolved, weight] = channels
            .space
            .compute_some([tangent, bend, convolved, weight])?;
        Ok(Second {
            tangent,
            bend,
            convolved,
            weight,
        })
    }
}
