//! Operations that are linear in one image, as one kind of the engine's: pooling and shortcuts.
//!
//! For y = M x: gx = Mᵀ g; the derivative of that in g is ḡ = M v_x, and x̄ = Mᵀ ȳ. Maximum pooling
//! belongs here, with the matrix that picks the largest entries of the forward pass.

use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel, Kernels, Op, Tensors, tensors};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real, each_row, rows_in_piece};
use candle_core::Tensor;

/// A sparse linear map of single channels, the same computation for each.
pub(super) trait PlaneMap: Send + Sync + 'static {
    /// Its name, for errors.
    const NAME: &'static str;
    /// The whole operation in candle's operations.
    fn composed(&self, x: &Tensor) -> Result<Tensor>;
    /// y = M x for one channel. `picked` remembers choices that depend on x, where there are any.
    fn forward<T: Real>(&self, x: &[T], y: &mut [T], picked: &mut [u32]);
    /// y = M v with the choices made before.
    fn again<T: Real>(&self, v: &[T], y: &mut [T], picked: &[u32]);
    /// x += Mᵀ g. `x` is zero before.
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], picked: &[u32]);
    /// Whether the map chooses.
    fn picks(&self) -> bool;

    /// Whether there is [`PlaneMap::transposed_tensor`]. Without it the map is composed on a GPU.
    const OF_TENSORS: bool = false;

    /// Mᵀ g for an input of this shape, in candle's operations on tensors without a graph.
    fn transposed_tensor(&self, _g: &Tensor, _shape: &[usize]) -> Result<Tensor> {
        Err(crate::Error::Engine {
            what: format!("`{}` has no kernel of tensors", Self::NAME),
        })
    }
}

/// A [`PlaneMap`] on every channel, with `before` zero channels put before each image's and as many
/// after as make `to` in all.
pub(super) struct Planes<M> {
    pub map: M,
    pub images: usize,
    pub from: usize,
    pub to: usize,
    pub before: usize,
    /// Numbers in a channel of x and of y.
    pub size: usize,
    pub result: usize,
    /// The shape of the whole result.
    pub shape: Vec<usize>,
}

impl<M: PlaneMap> Op for Planes<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape.clone())
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.map.composed(&inputs[0])
    }

    fn kernels() -> Kernels<Self> {
        match M::OF_TENSORS {
            true => Kernels::everywhere(),
            false => Kernels::cpu(),
        }
    }
}

impl<M: PlaneMap> Planes<M> {
    /// Channels of y that come from channels of x, with their numbers there.
    fn each<T: Real>(
        &self,
        y: &mut [T],
        picked: &mut [u32],
        work: impl Fn(usize, &mut [T], &mut [u32]) + Sync,
    ) {
        let count = rows_in_piece(self.result);
        let pieces = y.chunks_mut(count * self.result);
        let mut picks: Vec<&mut [u32]> = match self.map.picks() {
            true => picked.chunks_mut(count * self.result).collect(),
            false => Vec::new(),
        };
        picks.resize_with(pieces.len(), Default::default);
        parallel::each(pieces.zip(picks), |piece, (y, picked)| {
            let mut picked = picked.chunks_exact_mut(self.result);
            for (channel, y) in (piece * count..).zip(y.chunks_exact_mut(self.result)) {
                let picked = picked.next().unwrap_or_default();
                let (image, o) = (channel / self.to, channel % self.to);
                match o.checked_sub(self.before).filter(|&c| c < self.from) {
                    Some(c) => work(image * self.from + c, y, picked),
                    None => y.fill(T::ZERO),
                }
            }
        });
    }

    fn transposed<T: Real>(&self, g: &[T], picked: &[u32]) -> Buffer<T> {
        let mut x = Buffer::zeroed(self.images * self.from * self.size);
        each_row(&mut x, self.size, |channel, x| {
            let (image, c) = (channel / self.from, channel % self.from);
            let start = (image * self.to + self.before + c) * self.result;
            let picked = picked.get(start..start + self.result).unwrap_or(&[]);
            self.map
                .transposed(&g[start..start + self.result], x, picked);
        });
        x
    }
}

impl<T: Real, M: PlaneMap> Kernel<Cpu<T>> for Planes<M> {
    type Saved = Vec<u32>;
    type Kept = ();
    type Deferred = ();

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Vec<u32>)> {
        let x: &[T] = &inputs[0];
        let mut y = Buffer::scratch(self.images * self.to * self.result);
        let mut picked = vec![0; if self.map.picks() { y.len() } else { 0 }];
        self.each(&mut y, &mut picked, |channel, y, picked| {
            self.map
                .forward(&x[channel * self.size..][..self.size], y, picked);
        });
        Ok((y.into(), picked))
    }

    fn adjoint(
        &self,
        point: &Point<T, Vec<u32>>,
        gradient: Option<&[T]>,
        _: Option<()>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        Ok((vec![gradient.map(|g| self.transposed(g, point.saved))], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Vec<u32>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, ())> {
        let mut y = Buffer::zeroed(gradient.view()?.len());
        if let Some(v) = &cotangents[0] {
            let (v, mut picked) = (v.view()?, point.saved.clone());
            self.each(&mut y, &mut picked, |channel, y, picked| {
                self.map
                    .again(&v[channel * self.size..][..self.size], y, picked);
            });
        }
        Ok((y.into(), ()))
    }
}

/// Of maps that choose nothing.
impl<M: PlaneMap> Kernel<Tensors> for Planes<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = ();

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &tensors::Inputs, _: bool) -> Result<(tensors::Output, ())> {
        Ok((self.map.composed(&inputs[0])?.into(), ()))
    }

    fn adjoint(
        &self,
        point: &tensors::Point<()>,
        gradient: Option<&Tensor>,
        _: Option<()>,
        _: &[bool],
        _: &mut tensors::Gradients,
    ) -> Result<(tensors::Gradients, ())> {
        let of = |g: &Tensor| self.map.transposed_tensor(g, point.shape(0));
        let gradient = gradient.map(of).transpose()?;
        Ok((vec![gradient.map(Into::into)], ()))
    }

    fn second_adjoint(
        &self,
        _: &tensors::Point<()>,
        gradient: &tensors::Array,
        _: &(),
        cotangents: &[Option<tensors::Held>],
    ) -> Result<(tensors::Output, ())> {
        let tangent = match tensors::numbers(cotangents.first())? {
            Some(v) => self.map.composed(&v)?,
            None => gradient.view()?.zeros_like()?,
        };
        Ok((tangent.into(), ()))
    }
}
