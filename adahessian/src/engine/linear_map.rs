//! Operations that are linear in their inputs: sums of rows, masks, parts of a tensor.
//!
//! For y = M x: gx = Mᵀ g; the derivative of that in g is ḡ = M v_x, and x̄ = Mᵀ ȳ.

use super::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use super::{Cpu, Handle, Kernel, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::{Buffer, Real};
use candle_core::Tensor;

/// A linear map of several inputs, with its transposed: all that both derivatives need.
pub trait LinearMap: Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// The shape of the result for inputs of these shapes.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for inputs that do not fit.
    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>>;

    /// M x in candle's operations.
    ///
    /// # Errors
    /// If candle fails.
    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor>;

    /// M x; an input that is `None` is zero.
    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T>;

    /// Mᵀ g for input number `input`, of this length.
    fn transposed<T: Real>(&self, g: &[T], input: usize, length: usize) -> Buffer<T>;
}

/// Runs a linear map, as [`call`] runs an operation.
///
/// # Errors
/// As there.
pub fn linear_map(map: impl LinearMap, inputs: &[&dyn Operand]) -> Result<Handle> {
    call(Map(map), inputs)
}

struct Map<M>(M);

impl<M: LinearMap> Op for Map<M> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.0.shape(inputs)
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.0.composed(inputs)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::cpu()
    }
}

impl<T: Real, M: LinearMap> Kernel<Cpu<T>> for Map<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = ();

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
        let inputs: Vec<_> = inputs.iter().map(Some).collect();
        Ok((self.0.apply(&inputs).into(), ()))
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        _: Option<()>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let inputs = point.lengths().zip(wanted).enumerate();
        let gradients = inputs.map(|(i, (length, wanted))| {
            let g = gradient.filter(|_| *wanted)?;
            Some(self.0.transposed(g, i, length))
        });
        Ok((gradients.collect(), ()))
    }

    fn second_adjoint(
        &self,
        _: &Point<T, ()>,
        _: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, ())> {
        let views = cotangents.iter().map(|v| v.as_ref().map(Held::view));
        let views = views.map(Option::transpose).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<_> = views.iter().map(Option::as_deref).collect();
        Ok((self.0.apply(&inputs).into(), ()))
    }
}
