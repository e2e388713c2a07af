//! The multi-linear attention of `cpu.rs` in candle's operations, on tensors without a graph. T is held whole here.

use super::pairs::Sizes;
use super::{MultilinearAttention, columns, visible};
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::SumOfProducts;
use candle_core::Tensor;

/// What the derivatives are computed from.
pub(super) struct Saved {
    /// [B, T, R]
    a: Tensor,
    m: Tensor,
    v: Tensor,
    /// P, [B, T², R]
    pairs: Tensor,
    /// [B · T, T²]
    values: Tensor,
    /// The columns of W that belong to pairs, [D, T²], and their numbers where there are others.
    weight: Tensor,
    columns: Option<Tensor>,
    /// [T, T²], where not every pair is seen.
    visible: Option<Tensor>,
    batch: usize,
    length: usize,
}

/// What the second level leaves, in the words of `cpu.rs`.
pub(super) struct Left {
    gradient: Tensor,
    of_values: Tensor,
    tangent: Tensor,
    pairs: Option<Tensor>,
    v_a: Option<Tensor>,
    v_m: Option<Tensor>,
    v_v: Option<Tensor>,
    v_w: Option<Tensor>,
}

impl Saved {
    /// m_j ⊙ v_k of all pairs.
    fn product(&self, m: &Tensor, v: &Tensor) -> Result<Tensor> {
        let pairs = m.unsqueeze(2)?.broadcast_mul(&v.unsqueeze(1)?)?;
        Ok(pairs.reshape((self.batch, self.length * self.length, ()))?)
    }

    /// Rows of T, [B · T, T²], as [B, T, T²].
    fn by_sequence(&self, values: &Tensor) -> Result<Tensor> {
        let pairs = self.length * self.length;
        Ok(values.reshape((self.batch, self.length, pairs))?)
    }

    /// What is seen of T, as rows.
    fn seen(&self, values: Tensor) -> Result<Tensor> {
        let values = self.by_sequence(&values)?;
        let values = match &self.visible {
            Some(visible) => values.broadcast_mul(visible)?,
            None => values,
        };
        let pairs = self.length * self.length;
        Ok(values.reshape((self.batch * self.length, pairs))?)
    }

    /// The columns of a weight that belong to pairs.
    fn own(&self, weight: &Tensor) -> Result<Tensor> {
        Ok(match &self.columns {
            Some(columns) => weight.index_select(columns, 1)?,
            None => weight.clone(),
        })
    }

    /// Σ_k P̄_{(j,k)} ⊙ v_k
    fn over_keys(&self, pairs: &Tensor, v: &Tensor) -> Result<Tensor> {
        let pairs = pairs.reshape((self.batch, self.length, self.length, ()))?;
        Ok(pairs.broadcast_mul(&v.unsqueeze(1)?)?.sum(2)?)
    }

    /// Σ_j P̄_{(j,k)} ⊙ m_j
    fn over_queries(&self, pairs: &Tensor, m: &Tensor) -> Result<Tensor> {
        let pairs = pairs.reshape((self.batch, self.length, self.length, ()))?;
        Ok(pairs.broadcast_mul(&m.unsqueeze(2)?)?.sum(1)?)
    }

    fn rows(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        Ok(x.reshape((self.batch * self.length, ()))?)
    }
}

