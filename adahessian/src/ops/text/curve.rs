//! Activations with their first two derivatives, as passes over rows.

use crate::ops::Activation;
use crate::ops::engine::Real;
use crate::ops::simd::{self, Task, Vector, Width};
use rayon::prelude::*;

/// What a pass computes of the preactivation c and up to two more numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// act(c)
    Value,
    /// u act'(c)
    Slope,
    /// u act'(c), and beside it u w act''(c)
    SlopeAndBend,
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
    pass(activation, Part::Value, [c, c, c], y, None);
}

/// h = u act'(c).
pub(super) fn slope<T: Real>(activation: Activation, c: &[T], u: &[T], h: &mut [T]) {
    pass(activation, Part::Slope, [c, u, u], h, None);
}

/// ḡ = t act'(c) and c̄ = t g act''(c).
pub(super) fn slope_and_bend<T: Real>(
    activation: Activation,
    c: &[T],
    t: &[T],
    g: &[T],
    tangent: &mut [T],
    bend: &mut [T],
) {
    pass(
        activation,
        Part::SlopeAndBend,
        [c, t, g],
        tangent,
        Some(bend),
    );
}

const PIECE: usize = 1 << 13;

fn pass<T: Real>(
    activation: Activation,
    part: Part,
    [c, u, w]: [&[T]; 3],
    to: &mut [T],
    bend: Option<&mut [T]>,
) {
    let mut none: [T; 0] = [];
    let bend = bend.unwrap_or(&mut none);
    let mut bends: Vec<&mut [T]> = bend.chunks_mut(PIECE).collect();
    bends.resize_with(to.len().div_ceil(PIECE), Default::default);
    let read = c
        .par_chunks(PIECE)
        .zip(u.par_chunks(PIECE))
        .zip(w.par_chunks(PIECE));
    let pieces = to.par_chunks_mut(PIECE).zip(bends).zip(read);
    pieces.for_each(|((to, bend), ((c, u), w))| {
        let task = Pass {
            part,
            read: [c, u, w],
            to,
            bend,
        };
        // One loop for each activation: the choice is not made entry by entry.
        match activation {
            Activation::Identity => simd::run(Width::Widest, Of::<_, IDENTITY>(task)),
            Activation::Relu => simd::run(Width::Widest, Of::<_, RELU>(task)),
            Activation::Tanh => simd::run(Width::Widest, Of::<_, TANH>(task)),
            Activation::Gelu => simd::run(Width::Widest, Of::<_, GELU>(task)),
        }
    });
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
    read: [&'a [T]; 3],
    to: &'a mut [T],
    bend: &'a mut [T],
}

struct Of<P, const ACTIVATION: u8>(P);

impl<T: Real, const ACTIVATION: u8> Task<T> for Of<Pass<'_, T>, ACTIVATION> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let Pass {
            part,
            read: [c, u, w],
            to,
            bend,
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
            Part::SlopeAndBend => {
                let entries = to.iter_mut().zip(bend).zip(c).zip(u.iter().zip(w));
                entries.for_each(|(((to, bend), &c), (&u, &w))| {
                    let (_, slope, curve) = derivatives(activation, c);
                    *to = u * slope;
                    *bend = u * w * curve;
                });
            }
        }
    }
}
