//! What a table's numbers are stored as.

use crate::numeric::Real;
use half::bf16;

/// A stored number, and the type that is computed with.
pub(crate) trait Cell: Copy + Send + Sync + 'static {
    type Number: Real;
    fn get(self) -> Self::Number;
    fn of(number: Self::Number) -> Self;
}

impl Cell for f32 {
    type Number = f32;
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn of(number: f32) -> Self {
        number
    }
}

impl Cell for f64 {
    type Number = f64;
    #[inline(always)]
    fn get(self) -> f64 {
        self
    }
    #[inline(always)]
    fn of(number: f64) -> Self {
        number
    }
}

impl Cell for bf16 {
    type Number = f32;
    #[inline(always)]
    fn get(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn of(number: f32) -> Self {
        bf16::from_f32(number)
    }
}
