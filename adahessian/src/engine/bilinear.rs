//! Operations that are linear in each of two inputs: products of matrices, numbers times numbers.
//!
//! For y = B(x, w), with B₁ and B₂ its adjoints in x and in w:
//! ```text
//! F:   y = B(x, w)
//! A:   gx = B₁(g, w),  gw = B₂(x, g)
//! ∂A:  ḡ = B(v_x, w) + B(x, v_w)
//! ∂F:  x̄ = B₁(ȳ, w) + B₁(g, v_w),  w̄ = B₂(x, ȳ) + B₂(v_x, g)
//! ```

use super::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use super::{Cpu, Handle, Kernel, Kernels, Op, Operand, Tensors, call, tensors};
use crate::error::Result;
use crate::numeric::{Buffer, Real};
use candle_core::Tensor;

/// A map that is linear in each of two inputs, with its adjoints: all that both derivatives need. Of tensors each is
/// the sum over pairs of operands, none of no pairs.
pub trait Bilinear: Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// The shape of the result for inputs of these shapes.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for inputs that do not fit.
    fn shape(&self, x: &[usize], w: &[usize]) -> Result<Vec<usize>>;

    /// B(x, w) in candle's operations.
    ///
    /// # Errors
    /// If candle fails.
    fn composed(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;

    /// y += B(x, w).
    fn apply<T: Real>(&self, x: &[T], w: &[T], y: &mut [T]);

    /// x += B₁(g, w).
    fn left<T: Real>(&self, g: &[T], w: &[T], x: &mut [T]);

    /// w += B₂(x, g).
    fn right<T: Real>(&self, x: &[T], g: &[T], w: &mut [T]);

    /// Σ B(x, w) on tensors without a graph.
    ///
    /// # Errors
    /// If candle fails.
    fn apply_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>>;

    /// Σ B₁(g, w), of pairs (g, w).
    ///
    /// # Errors
    /// If candle fails.
    fn left_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>>;

    /// Σ B₂(x, g), of pairs (x, g).
    ///
    /// # Errors
    /// If candle fails.
    fn right_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>>;
}

/// Pairs of operands.
pub type Pairs<'a> = &'a [(&'a Tensor, &'a Tensor)];

/// Runs a bilinear map, as [`call`] runs an operation.
///
/// # Errors
/// As there.
pub fn bilinear(map: impl Bilinear, x: &dyn Operand, w: &dyn Operand) -> Result<Handle> {
    call(Map(map), &[x, w])
}

struct Map<M>(M);

impl<M: Bilinear> Op for Map<M> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.0.shape(inputs[0], inputs[1])
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.0.composed(&inputs[0], &inputs[1])
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

/// The first pass's gradient and the cotangents of gx and gw.
struct Left<N> {
    gradient: N,
    v_x: Option<N>,
    v_w: Option<N>,
}

impl<T: Real, M: Bilinear> Kernel<Cpu<T>> for Map<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = Left<Array<T>>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
        let shape = self.0.shape(inputs.shape(0), inputs.shape(1))?;
        let mut y = Buffer::zeroed(shape.iter().product());
        self.0.apply(&inputs[0], &inputs[1], &mut y);
        Ok((y.into(), ()))
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Self::Deferred>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let zeros = |numbers: &[T], wanted: bool| wanted.then(|| Buffer::zeroed(numbers.len()));
        let (mut gx, mut gw) = (zeros(x, wanted[0]), zeros(w, wanted[1]));
        let mut add = |g: &[T], x: Option<&[T]>, w: Option<&[T]>| {
            if let (Some(gx), Some(w)) = (&mut gx, w) {
                self.0.left(g, w, gx);
            }
            if let (Some(gw), Some(x)) = (&mut gw, x) {
                self.0.right(x, g, gw);
            }
        };
        if let Some(g) = gradient {
            add(g, Some(x), Some(w));
        }
        if let Some(left) = &deferred {
            let v_x = left.v_x.as_ref().map(Array::view).transpose()?;
            let v_w = left.v_w.as_ref().map(Array::view).transpose()?;
            add(&left.gradient.view()?, v_x.as_deref(), v_w.as_deref());
        }
        Ok((vec![gx, gw], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Self::Deferred)> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let mut tangent = Buffer::zeroed(gradient.view()?.len());
        if let Some(v_x) = &cotangents[0] {
            self.0.apply(&v_x.view()?, w, &mut tangent);
        }
        if let Some(v_w) = &cotangents[1] {
            self.0.apply(x, &v_w.view()?, &mut tangent);
        }
        let keep = |i: usize| cotangents[i].as_ref().map(Held::keep);
        let left = Left {
            gradient: gradient.clone(),
            v_x: keep(0),
            v_w: keep(1),
        };
        Ok((tangent.into(), left))
    }
}

impl<M: Bilinear> Kernel<Tensors> for Map<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = Left<Tensor>;

    fn forward(&self, inputs: &tensors::Inputs, _: bool) -> Result<(tensors::Output, ())> {
        let y = self.0.apply_tensors(&[(&inputs[0], &inputs[1])])?;
        let y = y.ok_or_else(|| crate::Error::Engine {
            what: format!("`{}` made nothing of a pair", self.0.name()),
        })?;
        Ok((y.into(), ()))
    }

    fn adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: Option<&Tensor>,
        deferred: Option<Self::Deferred>,
        wanted: &[bool],
        _: &mut tensors::Gradients,
    ) -> Result<(tensors::Gradients, ())> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let left = deferred.as_ref();
        let g = left.map(|left| &left.gradient);
        let v_x = left.and_then(|left| left.v_x.as_ref());
        let v_w = left.and_then(|left| left.v_w.as_ref());
        let (mut gx, mut gw) = (None, None);
        if wanted[0] {
            gx = self
                .0
                .left_tensors(&there([(gradient, Some(w)), (g, v_w)]))?;
        }
        if wanted[1] {
            gw = self
                .0
                .right_tensors(&there([(Some(x), gradient), (v_x, g)]))?;
        }
        Ok(([gx, gw].map(|gradient| gradient.map(Into::into)).into(), ()))
    }

    fn second_adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: &tensors::Array,
        _: &(),
        cotangents: &[Option<tensors::Held>],
    ) -> Result<(tensors::Output, Self::Deferred)> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let gradient = gradient.view()?.into_tensor();
        let v_x = tensors::numbers(cotangents.first())?;
        let v_w = tensors::numbers(cotangents.get(1))?;
        let pairs = there([(v_x.as_ref(), Some(w)), (Some(x), v_w.as_ref())]);
        let tangent = match self.0.apply_tensors(&pairs)? {
            Some(tangent) => tangent,
            None => gradient.zeros_like()?,
        };
        Ok((tangent.into(), Left { gradient, v_x, v_w }))
    }
}

/// The pairs of which both are there.
pub(crate) fn there<'a, const N: usize>(
    pairs: [(Option<&'a Tensor>, Option<&'a Tensor>); N],
) -> Vec<(&'a Tensor, &'a Tensor)> {
    pairs.into_iter().filter_map(|(a, b)| a.zip(b)).collect()
}
