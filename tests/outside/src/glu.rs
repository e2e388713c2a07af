//! An operation of one's own: the gated linear unit (Dauphin et al. 2017), y = a ⊙ σ(b).
//!
//! ```text
//! F:   y = a σ(b)
//! A:   ga = g σ;   gb = g a σ'
//! ∂A:  ḡ = v_a σ + v_b a σ'
//! ∂F:  ā = ȳ σ + v_b g σ';   b̄ = ȳ a σ' + v_a g σ' + v_b g a σ''
//! ```

use adahessian::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use adahessian::engine::{Cpu, Kernel, Kernels, Op, Operand, call};
use adahessian::numeric::{Buffer, Real};
use adahessian::{Error, Result};
use candle_core::Tensor;

/// a ⊙ σ(b) of two tensors or handles of one shape.
pub fn glu<X: Operand>(a: &X, b: &X) -> Result<X> {
    X::of(call(Glu, &[a, b])?)
}

struct Glu;

impl Op for Glu {
    fn name(&self) -> &'static str {
        "gated linear unit"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        match inputs[0] == inputs[1] {
            true => Ok(inputs[0].to_vec()),
            false => Err(Error::Setting {
                what: "gate",
                expected: format!("{:?}, as the values", inputs[0]),
                got: format!("{:?}", inputs[1]),
            }),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let gate = ((inputs[1].neg()?.exp()? + 1.0)?).recip()?;
        Ok((&inputs[0] * gate)?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::cpu()
    }
}

/// σ(b), σ'(b), σ''(b).
fn gate<T: Real>(b: T) -> [T; 3] {
    let s = T::ONE / (T::ONE + (-b).exp());
    let slope = s * (T::ONE - s);
    [s, slope, slope * (T::ONE - s - s)]
}

/// What the second pass leaves: g, v_a and v_b.
pub struct Left<T: Real>([Buffer<T>; 3]);

fn numbers<T: Real>(v: &Option<Held<T>>, length: usize) -> Result<Buffer<T>> {
    match v {
        Some(v) => Ok(Buffer::copy_of(&v.view()?)),
        None => Ok(Buffer::zeroed(length)),
    }
}

impl<T: Real> Kernel<Cpu<T>> for Glu {
    type Saved = ();
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
        let mut y = Buffer::copy_of(&inputs[0]);
        let entries = y.iter_mut().zip(&inputs[1]);
        entries.for_each(|(y, &b)| *y = *y * gate(b)[0]);
        Ok((y.into(), ()))
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (a, b) = (point.input(0)?, point.input(1)?);
        let (mut ga, mut gb) = (Buffer::zeroed(a.len()), Buffer::zeroed(a.len()));
        for i in 0..a.len() {
            let [s, slope, bend] = gate(b[i]);
            if let Some(y) = gradient {
                ga[i] += y[i] * s;
                gb[i] += y[i] * a[i] * slope;
            }
            if let Some(Left([g, v_a, v_b])) = &deferred {
                ga[i] += v_b[i] * g[i] * slope;
                gb[i] += g[i] * (v_a[i] * slope + v_b[i] * a[i] * bend);
            }
        }
        Ok((vec![Some(ga), Some(gb)], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let (a, b) = (point.input(0)?, point.input(1)?);
        let v_a = numbers(&cotangents[0], a.len())?;
        let v_b = numbers(&cotangents[1], a.len())?;
        let mut tangent = Buffer::zeroed(a.len());
        for i in 0..a.len() {
            let [s, slope, _] = gate(b[i]);
            tangent[i] = v_a[i] * s + v_b[i] * a[i] * slope;
        }
        let g = Buffer::copy_of(&gradient.view()?);
        Ok((tangent.into(), Left([g, v_a, v_b])))
    }
}
