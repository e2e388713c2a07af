//! The interaction of `cpu.rs` in candle's products, on tensors without a graph.
//!
//! All pairs of a sample are one product T Tᵀ, half of which is picked; G(y) is picked from y.

use super::{Interaction, Sizes};
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::SumOfProducts;
use crate::numeric::formula::Space;
use candle_core::{Device, Tensor};

/// What a sample's numbers are picked by.
pub(super) struct Picks {
    sizes: Sizes,
    /// Of the n² products, those of (i, j) for i > j.
    pairs: Tensor,
    /// Those of (j, i).
    swapped: Tensor,
    /// Of y, what stands at each of the n² places of G(y), and something on its diagonal.
    places: Tensor,
    /// 0 on the diagonal, else 1.
    apart: Tensor,
}

impl Picks {
    fn new(sizes: Sizes, like: &Tensor) -> Result<Self> {
        let (n, pairs) = (sizes.vectors, sizes.pairs());
        let (mut ids, mut swapped) = (Vec::new(), Vec::new());
        let mut places = vec![0; n * n];
        for i in 0..n {
            for j in 0..i {
                let y = (sizes.width + ids.len()) as u32;
                (places[i * n + j], places[j * n + i]) = (y, y);
                ids.push((i * n + j) as u32);
                swapped.push((j * n + i) as u32);
            }
        }
        let apart = (0..n * n).map(|place| f32::from(u8::from(place % (n + 1) != 0)));
        let apart = Tensor::from_iter(apart, &Device::Cpu)?;
        ids.extend(swapped);
        ids.extend(places);
        let ids = Tensor::new(ids, &Device::Cpu)?.to_device(like.device())?;
        Ok(Self {
            sizes,
            pairs: ids.narrow(0, 0, pairs)?,
            swapped: ids.narrow(0, pairs, pairs)?,
            places: ids.narrow(0, 2 * pairs, n * n)?,
            apart: apart.to_dtype(like.dtype())?.to_device(like.device())?,
        })
    }

    /// [B, n, m] of what there is; at least one of both is.
    fn vectors(&self, dense: Option<Tensor>, bags: Option<Tensor>) -> Result<Option<Tensor>> {
        let Sizes {
            batch,
            vectors,
            width,
        } = self.sizes;
        let Some(like) = dense.as_ref().or(bags.as_ref()) else {
            return Ok(None);
        };
        let zeros = |count| Tensor::zeros((batch, count, width), like.dtype(), like.device());
        let all = [
            dense.as_ref().map(|dense| dense.unsqueeze(1)),
            bags.as_ref().map(|bags| Ok(bags.clone())),
        ];
        let [dense, bags] = all.map(Option::transpose);
        let dense = dense?.map_or_else(|| zeros(1), Ok)?;
        let bags = bags?.map_or_else(|| zeros(vectors - 1), Ok)?;
        Ok(Some(Tensor::cat(&[dense, bags], 1)?.contiguous()?))
    }

    /// G(y) [B, n, n].
    fn symmetric(&self, y: &Tensor) -> Result<Tensor> {
        let Sizes { batch, vectors, .. } = self.sizes;
        let picked = y.contiguous()?.index_select(&self.places, 1)?;
        let space = Space::rows(&[batch, vectors, vectors], vectors * vectors);
        let entries = space.entries(&picked)? * space.places(&self.apart)?;
        let [symmetric] = space.compute([entries])?;
        Ok(symmetric)
    }

    fn pick(&self, products: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let Sizes { batch, vectors, .. } = self.sizes;
        let products = products.reshape((batch, vectors * vectors))?;
        Ok(products.index_select(ids, 1)?)
    }
}

pub(super) struct Saved {
    picks: Picks,
    /// T [B, n, m].
    t: Tensor,
}

/// What the second level leaves: G(g), and v [B, n, m] where there is one.
pub(super) struct Left {
    symmetric: Tensor,
    v: Option<Tensor>,
}

impl Kernel<Tensors> for Interaction {
    type Saved = Saved;
    /// G(g).
    type Kept = Option<Tensor>;
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let (dense, bags) = (&inputs[0], &inputs[1]);
        let picks = Picks::new(Sizes::of(dense.dims(), bags.dims())?, dense)?;
        let t = Tensor::cat(&[&dense.unsqueeze(1)?, bags], 1)?.contiguous()?;
        let products = t.matmul(&t.t()?)?;
        let pairs = picks.pick(&products, &picks.pairs)?;
        let y = Tensor::cat(&[dense, &pairs], 1)?;
        Ok((y.into(), Saved { picks, t }))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, Option<Tensor>)> {
        let Saved { picks, t } = point.saved;
        let width = picks.sizes.width;
        let symmetric = gradient.map(|g| picks.symmetric(g)).transpose()?;
        let mut sum = SumOfProducts::new();
        if let Some(symmetric) = &symmetric {
            sum.add(symmetric, t)?;
        }
        if let Some(Left {
            symmetric,
            v: Some(v),
        }) = &deferred
        {
            sum.add(symmetric, v)?;
        }
        let Some(sum) = sum.sum() else {
            return Ok((vec![None, None], symmetric));
        };
        let (mut dense, mut bags) = (None, None);
        if wanted[0] {
            let from_pairs = sum.narrow(1, 0, 1)?.squeeze(1)?;
            let itself = gradient.map(|g| g.narrow(1, 0, width)).transpose()?;
            dense = plus(Some(from_pairs), itself)?;
        }
        if wanted[1] {
            bags = Some(sum.narrow(1, 1, picks.sizes.vectors - 1)?);
        }
        Ok((
            [dense, bags].map(|part| part.map(Into::into)).into(),
            symmetric,
        ))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        kept: &Option<Tensor>,
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let Saved { picks, t } = point.saved;
        let Sizes { batch, width, .. } = picks.sizes;
        let g = gradient.view()?;
        let symmetric = match kept {
            Some(symmetric) => symmetric.clone(),
            None => picks.symmetric(&g)?,
        };
        let [dense, bags] = [0, 1].map(|i| numbers(cotangents.get(i)));
        let (dense, bags) = (dense?, bags?);
        let start = match &dense {
            Some(dense) => dense.clone(),
            None => Tensor::zeros((batch, width), g.dtype(), g.device())?,
        };
        let v = picks.vectors(dense, bags)?;
        let tangent = match &v {
            Some(v) => {
                let products = v.matmul(&t.t()?)?;
                let one = picks.pick(&products, &picks.pairs)?;
                let pairs = (one + picks.pick(&products, &picks.swapped)?)?;
                Tensor::cat(&[&start, &pairs], 1)?
            }
            None => g.zeros_like()?,
        };
        Ok((tangent.into(), Left { symmetric, v }))
    }
}