impl Kernel<Tensors> for MultilinearAttention {
    type Saved = Saved;
    /// gT as rows.
    type Kept = Option<Tensor>;
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let shapes: Vec<&[usize]> = (0..5).map(|i| inputs.shape(i)).collect();
        let Sizes {
            batch,
            length,
            window,
            ..
        } = Sizes::of(&shapes, self.causal)?;
        let [a, m, v, s] = [0, 1, 2, 3].map(|i| inputs[i].contiguous());
        let a = a?;
        let mut saved = Saved {
            pairs: a.clone(),
            values: a.clone(),
            weight: inputs[4].clone(),
            columns: None,
            visible: None,
            m: m?,
            v: v?,
            batch,
            length,
            a,
        };
        if window != length {
            saved.columns = Some(columns(length, window, saved.a.device())?);
        }
        if self.causal {
            saved.visible = Some(visible(length, saved.a.dtype(), saved.a.device())?);
        }
        saved.weight = saved.own(&inputs[4])?;
        saved.pairs = saved.product(&saved.m, &saved.v)?;
        let values = saved.a.matmul(&saved.pairs.t()?)?;
        let s = s?.reshape((batch, 1, length * length))?;
        saved.values = saved.seen(values.broadcast_add(&s)?)?;
        let y = saved.values.matmul(&saved.weight.t()?)?;
        Ok((y.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        _: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, Option<Tensor>)> {
        let saved = point.saved;
        let g = gradient.map(|g| saved.rows(g)).transpose()?;
        let (mut of_values, mut gw) = (SumOfProducts::new(), SumOfProducts::new());
        if let Some(g) = &g {
            of_values.add(g, &saved.weight)?;
            gw.add(&g.t()?, &saved.values)?;
        }
        let left = deferred.as_ref();
        if let Some(left) = left {
            if let Some(v_w) = &left.v_w {
                of_values.add(&left.gradient, v_w)?;
            }
            gw.add(&left.gradient.t()?, &left.tangent)?;
        }
        let (of_values, mut gw) = (of_values.sum(), gw.sum());
        let of_values = of_values.map(|values| saved.seen(values)).transpose()?;
        let (mut ga, mut of_pairs) = (SumOfProducts::new(), SumOfProducts::new());
        let (mut gm, mut gv, mut gs) = (None, None, None);
        if let Some(values) = &of_values {
            let values = saved.by_sequence(values)?;
            ga.add(&values, &saved.pairs)?;
            of_pairs.add(&values.transpose(1, 2)?, &saved.a)?;
            gs = Some(values.sum(1)?);
        }
        if let Some(left) = left {
            let values = saved.by_sequence(&left.of_values)?;
            let turned = values.transpose(1, 2)?;
            if let Some(pairs) = &left.pairs {
                ga.add(&values, pairs)?;
            }
            if let Some(v_a) = &left.v_a {
                of_pairs.add(&turned, v_a)?;
            }
            if left.v_m.is_some() || left.v_v.is_some() {
                let through = turned.matmul(&saved.a)?; // P̄'
                if let Some(v_v) = &left.v_v {
                    gm = Some(saved.over_keys(&through, v_v)?);
                }
                if let Some(v_m) = &left.v_m {
                    gv = Some(saved.over_queries(&through, v_m)?);
                }
            }
        }
        let (ga, of_pairs) = (ga.sum(), of_pairs.sum());
        if let Some(pairs) = &of_pairs {
            gm = plus(gm, Some(saved.over_keys(pairs, &saved.v)?))?;
            gv = plus(gv, Some(saved.over_queries(pairs, &saved.m)?))?;
        }
        if let (Some(columns), Some(own)) = (&saved.columns, &gw) {
            let all = Tensor::zeros(point.shape(4), own.dtype(), own.device())?;
            gw = Some(all.index_add(columns, own, 1)?);
        }
        let all = [ga, gm, gv, gs, gw].map(|gradient| gradient.map(Into::into));
        let kept = gradient.and(of_values);
        Ok((all.into(), kept))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        kept: &Option<Tensor>,
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let saved = point.saved;
        let gradient = saved.rows(&*gradient.view()?)?;
        let of_values = match kept {
            Some(of_values) => of_values.clone(),
            None => saved.seen(gradient.matmul(&saved.weight)?)?,
        };
        let contiguous = |i: usize| -> Result<Option<Tensor>> {
            let v = numbers(cotangents.get(i))?;
            Ok(v.map(|v| v.contiguous()).transpose()?)
        };
        let (v_a, v_m, v_v) = (contiguous(0)?, contiguous(1)?, contiguous(2)?);
        let v_w = contiguous(4)?.map(|v| saved.own(&v)).transpose()?;
        // P'
        let from_m = v_m
            .as_ref()
            .map(|m| saved.product(m, &saved.v))
            .transpose()?;
        let from_v = v_v
            .as_ref()
            .map(|v| saved.product(&saved.m, v))
            .transpose()?;
        let pairs = plus(from_m, from_v)?;

        let mut tangent = SumOfProducts::new();
        if let Some(v_a) = &v_a {
            tangent.add(v_a, &saved.pairs.t()?)?;
        }
        if let Some(pairs) = &pairs {
            tangent.add(&saved.a, &pairs.t()?)?;
        }
        let mut tangent = match tangent.sum() {
            Some(tangent) => tangent,
            None => saved.by_sequence(&saved.values)?.zeros_like()?,
        };
        if let Some(v_s) = contiguous(3)? {
            tangent = tangent.broadcast_add(&v_s.reshape((saved.batch, 1, ()))?)?;
        }
        let tangent = saved.seen(tangent)?;
        let mut cotangent = SumOfProducts::new();
        cotangent.add(&tangent, &saved.weight.t()?)?;
        if let Some(v_w) = &v_w {
            cotangent.add(&saved.values, &v_w.t()?)?;
        }
        let cotangent = match cotangent.sum() {
            Some(cotangent) => cotangent,
            None => gradient.zeros_like()?,
        };
        let left = Left {
            gradient,
            of_values,
            tangent,
            pairs,
            v_a,
            v_m,
            v_v,
            v_w,
        };
        Ok((cotangent.into(), left))
    }
}
