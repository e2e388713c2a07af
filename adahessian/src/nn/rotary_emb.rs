//! Rotary positions (Su et al. 2021), after `candle_nn::rotary_emb`.
//!
//! Pairs (a, b) of a head's entries are turned by the angles of their position: (a cos - b sin,
//! a sin + b cos). candle's fast forms have no derivative; here the fast and the slow are one, composed,
//! on inputs of any layout.

use super::wrong;
use candle_core::{D, Result, Tensor};

/// The pair of an entry is the one half a head away. `xs` is [B, heads, T, D], `cos` and `sin` are
/// [T' ≥ T, D/2], or [B, T', D/2]; the result is like `xs`.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn rope(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (cos, sin) = (angles(xs, cos, 2)?, angles(xs, sin, 2)?);
    halves(xs, &cos, &sin)
}

/// The same as [`rope`].
///
/// # Errors
/// As [`rope`].
pub fn rope_slow(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rope(x, cos, sin)
}

/// As [`rope`], with the pair of an entry beside it.
///
/// # Errors
/// As [`rope`].
pub fn rope_i(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (cos, sin) = (angles(xs, cos, 2)?, angles(xs, sin, 2)?);
    let (b, h, t, d) = xs.dims4()?;
    let pairs = xs.reshape((b, h, t, d / 2, 2))?;
    let part = |i: usize| pairs.narrow(4, i, 1)?.squeeze(4);
    let (x, y) = turned(&part(0)?, &part(1)?, &cos, &sin)?;
    Tensor::stack(&[x, y], 4)?.reshape((b, h, t, d))
}

/// The same as [`rope_i`].
///
/// # Errors
/// As [`rope`].
pub fn rope_i_slow(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rope_i(x, cos, sin)
}

/// As [`rope`], for `xs` [B, T, heads, D].
///
/// # Errors
/// As [`rope`].
pub fn rope_thd(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (cos, sin) = (angles(xs, cos, 1)?, angles(xs, sin, 1)?);
    halves(xs, &cos, &sin)
}

fn halves(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = xs.dim(D::Minus1)? / 2;
    let part = |i: usize| xs.narrow(D::Minus1, i * half, half);
    let (x, y) = turned(&part(0)?, &part(1)?, cos, sin)?;
    Tensor::cat(&[x, y], D::Minus1)
}

fn turned(a: &Tensor, b: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<(Tensor, Tensor)> {
    let x = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let y = (a.broadcast_mul(sin)? + b.broadcast_mul(cos)?)?;
    Ok((x, y))
}

/// Cosines or sines of the first positions, in a shape that the halves of `xs` broadcast with; the
/// positions are dimension `time` of `xs`, 1 or 2.
fn angles(xs: &Tensor, values: &Tensor, time: usize) -> Result<Tensor> {
    if let &[batch, _, _, width] = xs.dims()
        && width % 2 == 0
    {
        let count = xs.dims()[time];
        let of = match *values.dims() {
            [positions, half] if positions >= count && 2 * half == width => Some(1),
            [b, positions, half] if b == batch && positions >= count && 2 * half == width => {
                Some(b)
            }
            _ => None,
        };
        if let Some(of) = of {
            let positions = values.rank() - 2;
            let values = values.narrow(positions, 0, count)?;
            return match time {
                1 => values.reshape((of, count, 1, width / 2)),
                _ => values.reshape((of, 1, count, width / 2)),
            };
        }
    }
    wrong(
        "rotary positions",
        "four dimensions, the last even, and cosines and sines [T, D/2] or [B, T, D/2] of at least its positions",
        (xs.dims(), values.dims()),
    )
}
