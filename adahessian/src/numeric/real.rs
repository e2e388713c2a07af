//! The two number types of the engine.

use super::buffer::Pool;
use super::functions as math;
use candle_core::{CpuStorage, DType, Device, Tensor};
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// f32 or f64.
pub trait Real:
    sealed::Memory
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + SubAssign
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// candle's name of the type.
    const DTYPE: DType;
    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// The same number in f64.
    fn to_f64(self) -> f64;
    /// A small whole number.
    fn from_byte(x: u8) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// tanh x.
    fn tanh(self) -> Self;
    /// The normal distribution function and density.
    fn normal(self) -> (Self, Self);
    /// √x.
    fn sqrt(self) -> Self;
    /// xʸ.
    fn powf(self, exponent: Self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
}

pub(crate) mod sealed {
    use super::{CpuStorage, Pool};
    use crate::numeric::simd::Lanes;

    /// What nobody else implements, or needs: memory, candle's storage, vectors.
    pub trait Memory: Lanes + 'static {
        /// The buffers of this type that are not in use.
        fn pool() -> &'static Pool<Self>;
        fn slice(storage: &CpuStorage) -> Option<&[Self]>;
        fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
        fn storage(data: Vec<Self>) -> CpuStorage;
        /// On the CPU.
        fn tensor(data: Vec<Self>, shape: &[usize]) -> candle_core::Result<candle_core::Tensor>;
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn from_byte(x: u8) -> f32 {
        f32::from(x)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        math::exp_f32(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        math::tanh_f32(self)
    }
    #[inline(always)]
    fn normal(self) -> (f32, f32) {
        math::normal_f32(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn powf(self, exponent: f32) -> f32 {
        f32::powf(self, exponent)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
}

impl sealed::Memory for f32 {
    fn pool() -> &'static Pool<f32> {
        static POOL: Pool<f32> = Pool::new();
        &POOL
    }
    fn slice(storage: &CpuStorage) -> Option<&[f32]> {
        match storage {
            CpuStorage::F32(data) => Some(data),
            _ => None,
        }
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        match storage {
            CpuStorage::F32(data) => Some(data),
            _ => None,
        }
    }
    fn storage(data: Vec<f32>) -> CpuStorage {
        CpuStorage::F32(data)
    }
    fn tensor(data: Vec<f32>, shape: &[usize]) -> candle_core::Result<Tensor> {
        Tensor::from_vec(data, shape, &Device::Cpu)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const DTYPE: DType = DType::F64;
    #[inline(always)]
    fn from_byte(x: u8) -> f64 {
        f64::from(x)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn normal(self) -> (f64, f64) {
        math::normal_f64(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn powf(self, exponent: f64) -> f64 {
        f64::powf(self, exponent)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
}

impl sealed::Memory for f64 {
    fn pool() -> &'static Pool<f64> {
        static POOL: Pool<f64> = Pool::new();
        &POOL
    }
    fn slice(storage: &CpuStorage) -> Option<&[f64]> {
        match storage {
            CpuStorage::F64(data) => Some(data),
            _ => None,
        }
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f64]> {
        match storage {
            CpuStorage::F64(data) => Some(data),
            _ => None,
        }
    }
    fn storage(data: Vec<f64>) -> CpuStorage {
        CpuStorage::F64(data)
    }
    fn tensor(data: Vec<f64>, shape: &[usize]) -> candle_core::Result<Tensor> {
        Tensor::from_vec(data, shape, &Device::Cpu)
    }
}
