//! What an operation is.

use super::{Array, Backend, Held, Kernels, Output};
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::ops::Index;

/// An operation y = F(x₁, x₂, …): one struct, with its settings as fields.
///
/// [`call`](super::call()) runs it. On a backend for which it has a [`Kernel`] it is one fused node, elsewhere
/// [`Op::composed`].
///
/// ```
/// use adahessian::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
/// use adahessian::engine::{Cpu, Kernel, Kernels, Op, call};
/// use adahessian::numeric::{Buffer, Real};
/// use adahessian::{NamedVars, Result, check};
/// use candle_core::{Device, Tensor, Var};
///
/// /// y = Σ x².   A: gx = 2 g x.   ∂A: ḡ = 2 ⟨v, x⟩.   ∂F: x̄ = 2 ȳ x + 2 g v.
/// struct SumOfSquares;
///
/// impl Op for SumOfSquares {
///     fn name(&self) -> &'static str {
///         "sum of squares"
///     }
///     fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
///         Ok(vec![])
///     }
///     fn composed(&self, x: &[Tensor]) -> Result<Tensor> {
///         Ok(x[0].sqr()?.sum_all()?)
///     }
///     fn kernels() -> Kernels<Self> {
///         Kernels::cpu()
///     }
/// }
///
/// fn scaled<T: Real>(x: &[T], by: T) -> Buffer<T> {
///     let mut y = Buffer::copy_of(x);
///     y.iter_mut().for_each(|y| *y = *y * by);
///     y
/// }
///
/// impl<T: Real> Kernel<Cpu<T>> for SumOfSquares {
///     type Saved = ();
///     type Kept = ();
///     type Deferred = Option<Buffer<T>>; // 2 g v
///
///     fn forward(&self, x: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
///         let sum = x[0].iter().map(|&x| x * x).sum();
///         Ok((Buffer::copy_of(&[sum]).into(), ()))
///     }
///
///     fn adjoint(
///         &self,
///         at: &Point<T, ()>,
///         gradient: Option<&[T]>,
///         deferred: Option<Option<Buffer<T>>>,
///         _: &[bool],
///         _: &mut Gradients<T>,
///     ) -> Result<(Gradients<T>, ())> {
///         let twice = gradient.map_or(T::ZERO, |g| g[0] + g[0]);
///         let mut gx = scaled(at.input(0)?, twice);
///         if let Some(part) = deferred.flatten() {
///             gx.iter_mut().zip(part.iter()).for_each(|(x, &p)| *x += p);
///         }
///         Ok((vec![Some(gx)], ()))
///     }
///
///     fn second_adjoint(
///         &self,
///         at: &Point<T, ()>,
///         gradient: &Array<T>,
///         _: &(),
///         cotangents: &[Option<Held<T>>],
///     ) -> Result<(Output<T>, Option<Buffer<T>>)> {
///         let two = T::from_f64(2.0);
///         let Some(v) = &cotangents[0] else {
///             return Ok((Buffer::zeroed(1).into(), None));
///         };
///         let v = v.view()?;
///         let along: T = v.iter().zip(at.input(0)?).map(|(&v, &x)| v * x).sum();
///         let left = scaled(&v, two * gradient.view()?[0]);
///         Ok((Buffer::copy_of(&[two * along]).into(), Some(left)))
///     }
/// }
///
/// let x = Var::new(&[0.5, -1.0, 2.0], &Device::Cpu)?;
/// let vars = NamedVars::new([("x".to_string(), x.clone())])?;
/// let loss = || {
///     let y = call(SumOfSquares, &[x.as_tensor()])?.exit()?;
///     Ok(y.sin()?)
/// };
/// check::gradient(&vars, 1e-7, loss)?; // against differences of the loss
/// check::hessian(&vars, 1e-7, loss)?; // against differences of the gradient
/// # Ok::<(), adahessian::Error>(())
/// ```
pub trait Op: Sized + Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// The shape of the result for inputs of these shapes.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for inputs that do not fit.
    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>>;

    /// The definition, in candle's operations: on any device, and differentiable as often as they are.
    ///
    /// # Errors
    /// If candle fails.
    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor>;

    /// The kernels that there are; none, if this is not written. `Kernels::cpu()` for an operation that
    /// implements [`Kernel`] for [`Cpu<T>`](super::Cpu) with any [`Real`](crate::numeric::Real).
    fn kernels() -> Kernels<Self> {
        Kernels::none()
    }
}

/// The values of an operation's inputs, in order: `inputs[0]` are the numbers of the first.
pub struct Inputs<'a, B: Backend> {
    pub(super) views: Vec<B::View<'a>>,
    pub(super) shapes: Vec<&'a [usize]>,
}

impl<B: Backend> Inputs<'_, B> {
    /// The numbers of an input that there may be.
    pub fn get(&self, input: usize) -> Option<&B::Numbers> {
        self.views.get(input).map(|view| &**view)
    }

    /// The shape of an input.
    pub fn shape(&self, input: usize) -> &[usize] {
        self.shapes[input]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &B::Numbers> {
        self.views.iter().map(|view| &**view)
    }
}

