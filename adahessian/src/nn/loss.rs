//! Losses, after `candle_nn::loss`: exact with anything after them.

use super::index::gather;
use super::ops::softplus;
use super::wrong;
use crate::numeric::wide;
use candle_core::{Result, Tensor};

/// The mean in f32 of what half precision has too few digits to sum up, in its own type again.
fn mean(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    widened(x)?.mean_all()?.to_dtype(like.dtype())
}

fn widened(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(wide(x.dtype()))
}

/// The mean of (inp - target)², of one shape. A scalar.
///
/// # Errors
/// candle's, for shapes that differ.
pub fn mse(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    let error = (widened(inp)? - widened(target)?)?;
    mean(&error.sqr()?, inp)
}

/// `-(1/N) Σ_n log p[n, target_n]`, for log probabilities `inp` [N, C] and classes `target` `[N]`. A scalar.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit and a target that is no class.
pub fn nll(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    let fits = matches!((inp.dims(), target.dims()), (&[n, _], &[m]) if n == m && n > 0);
    if !fits {
        let got = (inp.dims(), target.dims());
        return wrong(
            "negative log likelihood",
            "[N, C] and [N], N at least 1",
            got,
        );
    }
    mean(&gather(inp, &target.unsqueeze(1)?, 1)?, inp)?.neg()
}

/// `-(1/N) Σ_n log softmax(inp)[n, target_n]`, for logits [N, C] and classes `[N]`. A scalar, by one fused
/// operation on the CPU.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit and a target that is no class.
pub fn cross_entropy(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(crate::ops::cross_entropy(inp, target, 0.0, None)?)
}

/// The mean of log(1 + eˡ) - t l = -t log σ(l) - (1 - t) log(1 - σ(l)), for logits l and probabilities t
/// of one shape. A scalar; finite for every finite logit, where candle's is not.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ.
pub fn binary_cross_entropy_with_logit(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    same("binary cross entropy", inp, target)?;
    let (wide, target) = (widened(inp)?, target.to_dtype(inp.dtype())?);
    mean(&(softplus(&wide)? - (&wide * widened(&target)?)?)?, inp)
}

/// The mean of ½ e² where |e| ≤ δ and δ |e| - ½ δ² elsewhere, for e = inp - target of one shape
/// (Huber 1964). A scalar.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ.
pub fn huber(inp: &Tensor, target: &Tensor, delta: f64) -> Result<Tensor> {
    same("huber loss", inp, target)?;
    let error = (widened(inp)? - widened(target)?)?;
    let size = error.abs()?;
    let near = size.detach().le(delta)?;
    let square = (error.sqr()? * 0.5)?;
    let line = size.affine(delta, -0.5 * delta * delta)?;
    mean(&near.where_cond(&square, &line)?, inp)
}

fn same(what: &'static str, inp: &Tensor, target: &Tensor) -> Result<()> {
    match inp.dims() == target.dims() && inp.elem_count() > 0 {
        true => Ok(()),
        false => {
            let got = (inp.dims(), target.dims());
            wrong(what, "two tensors of one shape, not empty", got)
        }
    }
}
