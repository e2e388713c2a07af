//! The activations with their two derivatives, as types: a loop over entries is compiled once for
//! each, and what an activation does not need (a, or a second derivative that is zero) is not computed
//! in its loops.

use crate::numeric::Real;

/// An activation and its derivatives.
pub(crate) trait Slope<T: Real>: Copy + Send + Sync {
    /// Whether a is needed, and the second derivative is not zero.
    const CURVED: bool;
    fn value(a: T) -> T;
    /// At a; where the activation is not curved, y has the same derivative and will do.
    fn first(a: T) -> T;
    fn second(a: T) -> T;
}

#[derive(Clone, Copy)]
pub(crate) struct Identity;
#[derive(Clone, Copy)]
pub(crate) struct Relu;
#[derive(Clone, Copy)]
pub(crate) struct Silu;

impl<T: Real> Slope<T> for Identity {
    const CURVED: bool = false;
    #[inline(always)]
    fn value(a: T) -> T {
        a
    }
    #[inline(always)]
    fn first(_: T) -> T {
        T::ONE
    }
    #[inline(always)]
    fn second(_: T) -> T {
        T::ZERO
    }
}

impl<T: Real> Slope<T> for Relu {
    const CURVED: bool = false;
    #[inline(always)]
    fn value(a: T) -> T {
        // A NaN stays one.
        if a < T::ZERO { T::ZERO } else { a }
    }
    #[inline(always)]
    fn first(a: T) -> T {
        if a > T::ZERO { T::ONE } else { T::ZERO }
    }
    #[inline(always)]
    fn second(_: T) -> T {
        T::ZERO
    }
}

/// act = a σ, act' = σ (1 + a (1 - σ)), act'' = σ (1 - σ) (2 + a (1 - 2σ)).
impl<T: Real> Slope<T> for Silu {
    const CURVED: bool = true;
    #[inline(always)]
    fn value(a: T) -> T {
        a * sigmoid(a)
    }
    #[inline(always)]
    fn first(a: T) -> T {
        let s = sigmoid(a);
        s * (T::ONE + a * (T::ONE - s))
    }
    #[inline(always)]
    fn second(a: T) -> T {
        let (s, two) = (sigmoid(a), T::ONE + T::ONE);
        s * (T::ONE - s) * (two + a * (T::ONE - two * s))
    }
}

#[inline(always)]
fn sigmoid<T: Real>(a: T) -> T {
    T::ONE / (T::ONE + (-a).exp())
}

/// Calls `$work` with the type that stands for an activation: the two that are common, and SiLU.
macro_rules! with_slope {
    ($activation:expr, $slope:ident => $work:expr) => {
        match $activation {
            Fused::Identity => {
                type $slope = super::rows::Identity;
                $work
            }
            Fused::Relu => {
                type $slope = super::rows::Relu;
                $work
            }
            Fused::Silu => {
                type $slope = super::rows::Silu;
                $work
            }
        }
    };
}
pub(crate) use with_slope;

/// The activations that a normalised convolution does on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fused {
    Identity,
    Relu,
    Silu,
}
