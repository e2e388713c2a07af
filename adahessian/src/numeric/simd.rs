//! Vector instructions, chosen when the program runs.
//!
//! A kernel is a [`Task`]: generic over the vector type, always inlined. [`run`] compiles it three
//! times, for AVX-512, for AVX2 with FMA, and for whatever the target has by default, and calls the
//! best one that this processor knows. [`run_at`] compiles it once more, for half vectors of AVX-512. Loops over slices in a task's body are vectorised by the
//! compiler for the same instructions.
//!
//! Every kernel adds up the terms of a sum in an order that does not depend on the vector's width,
//! so AVX2 and AVX-512 give the same bits.

use super::Real;
use super::parallel;

/// A computation on numbers of type `T`, compiled for several instruction sets.
pub(crate) trait Task<T: Real> {
    type Output;
    /// `REGISTERS` is how many vectors the processor holds at once.
    ///
    /// # Safety
    /// The processor must know the instructions of `V`.
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> Self::Output;
}

/// A few numbers that are computed with at once.
///
/// # Safety
/// Methods may only be called where the processor knows the type's instructions; pointers must be
/// good for `LANES` numbers, aligned as one number.
pub trait Vector<T>: Copy {
    const LANES: usize;
    unsafe fn splat(x: T) -> Self;
    unsafe fn load(from: *const T) -> Self;
    unsafe fn store(self, to: *mut T);
    /// self · a + b
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, a: Self) -> Self;
}

/// The vector types of a number type.
pub trait Lanes: Sized {
    /// 512 bits.
    type Wide: Vector<Self>;
    /// 256 bits.
    type Half: Vector<Self>;
}

/// Which vectors a task wants where there is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Widest,
    /// 256 bits at most: as fast on many processors, and less waste on short rows.
    Half,
}

/// Numbers in the widest vector of this processor, and in half of it.
pub(crate) fn lanes<T: Real>(width: Width) -> usize {
    struct Count;
    impl<T: Real> Task<T> for Count {
        type Output = usize;
        #[inline(always)]
        unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> usize {
            V::LANES
        }
    }
    run_at::<T, _>(width, Count)
}

/// Vectors that this processor holds at once.
pub(crate) fn registers<T: Real>() -> usize {
    struct Count;
    impl<T: Real> Task<T> for Count {
        type Output = usize;
        #[inline(always)]
        unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> usize {
            REGISTERS
        }
    }
    run::<T, _>(Count)
}

/// Runs a task with the best instructions and the widest vectors of this processor.
pub(crate) fn run<T: Real, K: Task<T>>(task: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: each call is behind a check that the processor has the features.
    unsafe {
        match x86::level() {
            x86::Level::Avx512 => return x86::avx512_wide(task),
            x86::Level::Avx2 => return x86::avx2(task),
            x86::Level::Baseline => {}
        }
    }
    // SAFETY: `Portable` needs no special instructions.
    unsafe { task.run::<Portable<T>, 16>() }
}

/// The same with vectors of this width, where there is a choice.
pub(crate) fn run_at<T: Real, K: Task<T>>(width: Width, task: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if width == Width::Half && matches!(x86::level(), x86::Level::Avx512) {
        // SAFETY: the processor has the features.
        return unsafe { x86::avx512_half(task) };
    }
    let _ = width;
    run(task)
}

/// Four numbers in an array: the compiler makes of it what the target has.
#[derive(Clone, Copy)]
pub struct Portable<T>([T; 4]);

impl<T: Real> Vector<T> for Portable<T> {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[T; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[T; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, a: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, Real, Task, Vector};
    use std::arch::x86_64::*;
    use std::sync::OnceLock;

    #[derive(Clone, Copy)]
    pub enum Level {
        Baseline,
        Avx2,
        Avx512,
    }

    pub fn level() -> Level {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            match (avx2, avx512) {
                (true, true) => Level::Avx512,
                (true, false) => Level::Avx2,
                _ => Level::Baseline,
            }
        })
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2<T: Real, K: Task<T>>(task: K) -> K::Output {
        // SAFETY: this function's features are the vector's.
        unsafe { task.run::<T::Half, 16>() }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
    pub fn avx512_half<T: Real, K: Task<T>>(task: K) -> K::Output {
        // SAFETY: this function's features are the vector's.
        unsafe { task.run::<T::Half, 32>() }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
    pub fn avx512_wide<T: Real, K: Task<T>>(task: K) -> K::Output {
        // SAFETY: this function's features are the vector's.
        unsafe { task.run::<T::Wide, 32>() }
    }

    impl Lanes for f32 {
        type Wide = __m512;
        type Half = __m256;
    }

    impl Lanes for f64 {
        type Wide = __m512d;
        type Half = __m256d;
    }

    /// The same five methods for each vector type; only the names of the instructions differ.
    macro_rules! vector {
        ($vector:ty, $number:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident) => {
            // SAFETY of all: the trait's contract, the instructions exist and the pointers are good.
            impl Vector<$number> for $vector {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(x: $number) -> Self {
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $number) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $number) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                    unsafe { $fma(self, a, b) }
                }
                #[inline(always)]
                unsafe fn add(self, a: Self) -> Self {
                    unsafe { $add(self, a) }
                }
            }
        };
    }

    vector!(
        __m512,
        f32,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps
    );
    vector!(
        __m256,
        f32,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps
    );
    vector!(
        __m512d,
        f64,
        8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd
    );
    vector!(
        __m256d,
        f64,
        4,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd
    );
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::{Lanes, Portable};

    impl Lanes for f32 {
        type Wide = Portable<f32>;
        type Half = Portable<f32>;
    }

    impl Lanes for f64 {
        type Wide = Portable<f64>;
        type Half = Portable<f64>;
    }
}

/// to ← to + from, in parallel.
pub(crate) fn add_assign<T: Real>(to: &mut [T], from: &[T]) {
    const PART: usize = 1 << 16;
    struct Add<'a, T>(&'a mut [T], &'a [T]);
    impl<T: Real> Task<T> for Add<'_, T> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
            self.0
                .iter_mut()
                .zip(self.1)
                .for_each(|(to, &from)| *to += from);
        }
    }
    if to.len() <= PART {
        return run(Add(to, from)); // waking a thread takes longer
    }
    let parts = to.chunks_mut(PART).zip(from.chunks(PART));
    parallel::each(parts, |_, (to, from)| run(Add(to, from)));
}
