//! Hutchinson's estimators: diagonal and trace from products with random vectors.

use crate::curvature::LinearOperator;
use crate::error::{Error, Result};
use crate::random::Stream;
use crate::vars::{NamedVars, VarVec};

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

    /// The probe of one sample, in the variables' dtypes and on their devices. It is drawn on the
    /// CPU, so it is the same on every device.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn probe(&self, vars: &NamedVars, sample: usize) -> Result<VarVec> {
        VarVec::from_fn(vars, |name, shape, dtype, device| {
            let stream = Stream::new(
                self.seed,
                &format!("probe/{name}"),
                self.step,
                sample as u32,
            );
            match self.probe {
                Probe::Rademacher => stream.rademacher_tensor(shape, dtype, device),
                Probe::Gaussian => stream.normal_tensor(shape, dtype, device),
            }
        })
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
        let mut sum: Option<VarVec> = None;
        for sample in 0..self.samples {
            let probe = self.probe(operator.vars(), sample)?;
            let product = operator.apply(&probe)?.hadamard(&probe)?;
            sum = Some(match sum {
                Some(sum) => sum.add_scaled(&product, 1.0)?,
                None => product,
            });
        }
        match sum {
            Some(sum) => sum.scale(1.0 / self.samples as f64),
            None => VarVec::zeros(operator.vars()),
        }
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
