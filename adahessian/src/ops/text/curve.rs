//! Activations with their first two derivatives, as passes over rows.

use crate::ops::Activation;
use crate::ops::engine::{Buffer, Made, Real, Source};
use crate::ops::simd::{self, Task, Vector, Width};
use rayon::prelude::*;
use std::sync::Arc;

/// What a pass computes of the preactivation c and up to three more numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// act(c)
    Value,
    /// u act'(c)
    Slope,
    /// ȳ act'(c) + t g act''(c), and beside it g act'(c)
    Second,
}

/// act(c), act'(c), act''(c).
#[inline(always)]
fn derivatives<T: Real>(activation: Activation, c: T) -> (T, T, T) {
    match activation {
        Activation::Identity => (c, T::ONE, T::ZERO),
        // In this order not-a-number stays what it is.
        Activation::Relu => match c <= T::ZERO {
            true => (T::ZERO, T::ZERO, T::ZERO),
            false => (c, T::ONE, T::ZERO),
        },
        Activation::Tanh => {
            let y = c.tanh();
            let slope = T::ONE - y * y;
            (y, slope, T::from_f64(-2.0) * y * slope)
        }
        Activation::Gelu => {
            let (below, density) = c.normal();
            let bend = density * (T::from_f64(2.0) - c * c);
            (c * below, below + c * density, bend)
        }
    }
}

/// y = act(c), in place where `y` holds c.
pub(super) fn value<T: Real>(activation: Activation, c: &[T], y: &mut [T]) {
    pass(activation, Part::Value, [c, c, c, c], y, None);
}

/// h = u act'(c).
pub(super) fn slope<T: Real>(activation: Activation, c: &[T], u: &[T], h: &mut [T]) {
    pass(activation, Part::Slope, [c, u, u, u], h, None);
}

/// k = ȳ act'(c) + t g act''(c) and h = g act'(c) from c, ȳ, g and t.
pub(super) fn second<T: Real>(activation: Activation, read: [&[T]; 4], k: &mut [T], h: &mut [T]) {
    pass(activation, Part::Second, read, k, Some(h));
}

/// act(c), or u act'(c), once more.
pub(super) struct Again<T: Real> {
    pub activation: Activation,
    pub c: Arc<Buffer<T>>,
    pub u: Option<Arc<Buffer<T>>>,
}

impl<T: Real> Source<T> for Again<T> {
    fn numbers(&self) -> Buffer<T> {
        let mut to = Buffer::scratch(self.c.len());
        match &self.u {
            None => value(self.activation, &self.c, &mut to),
            Some(u) => slope(self.activation, &self.c, u, &mut to),
        }
        to
    }
}

impl<T: Real> Again<T> {
    /// Its numbers, and itself to have them again.
    pub fn made(self) -> Made<T> {
        Made {
            numbers: self.numbers(),
            source: Some(Arc::new(self)),
        }
    }
}

/// Entries that a thread does at a time. Waking one takes as long as some ten thousand entries of the
/// cheap functions.
fn piece(activation: Activation) -> usize {
    match activation {
        Activation::Identity | Activation::Relu => 1 << 16,
        Activation::Tanh | Activation::Gelu => 1 << 13,
    }
}

fn pass<T: Real>(
    activation: Activation,
    part: Part,
    read: [&[T]; 4],
    to: &mut [T],
    beside: Option<&mut [T]>,
) {
    let mut none: [T; 0] = [];
    let beside = beside.unwrap_or(&mut none);
    let length = piece(activation);
    if to.len() <= length {
        let read = read.map(|array| &array[..to.len()]);
        return pass_piece(activation, part, read, to, beside);
    }
    let mut besides: Vec<&mut [T]> = beside.chunks_mut(length).collect();
    besides.resize_with(to.len().div_ceil(length), Default::default);
    let pieces = to.par_chunks_mut(length).zip(besides).enumerate();
    pieces.for_each(|(piece, (to, beside))| {
        let read = read.map(|array| &array[piece * length..][..to.len()]);
        pass_piece(activation, part, read, to, beside);
    });
}

fn pass_piece<T: Real>(
    activation: Activation,
    part: Part,
    read: [&[T]; 4],
    to: &mut [T],
    beside: &mut [T],
) {
    let task = Pass {
        part,
        read,
        to,
        beside,
    };
    // One loop for each activation: the choice is not made entry by entry.
    match activation {
        Activation::Identity => simd::run(Width::Widest, Of::<_, IDENTITY>(task)),
        Activation::Relu => simd::run(Width::Widest, Of::<_, RELU>(task)),
        Activation::Tanh => simd::run(Width::Widest, Of::<_, TANH>(task)),
        Activation::Gelu => simd::run(Width::Widest, Of::<_, GELU>(task)),
    }
}

const IDENTITY: u8 = 0;
const RELU: u8 = 1;
const TANH: u8 = 2;
const GELU: u8 = 3;

const fn named(activation: u8) -> Activation {
    match activation {
        RELU => Activation::Relu,
        TANH => Activation::Tanh,
        GELU => Activation::Gelu,
        _ => Activation::Identity,
    }
}

struct Pass<'a, T> {
    part: Part,
    read: [&'a [T]; 4],
    to: &'a mut [T],
    beside: &'a mut [T],
}

struct Of<P, const ACTIVATION: u8>(P);

impl<T: Real, const ACTIVATION: u8> Task<T> for Of<Pass<'_, T>, ACTIVATION> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let Pass {
            part,
            read: [c, u, g, t],
            to,
            beside,
        } = self.0;
        let activation = const { named(ACTIVATION) };
        match part {
            Part::Value => {
                let entries = to.iter_mut().zip(c);
                entries.for_each(|(to, &c)| *to = derivatives(activation, c).0);
            }
            Part::Slope => {
                let entries = to.iter_mut().zip(c).zip(u);
                entries.for_each(|((to, &c), &u)| *to = u * derivatives(activation, c).1);
            }
            Part::Second => {
                let entries = to.iter_mut().zip(beside).zip(c.iter().zip(u));
                entries
                    .zip(g.iter().zip(t))
                    .for_each(|(((k, h), (&c, &u)), (&g, &t))| {
                        let (_, slope, bend) = derivatives(activation, c);
                        *k = u * slope + t * g * bend;
                        *h = g * slope;
                    });
            }
        }
    }
}