impl<B: Backend> Index<usize> for Inputs<'_, B> {
    type Output = B::Numbers;

    fn index(&self, input: usize) -> &B::Numbers {
        &self.views[input]
    }
}

/// Gradients of an operation's inputs, in order; `None` where none is wanted, or it is zero.
pub type Gradients<B> = Vec<Option<<B as Backend>::Buffer>>;

/// What is kept of the values of an operation's inputs and of its own.
pub(super) struct Values<'a, B: Backend> {
    pub name: &'static str,
    pub inputs: Vec<Option<B::View<'a>>>,
    pub output: Option<B::View<'a>>,
    pub shapes: Vec<&'a [usize]>,
}

impl<'a, B: Backend> Values<'a, B> {
    pub fn with<S>(self, saved: &'a S) -> Point<'a, B, S> {
        Point {
            values: self,
            saved,
        }
    }
}

/// The values at which an operation is differentiated.
pub struct Point<'a, B: Backend, S> {
    values: Values<'a, B>,
    /// What the forward pass left.
    pub saved: &'a S,
}

impl<B: Backend, S> Point<'_, B, S> {
    /// The value of input number `input`.
    ///
    /// # Errors
    /// [`Error::Engine`] for one that is not kept, since [`Kernel::reads`] says that it is not read.
    pub fn input(&self, input: usize) -> Result<&B::Numbers> {
        match self.values.inputs.get(input) {
            Some(Some(view)) => Ok(view),
            _ => Err(self.missing(&format!("input {input}"), "reads")),
        }
    }

    /// The value of an input that there may be.
    ///
    /// # Errors
    /// As [`Point::input`] for one that there is.
    pub fn optional(&self, input: usize) -> Result<Option<&B::Numbers>> {
        match input < self.values.inputs.len() {
            true => self.input(input).map(Some),
            false => Ok(None),
        }
    }

    /// The operation's own value.
    ///
    /// # Errors
    /// [`Error::Engine`] unless [`Kernel::reads_value`] says that it is read.
    pub fn output(&self) -> Result<&B::Numbers> {
        let output = self.values.output.as_deref();
        output.ok_or_else(|| self.missing("its own value", "reads_value"))
    }

    /// The shape of input number `input`.
    pub fn shape(&self, input: usize) -> &[usize] {
        self.values.shapes[input]
    }

    /// How many numbers each input has.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.values
            .shapes
            .iter()
            .map(|shape| shape.iter().product())
    }

    fn missing(&self, what: &str, method: &str) -> Error {
        Error::Engine {
            what: format!(
                "the fused operation `{}` reads {what}, which is not kept: its `{method}` must say so",
                self.values.name
            ),
        }
    }
}

/// An operation's derivatives on a backend, each a plain computation on buffers.
///
/// With g the gradient of y, its adjoint is A(x, g) = (∂F/∂x)ᵀ g. For cotangents v of A's results,
/// φ = Σ ⟨v, A(x, g)⟩ is differentiated once more: ∂φ/∂g by `second_adjoint`, ∂φ/∂x by the `adjoint`
/// that comes after, together with the cotangent ȳ of y.
pub trait Kernel<B: Backend>: Op {
    /// What the forward pass leaves for both backward passes.
    type Saved: Send + Sync + 'static;
    /// What the first pass's `adjoint` leaves for `second_adjoint`.
    type Kept: Send + Sync + 'static;
    /// What `second_adjoint` leaves for the second pass's `adjoint`.
    type Deferred: Send + 'static;

    /// Whether the backward passes read the value of input number `input`. What no operation reads is
    /// not kept for them.
    fn reads(&self, _input: usize) -> bool {
        true
    }

    /// Whether the backward passes read the operation's own value.
    fn reads_value(&self) -> bool {
        false
    }

    /// F. `keep` tells whether it will be differentiated.
    ///
    /// # Errors
    /// If the device fails.
    fn forward(&self, inputs: &Inputs<B>, keep: bool) -> Result<(Output<B>, Self::Saved)>;

    /// (∂F/∂x)ᵀ g + ∂φ/∂x for the inputs that `wanted` marks. Either part may be absent. `onto` holds
    /// the gradients that the inputs have from other operations; one that is taken out must have been
    /// added to the result, which saves a pass over it.
    ///
    /// # Errors
    /// If the device fails.
    fn adjoint(
        &self,
        point: &Point<B, Self::Saved>,
        gradient: Option<&B::Numbers>,
        deferred: Option<Self::Deferred>,
        wanted: &[bool],
        onto: &mut Gradients<B>,
    ) -> Result<(Gradients<B>, Self::Kept)>;

    /// ∂φ/∂g for the gradient g of the first pass and the cotangents of the inputs' gradients
    /// (`None` is zero), and what ∂φ/∂x needs of it.
    ///
    /// # Errors
    /// If the device fails.
    fn second_adjoint(
        &self,
        point: &Point<B, Self::Saved>,
        gradient: &Array<B>,
        kept: &Self::Kept,
        cotangents: &[Option<Held<B>>],
    ) -> Result<(Output<B>, Self::Deferred)>;
}
