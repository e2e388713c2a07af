//! Activations with their first two derivatives, as passes over rows.

use super::Activation;
use crate::engine::cpu::Output;
use crate::engine::{Cpu, Entrywise, Recompute};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Real};
use std::sync::Arc;

/// What a pass computes of the preactivation c and up to three more numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// act(c)
    Value,
    /// u act'(c)
    Slope,
    /// ȳ act'(c) + t g act''(c), and beside it g act'(c)
    Second,
}

/// y = act(c), in place where `y` holds c.
pub(crate) fn value<T: Real>(activation: Activation, c: &[T], y: &mut [T]) {
    pass(activation, Part::Value, [c, c, c, c], y, None);
}

/// h = u act'(c).
pub(crate) fn slope<T: Real>(activation: Activation, c: &[T], u: &[T], h: &mut [T]) {
    pass(activation, Part::Slope, [c, u, u, u], h, None);
}

/// k = ȳ act'(c) + t g act''(c) and h = g act'(c) from c, ȳ, g and t.
pub(crate) fn second<T: Real>(activation: Activation, read: [&[T]; 4], k: &mut [T], h: &mut [T]) {
    pass(activation, Part::Second, read, k, Some(h));
}

/// act(c), or u act'(c), once more.
pub(crate) struct Again<T: Real> {
    pub activation: Activation,
    pub c: Arc<Buffer<T>>,
    pub u: Option<Arc<Buffer<T>>>,
}

impl<T: Real> Recompute<Cpu<T>> for Again<T> {
    fn compute(&self) -> Result<Buffer<T>> {
        Ok(self.numbers())
    }
}

impl<T: Real> Again<T> {
    fn numbers(&self) -> Buffer<T> {
        let mut to = Buffer::scratch(self.c.len());
        match &self.u {
            None => value(self.activation, &self.c, &mut to),
            Some(u) => slope(self.activation, &self.c, u, &mut to),
        }
        to
    }

    /// Its numbers, and itself to have them again.
    pub fn output(self) -> Output<T> {
        Output {
            numbers: self.numbers(),
            recompute: Some(Arc::new(self)),
        }
    }
}

/// Entries that a thread does at a time. Waking one takes as long as some ten thousand entries of the
/// cheap functions.
fn piece(activation: Activation) -> usize {
    match activation {
        Activation::Identity | Activation::Relu => 1 << 16,
        Activation::Tanh | Activation::Gelu | Activation::Silu => 1 << 13,
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
    let pieces = to.chunks_mut(length).zip(besides);
    parallel::each(pieces, |piece, (to, beside)| {
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
        Activation::Identity => simd::run(Of::<_, IDENTITY>(task)),
        Activation::Relu => simd::run(Of::<_, RELU>(task)),
        Activation::Tanh => simd::run(Of::<_, TANH>(task)),
        Activation::Gelu => simd::run(Of::<_, GELU>(task)),
        Activation::Silu => simd::run(Of::<_, SILU>(task)),
    }
}

const IDENTITY: u8 = 0;
const RELU: u8 = 1;
const TANH: u8 = 2;
const GELU: u8 = 3;
const SILU: u8 = 4;

const fn named(activation: u8) -> Activation {
    match activation {
        RELU => Activation::Relu,
        TANH => Activation::Tanh,
        GELU => Activation::Gelu,
        SILU => Activation::Silu,
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
                entries.for_each(|(to, &c)| *to = activation.derivatives(c)[0]);
            }
            Part::Slope => {
                let entries = to.iter_mut().zip(c).zip(u);
                entries.for_each(|((to, &c), &u)| *to = u * activation.derivatives(c)[1]);
            }
            Part::Second => {
                let entries = to.iter_mut().zip(beside).zip(c.iter().zip(u));
                entries
                    .zip(g.iter().zip(t))
                    .for_each(|(((k, h), (&c, &u)), (&g, &t))| {
                        let [_, slope, bend] = activation.derivatives(c);
                        *k = u * slope + t * g * bend;
                        *h = g * slope;
                    });
            }
        }
    }
}
