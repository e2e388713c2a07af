//! What a rule computes with: one entry of a variable, or the whole variable as a tensor.

use crate::numeric::{Real, wide};
use candle_core::Tensor;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

/// The numbers that a [`crate::Rule`] is written in. On the CPU, in f32 and f64, one of them is one
/// entry of a variable, and the compiler makes vectors of a loop over them; on CUDA, in the same types, one
/// is a symbol, and what is done with it becomes a kernel; elsewhere one is a whole tensor, and every
/// operation is candle's. Constants are f64 and become the variable's type before
/// they are used; `x / c` multiplies with `1 / c`, as candle does.
pub trait Number:
    Clone
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
{
    /// Whether one is a whole variable, so that every operation is a pass over it.
    #[doc(hidden)]
    const WHOLE: bool = false;

    /// The square root.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The square.
    fn square(self) -> Self;
    /// The power. See [`crate::Rule::POWERS`] for exponents that are often 1.
    fn powf(self, exponent: f64) -> Self;
    /// The larger of this and a bound.
    fn max(self, bound: f64) -> Self;
    /// The smaller of this and a bound.
    fn min(self, bound: f64) -> Self;
    /// 1 where this is below the bound, else 0.
    fn below(self, bound: f64) -> Self;

    /// Limited to low..=high.
    #[inline(always)]
    fn clamp(self, low: f64, high: f64) -> Self {
        self.max(low).min(high)
    }

    /// Becomes `keep · self + add · new`, a running mean or sum; returns the new value, too.
    #[inline(always)]
    fn blend(&mut self, keep: f64, new: Self, add: f64) -> Self {
        *self = self.clone() * keep + new * add;
        self.clone()
    }
}

/// One entry. Where `POWERS` is false all exponents are known to be 1: a loop that may call `powf` is
/// not made into vectors.
#[derive(Clone, Copy)]
pub(crate) struct Lane<T, const POWERS: bool>(pub T);

macro_rules! operators {
    ($($operator:ident $method:ident $constant:expr;)*) => {$(
        impl<T: Real, const POWERS: bool> $operator for Lane<T, POWERS> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }

        impl<T: Real, const POWERS: bool> $operator<f64> for Lane<T, POWERS> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, constant: f64) -> Self {
                let of: fn(T, f64) -> T = $constant;
                Self(of(self.0, constant))
            }
        }

        impl $operator for Expr {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.with(other, |a, b| a.$method(b))
            }
        }

        impl $operator<f64> for Expr {
            type Output = Self;
            fn $method(self, constant: f64) -> Self {
                self.then(|t| t.$method(constant))
            }
        }
    )*};
}

operators! {
    Add add |x, c| x + T::from_f64(c);
    Sub sub |x, c| x - T::from_f64(c);
    Mul mul |x, c| x * T::from_f64(c);
    Div div |x, c| x * T::from_f64(1.0 / c);
}

impl<T: Real, const POWERS: bool> Neg for Lane<T, POWERS> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl<T: Real, const POWERS: bool> Number for Lane<T, POWERS> {
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(self.0 * self.0)
    }

    #[inline(always)]
    fn powf(self, exponent: f64) -> Self {
        match POWERS {
            true => Self(self.0.powf(T::from_f64(exponent))),
            false => self,
        }
    }

    #[inline(always)]
    fn max(self, bound: f64) -> Self {
        let bound = T::from_f64(bound);
        match self.0 < bound {
            true => Self(bound),
            false => self,
        }
    }

    #[inline(always)]
    fn min(self, bound: f64) -> Self {
        let bound = T::from_f64(bound);
        match self.0 > bound {
            true => Self(bound),
            false => self,
        }
    }

    #[inline(always)]
    fn below(self, bound: f64) -> Self {
        match self.0 < T::from_f64(bound) {
            true => Self(T::ONE),
            false => Self(T::ZERO),
        }
    }
}

/// A whole variable: carries candle's tensor, or its first error, through the arithmetic.
#[derive(Clone)]
pub(crate) struct Expr(Result<Tensor, Arc<candle_core::Error>>);

impl Expr {
    pub fn of(tensor: &Tensor) -> Self {
        Self(Ok(tensor.clone()))
    }

    pub fn tensor(self) -> crate::Result<Tensor> {
        let only = |e| Arc::try_unwrap(e).unwrap_or_else(candle_core::Error::msg);
        Ok(self.0.map_err(only)?)
    }

    fn then(self, f: impl FnOnce(Tensor) -> candle_core::Result<Tensor>) -> Self {
        Self(self.0.and_then(|t| f(t).map_err(Arc::new)))
    }

    fn with(
        self,
        other: Self,
        f: impl FnOnce(Tensor, Tensor) -> candle_core::Result<Tensor>,
    ) -> Self {
        match other.0 {
            Ok(b) => self.then(|a| f(a, b)),
            Err(error) => Self(self.0.and(Err(error))),
        }
    }
}

impl Neg for Expr {
    type Output = Self;
    fn neg(self) -> Self {
        self.then(|t| t.neg())
    }
}

impl Number for Expr {
    const WHOLE: bool = true;

    fn sqrt(self) -> Self {
        self.then(|t| t.sqrt())
    }

    fn abs(self) -> Self {
        self.then(|t| t.abs())
    }

    fn square(self) -> Self {
        self.then(|t| t.sqr())
    }

    fn powf(self, exponent: f64) -> Self {
        match exponent == 1.0 {
            true => self,
            false => self.then(|t| t.powf(exponent)),
        }
    }

    fn max(self, bound: f64) -> Self {
        self.then(|t| t.maximum(bound))
    }

    fn min(self, bound: f64) -> Self {
        self.then(|t| t.minimum(bound))
    }

    fn below(self, bound: f64) -> Self {
        self.then(|t| t.lt(bound)?.to_dtype(wide(t.dtype())))
    }
}
