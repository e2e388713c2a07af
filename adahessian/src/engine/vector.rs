//! The vectors of a second pass.

use super::{Backend, Held, Recompute};
use crate::error::Result;
use crate::numeric::in_place;
use crate::random::Stream;
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// How many signs are drawn again.
const AGAIN: Range<usize> = 1 << 16..1 << 22;

/// What a variable's gradient is multiplied with, so that the second pass differentiates the sum of it.
#[derive(Clone, Debug)]
pub(crate) enum Vector {
    Tensor(Tensor),
    Signs(Signs),
}

/// Random signs that are drawn whenever they are read: no array of the model's size that waits for the end of the pass.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    stream: Stream,
    shape: Vec<usize>,
    dtype: DType,
}

impl Vector {
    /// Signs for a variable; drawn at once where that is what its backend takes, and of variables that are small (a draw
    /// would cost more than it saves) or a table, of which few rows are read.
    pub fn signs(stream: Stream, variable: &Tensor) -> Result<Self> {
        let (dtype, device) = (variable.dtype(), variable.device());
        let again = matches!((dtype, device), (DType::F32 | DType::F64, Device::Cpu));
        Ok(match again && AGAIN.contains(&variable.elem_count()) {
            true => Self::Signs(Signs {
                stream,
                shape: variable.dims().into(),
                dtype,
            }),
            false => Self::Tensor(stream.rademacher_tensor(variable.dims(), dtype, device)?),
        })
    }

    /// Its numbers.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Signs(signs) => signs.tensor(),
        }
    }

    /// Of a tensor.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Signs(_) => None,
        }
    }

    /// z ⊙ p.
    pub fn times(&self, p: &Tensor) -> Result<Tensor> {
        match self {
            Self::Tensor(z) => in_place::product(p, z),
            Self::Signs(signs) => match in_place::signed(p, &signs.stream)? {
                Some(product) => Ok(product),
                None => in_place::product(p, &signs.tensor()?),
            },
        }
    }

    /// As what flows through slots.
    pub(super) fn held<B: Backend>(&self) -> Result<Held<B>> {
        match self {
            Self::Tensor(tensor) => Held::of_tensor(tensor),
            Self::Signs(signs) => Ok(Held::again(Arc::new(signs.clone()))),
        }
    }
}

impl Signs {
    fn tensor(&self) -> Result<Tensor> {
        let (stream, shape) = (&self.stream, &self.shape[..]);
        stream.rademacher_tensor(shape, self.dtype, &Device::Cpu)
    }
}

impl<B: Backend> Recompute<B> for Signs {
    fn compute(&self) -> Result<B::Buffer> {
        match B::signs(&self.stream, self.shape.iter().product()) {
            Some(signs) => Ok(signs),
            None => B::copy(&self.tensor()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cpu;
    use crate::numeric::Real;

    fn drawn_again<T: Real>(stream: Stream, length: usize) -> Result<()> {
        let like = Tensor::zeros(length, T::DTYPE, &Device::Cpu)?;
        let vector = Vector::signs(stream, &like)?;
        assert_eq!(vector.as_tensor().is_none(), AGAIN.contains(&length));
        let z = vector.tensor()?;
        let expected = stream.rademacher_tensor(&[length], T::DTYPE, &Device::Cpu)?;
        let numbers = |x: &Tensor| x.to_dtype(DType::F64)?.to_vec1::<f64>();
        assert_eq!(numbers(&z)?, numbers(&expected)?);
        let held = vector.held::<Cpu<T>>()?;
        for view in [held.view()?, held.keep().view()?] {
            let view: Vec<f64> = view.iter().map(|x| x.to_f64()).collect();
            assert_eq!(view, numbers(&expected)?);
        }
        let p = stream.normal_tensor(&[length], T::DTYPE, &Device::Cpu)?;
        assert_eq!(numbers(&vector.times(&p)?)?, numbers(&(&p * &expected)?)?);
        Ok(())
    }

    #[test]
    fn signs_that_are_drawn_again_are_the_same() -> Result<()> {
        let stream = Stream::new(3, "probe/x", 5, 1);
        for length in [1, 1000, AGAIN.start, 100_003, AGAIN.end] {
            drawn_again::<f32>(stream, length)?;
            drawn_again::<f64>(stream, length)?;
        }
        Ok(())
    }
}
