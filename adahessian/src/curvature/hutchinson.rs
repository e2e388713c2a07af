//! Hutchinson's estimators: diagonal and trace from products with random vectors.

use super::mean::Sum;
use crate::curvature::LinearOperator;
use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use crate::random::{Stream, signs_on_device};
use crate::vars::{NamedVars, VarVec};
use candle_core::{Tensor, Var};

/// The distribution of a probe's entries. Both have mean 0 and variance 1, which makes the
/// estimators unbiased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// +1 or -1 with equal probability: the smallest variance for a diagonal; exact where the
    /// operator is diagonal.
    #[default]
    Rademacher,
    /// Standard normal.
    Gaussian,
}

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean over the samples.
    pub mean: f64,
    /// The standard deviation of the mean; not a number for a single sample.
    pub standard_error: f64,
}

/// Random probes z with `E[z zᵀ] = I`, so that `E[z ⊙ Az] = diag(A)` and `E[zᵀAz] = tr(A)`.
///
/// A probe is a pure function of (seed, step, sample, variable's name): it does not depend on what
/// was drawn before, on the device, or on which other variables there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hutchinson {
    samples: usize,
    seed: u64,
    step: u64,
    probe: Probe,
}

impl Hutchinson {
    /// Rademacher probes for step 0.
    pub fn new(samples: usize, seed: u64) -> Self {
        Self {
            samples,
            seed,
            step: 0,
            probe: Probe::Rademacher,
        }
    }

    /// The same generator at another step.
    pub fn at(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// The same generator with another distribution.
    pub fn with_probe(self, probe: Probe) -> Self {
        Self { probe, ..self }
    }

    /// How many probes an estimate uses.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The probe of one sample, in the variables' dtypes and on their devices, the same on every one. Signs for a GPU
    /// are drawn there in f32 and f64, all at once up to 2³¹ of them; other types go there as bytes, and normal numbers from
    /// the CPU.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn probe(&self, vars: &NamedVars, sample: usize) -> Result<VarVec> {
        // Room for all to be one tensor: candle's kernels never end beyond 2³² entries.
        let are_few = vars.elem_count() < 1 << 31;
        if self.probe == Probe::Rademacher && vars.are_elsewhere() && are_few {
            return self.signs_at_once(vars, sample);
        }
        VarVec::from_fn(vars, |name, shape, dtype, device| {
            let stream = self.stream(name, sample);
            match self.probe {
                Probe::Rademacher => stream.rademacher_tensor(shape, dtype, device),
                Probe::Gaussian => stream.normal_tensor(shape, dtype, device),
            }
        })
    }

    /// The same probe, of which large parts are drawn whenever they are read.
    pub(crate) fn vectors(&self, vars: &NamedVars, sample: usize) -> Result<Vec<Vector>> {
        if self.probe == Probe::Rademacher && !vars.are_elsewhere() {
            let signs = |(name, var): (&str, &Var)| Vector::signs(self.stream(name, sample), var);
            return vars.iter().map(signs).collect();
        }
        let probe = self.probe(vars, sample)?;
        let tensors = probe.tensors().iter().cloned();
        Ok(tensors.map(Vector::Tensor).collect())
    }

    fn stream(&self, name: &str, sample: usize) -> Stream {
        let name = format!("probe/{name}");
        Stream::new(self.seed, &name, self.step, sample as u32)
    }

    /// The same signs for variables of one type and device, drawn there or sent as bytes, all at once.
    fn signs_at_once(&self, vars: &NamedVars, sample: usize) -> Result<VarVec> {
        let Some((_, first)) = vars.iter().next() else {
            return VarVec::new(vars, Vec::new());
        };
        let stream = |(name, var): (&str, &Var)| (self.stream(name, sample), var.elem_count());
        let streams: Vec<_> = vars.iter().map(stream).collect();
        if let Some(signs) = signs_on_device(&streams, first.dtype(), first.device())? {
            let shaped = vars.iter().zip(signs);
            let shaped = shaped.map(|((_, var), signs)| Ok(signs.reshape(var.shape())?));
            return VarVec::new(vars, shaped.collect::<Result<_>>()?);
        }
        let bytes = streams.iter();
        let bytes: Vec<u8> = bytes.flat_map(|(s, count)| s.negative(*count)).collect();
        let count = bytes.len();
        let all = Tensor::from_vec(bytes, count, first.device())?;
        let all = all.to_dtype(first.dtype())?.affine(-2.0, 1.0)?;
        let mut start = 0;
        let part = |(_, var): (&str, &Var)| {
            let length = var.elem_count();
            let part = all.narrow(0, start, length)?;
            start += length;
            Ok(part.reshape(var.shape())?)
        };
        let tensors = vars.iter().map(part).collect::<Result<Vec<_>>>()?;
        VarVec::new(vars, tensors)
    }

    fn check(&self) -> Result<()> {
        match self.samples {
            0 => Err(Error::Setting {
                what: "Hutchinson samples",
                expected: "at least 1".into(),
                got: "0".into(),
            }),
            _ => Ok(()),
        }
    }

    /// The diagonal: the mean over the samples of z ⊙ Az (Eq. 9 of the paper), signed.
    ///
    /// # Errors
    /// [`Error::Setting`] for no samples, and the operator's errors.
    pub fn diagonal(&self, operator: &impl LinearOperator) -> Result<VarVec> {
        self.check()?;
        let mut sum = Sum::default();
        for sample in 0..self.samples {
            let probe = self.probe(operator.vars(), sample)?;
            let product = operator.apply(&probe)?.hadamard(&probe)?;
            sum.add(&product)?;
        }
        sum.mean(operator.vars())
    }

    /// The trace: the mean over the samples of zᵀAz.
    ///
    /// # Errors
    /// [`Error::Setting`] for no samples, and the operator's errors.
    pub fn trace(&self, operator: &impl LinearOperator) -> Result<Estimate> {
        self.check()?;
        let mut values = Vec::with_capacity(self.samples);
        for sample in 0..self.samples {
            let probe = self.probe(operator.vars(), sample)?;
            values.push(operator.apply(&probe)?.dot(&probe)?);
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Ok(Estimate {
            mean,
            standard_error: (squares / (n - 1.0) / n).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn signs_at_once_are_those_of_each_variable() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let var = |name: &str, shape: &[usize]| -> Result<(String, Var)> {
                Ok((name.into(), Var::zeros(shape, dtype, &Device::Cpu)?))
            };
            let vars = [var("a", &[3, 50])?, var("b", &[7])?, var("c", &[])?];
            let vars = NamedVars::new(vars)?;
            let draw = Hutchinson::new(2, 9).at(4);
            for sample in 0..2 {
                let each = draw.probe(&vars, sample)?;
                let at_once = draw.signs_at_once(&vars, sample)?;
                for ((name, a), (_, b)) in each.iter().zip(at_once.iter()) {
                    let [a, b] = [a, b].map(|x| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1());
                    assert_eq!(a? as Vec<f64>, b?, "{name} {dtype:?}");
                }
            }
        }
        Ok(())
    }
}
