//! Operations that are linear in their inputs: sums of rows, masks, parts of a tensor.
//!
//! For y = M x: gx = Mᵀ g; the derivative of that in g is ḡ = M v_x, and x̄ = Mᵀ ȳ.

use super::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use super::{Cpu, Handle, Kernel, Kernels, Op, Operand, Tensors, call, tensors};
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

    /// Whether there is [`LinearMap::transposed_tensor`]. Without it the map is composed on a GPU.
    const OF_TENSORS: bool = false;

    /// M x on tensors without a graph, where there is something faster than [`LinearMap::composed`].
    ///
    /// # Errors
    /// If candle fails.
    fn apply_tensor(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.composed(inputs)
    }

    /// Mᵀ g for input number `input`, of this shape, in candle's operations on tensors without a graph.
    ///
    /// # Errors
    /// If candle fails.
    fn transposed_tensor(&self, _g: &Tensor, _input: usize, _shape: &[usize]) -> Result<Tensor> {
        Err(crate::Error::Engine {
            what: format!("the linear map `{}` has no kernel of tensors", self.name()),
        })
    }
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
        match M::OF_TENSORS {
            true => Kernels::everywhere(),
            false => Kernels::cpu(),
        }
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

impl<M: LinearMap> Kernel<Tensors> for Map<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = ();

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &tensors::Inputs, _: bool) -> Result<(tensors::Output, ())> {
        let inputs: Vec<_> = inputs.iter().cloned().collect();
        Ok((self.0.apply_tensor(&inputs)?.into(), ()))
    }

    fn adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: Option<&Tensor>,
        _: Option<()>,
        wanted: &[bool],
        _: &mut tensors::Gradients,
    ) -> Result<(tensors::Gradients, ())> {
        let inputs = wanted.iter().enumerate();
        let gradients = inputs.map(|(i, wanted)| match (gradient, wanted) {
            (Some(g), true) => {
                let gradient = self.0.transposed_tensor(g, i, point.shape(i))?;
                Ok(Some(gradient.into()))
            }
            _ => Ok(None),
        });
        Ok((gradients.collect::<Result<_>>()?, ()))
    }

    fn second_adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: &tensors::Array,
        _: &(),
        cotangents: &[Option<tensors::Held>],
    ) -> Result<(tensors::Output, ())> {
        let gradient = gradient.view()?;
        let inputs = cotangents.iter().enumerate();
        let inputs = inputs.map(|(i, v)| match tensors::numbers(Some(v))? {
            Some(v) => Ok(v),
            None => {
                let shape = point.shape(i);
                Ok(Tensor::zeros(shape, gradient.dtype(), gradient.device())?)
            }
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok((self.0.apply_tensor(&inputs)?.into(), ()))
    }
}
