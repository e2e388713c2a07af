//! Activations and their derivatives as formulas.

use super::Activation;
use crate::numeric::formula::Space;
use crate::numeric::traced::{Symbol, Test};
use std::f64::consts::PI;

impl Activation {
    /// act(x).
    pub(in crate::ops) fn value(self, space: &Space, x: &Symbol) -> Symbol {
        match self {
            Self::Identity => x.clone(),
            Self::Relu => space.positive(x),
            Self::Tanh => x.tanh(),
            Self::Gelu => x * x.normal(),
            Self::Silu => x * logistic(x),
        }
    }

    /// u act'(x).
    pub(in crate::ops) fn slope(self, space: &Space, x: &Symbol, u: &Symbol) -> Symbol {
        match self {
            Self::Identity => u.clone(),
            // False for not-a-number, which goes through; and not a product, which would make one of infinity.
            Self::Relu => {
                let zero = space.constant(0.0);
                x.choose(Test::AtMost, &zero, &zero, u)
            }
            Self::Tanh => u - u * x.tanh().square(),
            Self::Gelu => u * (x.normal() + x * density(x)),
            Self::Silu => {
                let s = logistic(x);
                // In this order: of s + x s - x s² nothing would be left where x is large.
                let rest = -s.clone() + 1.0;
                u * (s * (x * rest + 1.0))
            }
        }
    }

    /// w act''(x); `None` where it is zero for every x.
    pub(in crate::ops) fn bend(self, x: &Symbol, w: &Symbol) -> Option<Symbol> {
        let bend = match self {
            Self::Identity | Self::Relu => return None,
            Self::Tanh => {
                let y = x.tanh();
                let slope = -y.square() + 1.0;
                y * slope * -2.0
            }
            Self::Gelu => {
                // Where x² is infinite, the density is 0.
                let density = density(x);
                &density * 2.0 - x * (x * &density)
            }
            Self::Silu => {
                // s (1 - s) (2 + x (1 - 2 s))
                let s = logistic(x);
                let first = &s - s.square();
                first * (x * (s * -2.0 + 1.0) + 2.0)
            }
        };
        Some(w * bend)
    }
}

/// σ(x)
fn logistic(x: &Symbol) -> Symbol {
    ((-x).exp() + 1.0).recip()
}

/// φ(x) of the normal distribution.
fn density(x: &Symbol) -> Symbol {
    (x.square() * -0.5).exp() * (1.0 / (2.0 * PI).sqrt())
}
