//! Functions of one number, entry by entry.
//!
//! ```text
//! F:   y = f(x)
//! A:   gx = g f'(x)
//! ∂A:  ḡ = v f'(x)
//! ∂F:  x̄ = ȳ f'(x) + v g f''(x)
//! ```

use super::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use super::{Cpu, Handle, Kernel, Kernels, Op, Operand, Tensors, call, tensors};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd::{self, Task, Vector};
use crate::numeric::{Buffer, Real};
use candle_core::Tensor;

/// A function of one number with its first two derivatives.
///
/// ```
/// use adahessian::engine::{Entrywise, entrywise};
/// use adahessian::numeric::Real;
/// use adahessian::{NamedVars, Result, check};
/// use candle_core::{Device, Tensor, Var};
///
/// /// x³.
/// struct Cube;
///
/// impl Entrywise for Cube {
///     fn name(&self) -> &'static str {
///         "cube"
///     }
///     fn composed(&self, x: &Tensor) -> Result<Tensor> {
///         Ok((x * x.sqr()?)?)
///     }
///     fn derivatives<T: Real>(&self, x: T) -> [T; 3] {
///         [x * x * x, T::from_f64(3.0) * x * x, T::from_f64(6.0) * x]
///     }
/// }
///
/// let x = Var::new(&[0.5, -1.0, 2.0], &Device::Cpu)?;
/// let vars = NamedVars::new([("x".to_string(), x.clone())])?;
/// let loss = || {
///     let y = entrywise(Cube, x.as_tensor())?.exit()?;
///     Ok(y.sin()?.sum_all()?)
/// };
/// check::gradient(&vars, 1e-7, loss)?;
/// check::hessian(&vars, 1e-7, loss)?;
/// # Ok::<(), adahessian::Error>(())
/// ```
pub trait Entrywise: Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// f in candle's operations.
    ///
    /// # Errors
    /// If candle fails.
    fn composed(&self, x: &Tensor) -> Result<Tensor>;

    /// f(x), f'(x), f''(x). Without branches that depend on x, the compiler makes vectors of it.
    fn derivatives<T: Real>(&self, x: T) -> [T; 3];

    /// Whether there are [`Entrywise::sloped`] and [`Entrywise::bent`]. Without them f is composed on a GPU.
    const OF_TENSORS: bool = false;

    /// u f'(x), in candle's operations on tensors without a graph.
    ///
    /// # Errors
    /// If candle fails.
    fn sloped(&self, _x: &Tensor, _u: &Tensor) -> Result<Tensor> {
        Err(crate::Error::Engine {
            what: format!("`{}` has no kernel of tensors", self.name()),
        })
    }

    /// w f''(x) in the same way; `None` where it is zero for every x.
    ///
    /// # Errors
    /// If candle fails.
    fn bent(&self, _x: &Tensor, _w: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// f of every entry, as [`call`] runs an operation.
///
/// # Errors
/// As there.
pub fn entrywise(f: impl Entrywise, x: &dyn Operand) -> Result<Handle> {
    call(Each(f), &[x])
}

struct Each<F>(F);

impl<F: Entrywise> Op for Each<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.0.composed(&inputs[0])
    }

    fn kernels() -> Kernels<Self> {
        match F::OF_TENSORS {
            true => Kernels::everywhere(),
            false => Kernels::cpu(),
        }
    }
}

/// Entries that a thread does at a time.
const PIECE: usize = 1 << 14;

/// to = f(x, a, b) entry by entry, for what `of` makes of the derivatives and two more numbers.
fn pass<T: Real>(read: [&[T]; 3], of: impl Fn(T, T, T) -> T + Sync + Copy) -> Buffer<T> {
    let mut to = Buffer::scratch(read[0].len());
    parallel::each(to.chunks_mut(PIECE), |piece, to| {
        let read = read.map(|array| &array[piece * PIECE..][..to.len()]);
        simd::run(Pass { read, to, of });
    });
    to
}

struct Pass<'a, T, F> {
    read: [&'a [T]; 3],
    to: &'a mut [T],
    of: F,
}

impl<T: Real, F: Fn(T, T, T) -> T> Task<T> for Pass<'_, T, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let [x, a, b] = self.read;
        let entries = self.to.iter_mut().zip(x).zip(a.iter().zip(b));
        entries.for_each(|((to, &x), (&a, &b))| *to = (self.of)(x, a, b));
    }
}

impl<T: Real, F: Entrywise> Kernel<Cpu<T>> for Each<F> {
    type Saved = ();
    type Kept = ();
    /// v g.
    type Deferred = Buffer<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
        let x = &inputs[0];
        let y = pass([x, x, x], |x, _, _| self.0.derivatives(x)[0]);
        Ok((y.into(), ()))
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Buffer<T>>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let x = point.input(0)?;
        let slope = |x, g, _| g * self.0.derivatives::<T>(x)[1];
        let bend = |x, _, w| w * self.0.derivatives::<T>(x)[2];
        let both = |x, g, w| {
            let [_, slope, bend] = self.0.derivatives::<T>(x);
            g * slope + w * bend
        };
        let gx = match (gradient, &deferred) {
            (Some(g), Some(w)) => Some(pass([x, g, w], both)),
            (Some(g), None) => Some(pass([x, g, g], slope)),
            (None, Some(w)) => Some(pass([x, w, w], bend)),
            (None, None) => None,
        };
        Ok((vec![gx], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Buffer<T>)> {
        let (x, g) = (point.input(0)?, gradient.view()?);
        let Some(v) = &cotangents[0] else {
            let zeros = || Buffer::zeroed(x.len());
            return Ok((zeros().into(), zeros()));
        };
        let v = v.view()?;
        let tangent = pass([x, &v, &v], |x, v, _| v * self.0.derivatives(x)[1]);
        let left = pass([&v, &g, &g], |v, g, _| v * g);
        Ok((tangent.into(), left))
    }
}

impl<F: Entrywise> Kernel<Tensors> for Each<F> {
    type Saved = ();
    type Kept = ();
    /// v g.
    type Deferred = Option<Tensor>;

    fn forward(&self, inputs: &tensors::Inputs, _: bool) -> Result<(tensors::Output, ())> {
        Ok((self.0.composed(&inputs[0])?.into(), ()))
    }

    fn adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: Option<&Tensor>,
        deferred: Option<Option<Tensor>>,
        _: &[bool],
        _: &mut tensors::Gradients,
    ) -> Result<(tensors::Gradients, ())> {
        let x = point.input(0)?;
        let slope = gradient.map(|g| self.0.sloped(x, g)).transpose()?;
        let bend = match deferred.flatten() {
            Some(w) => self.0.bent(x, &w)?,
            None => None,
        };
        Ok((vec![tensors::plus(slope, bend)?.map(Into::into)], ()))
    }

    fn second_adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: &tensors::Array,
        _: &(),
        cotangents: &[Option<tensors::Held>],
    ) -> Result<(tensors::Output, Option<Tensor>)> {
        let (x, g) = (point.input(0)?, gradient.view()?);
        let Some(v) = tensors::numbers(cotangents.first())? else {
            return Ok((g.zeros_like()?.into(), None));
        };
        let left = (&v * &*g)?;
        Ok((self.0.sloped(x, &v)?.into(), Some(left)))
    }
}
