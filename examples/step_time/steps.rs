//! Steps, and what they take.

use crate::bench::Bench;
use adahessian::ops::statistics_at_rest;
use adahessian::sparse::SparseOptimizer;
use adahessian::{Composite, NamedVars, Optim, Rule, Sgd, check};
use anyhow::Result;
use candle_core::{DType, DeviceLocation, Tensor};
use std::time::Instant;

/// Examples of an audit.
const AUDITED: usize = 8;

/// How much of the curvature an optimizer sees.
#[derive(Clone, Copy)]
pub struct Curvature {
    /// On every so many-th step.
    pub every: u64,
    /// Of this share of the batch.
    pub share: f64,
}

impl Curvature {
    pub const WHOLE: Self = Self {
        every: 1,
        share: 1.0,
    };

    /// Those that are asked for of an optimizer: one that has no curvature is measured once.
    pub fn all(optimizer: &str, every: &[u64], shares: &[f64]) -> Vec<Self> {
        if !["adahessian", "sophiah"].contains(&optimizer) {
            return vec![Self::WHOLE];
        }
        let of = |every: &u64| {
            let every = (*every).max(1);
            shares.iter().map(move |&share| Self { every, share })
        };
        every.iter().flat_map(of).collect()
    }
}

/// What was measured with one optimizer.
pub struct Measured {
    /// Median seconds a step.
    pub seconds: f64,
    /// The loss before the first step: the same on every device, but for rounding.
    pub loss: Option<f64>,
}

impl Bench {
    /// The optimizer of the variables, and of the tables where there are some.
    pub fn with_tables(&self, optimizer: Box<dyn Optim>) -> Result<Box<dyn Optim>> {
        if self.tables.is_empty() {
            return Ok(optimizer);
        }
        let sparse = SparseOptimizer::new(&self.tables, self.table_rule, 1e-4)?;
        let both = Composite::new().with_boxed("variables", optimizer);
        Ok(Box::new(both.with("tables", sparse)))
    }

    /// On the first examples: an audit computes their loss a hundred times.
    pub fn audit(&self) -> Result<()> {
        let few = self.inputs.dim(0)?.min(AUDITED);
        let (inputs, labels) = (
            self.inputs.narrow(0, 0, few)?,
            self.labels.narrow(0, 0, few)?,
        );
        let began = Instant::now();
        let audit = check::audit(&self.vars, || {
            let loss = (self.loss)(&inputs, &labels);
            loss.map_err(|e| candle_core::Error::msg(format!("{e:#}")).into())
        })?;
        println!(
            "audit of {few} examples in {:.1} s: {audit}",
            began.elapsed().as_secs_f64()
        );
        // Lookups in tables, which wait for their gradients.
        let none = Sgd::default().lr(1e-5).build(NamedVars::new([])?)?;
        self.with_tables(Box::new(none))?.discard();
        Ok(())
    }

    /// A step, and its loss; with the curvature of a share of each part, as the training loop takes it.
    fn step(&self, optimizer: &mut dyn Optim, share: f64) -> Result<Option<f64>> {
        let parts = self.micro_batches;
        let inputs = self.inputs.chunk(parts, 0)?;
        let mut apart = None;
        for (inputs, labels) in inputs.iter().zip(self.labels.chunk(parts, 0)?) {
            let loss = (self.loss)(inputs, &labels)?;
            if share == 1.0 || !optimizer.needs_graph() {
                optimizer.accumulate_loss(&loss, 1.0 / parts as f64)?;
                continue;
            }
            let gradients = adahessian::backward_detached(&loss)?;
            optimizer.accumulate_gradient(&gradients, 1.0 / parts as f64)?;
            let part = loss.to_dtype(DType::F64)?.to_scalar::<f64>()? / parts as f64;
            apart = Some(apart.unwrap_or(0.0) + part);
            drop((gradients, loss));
            let few = |all: &Tensor| {
                // A product like 0.07 · 100 is a little above the number that is meant.
                let count = share * all.dim(0)? as f64 * (1.0 - 4.0 * f64::EPSILON);
                let count = count.ceil() as usize;
                all.narrow(0, 0, count)
            };
            // As the loop does: running statistics move once a step.
            let loss = statistics_at_rest(|| (self.loss)(&few(inputs)?, &few(&labels)?))?;
            let gradients = adahessian::backward(&loss)?;
            optimizer.accumulate_curvature(&gradients, 1.0 / parts as f64)?;
            adahessian::release(gradients);
        }
        let loss = optimizer.apply()?.loss;
        Ok(loss.or(apart))
    }

    /// Over `units` cycles of `every` steps, after one cycle for warming up.
    pub fn measure(
        &self,
        optimizer: &mut dyn Optim,
        Curvature { every, share }: Curvature,
        units: usize,
    ) -> Result<Measured> {
        let mut seconds = Vec::new();
        let mut loss = None;
        for unit in 0..=units.max(1) {
            let began = Instant::now();
            for _ in 0..every {
                let this = self.step(optimizer, share)?;
                loss = loss.or(this);
            }
            // A GPU is told what to do and goes on alone: the unit ends when it has done it.
            self.inputs.device().synchronize()?;
            if unit > 0 {
                seconds.push(began.elapsed().as_secs_f64() / every as f64);
            }
        }
        seconds.sort_by(f64::total_cmp);
        let count = seconds.len();
        Ok(Measured {
            // The median: of two the mean.
            seconds: 0.5 * (seconds[(count - 1) / 2] + seconds[count / 2]),
            loss,
        })
    }

    /// Where the variables are.
    pub fn place(&self) -> String {
        let first = self.vars.iter().next();
        let place = first.map(|(_, var)| var.device().location());
        match place {
            None | Some(DeviceLocation::Cpu) => "cpu".into(),
            Some(DeviceLocation::Cuda { gpu_id }) => format!("cuda:{gpu_id}"),
            Some(DeviceLocation::Metal { gpu_id }) => format!("metal:{gpu_id}"),
        }
    }
}
