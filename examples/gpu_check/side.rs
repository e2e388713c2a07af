//! A model on one device, and what is compared between two of them.

use adahessian::sparse::{SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, Blocks, Composite, Hessian, LinearOperator, NamedVars, Optim, VarVec,
};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

/// A model with its inputs on one device.
pub struct Side {
    pub loss: Box<dyn Fn() -> Result<Tensor>>,
    pub vars: NamedVars,
    pub blocks: Blocks,
    /// Where the model has some.
    pub table: Option<SparseTable>,
    /// What the Hessian is multiplied with.
    pub probe: VarVec,
    /// How many steps to train.
    pub steps: usize,
}

impl Side {
    /// Loss, gradient, Hessian-vector product.
    fn derivatives(&self) -> Result<(f64, VarVec, VarVec)> {
        let loss = (self.loss)()?;
        let hessian = Hessian::of(&loss, &self.vars)?;
        let loss = loss.to_dtype(DType::F64)?.to_scalar()?;
        Ok((loss, hessian.gradient()?, hessian.apply(&self.probe)?))
    }

    fn optimizer(&self) -> Result<Box<dyn Optim>> {
        let builder = AdaHessian::builder()
            .lr(0.01)
            .blocks(self.blocks.clone())
            .seed(1);
        let variables = builder.build(self.vars.clone())?;
        Ok(match &self.table {
            None => Box::new(variables),
            Some(table) => {
                let rows = SparseOptimizer::new([table], SparseRule::adagrad(), 0.05)?;
                Box::new(
                    Composite::new()
                        .with("variables", variables)
                        .with("rows", rows),
                )
            }
        })
    }

    /// The loss before each step, and the median of the steps' seconds: the first one makes the kernels of a GPU. Each step
    /// ends with its loss.
    fn train(&self) -> Result<(Vec<f64>, f64)> {
        let mut optimizer = self.optimizer()?;
        let mut seconds = Vec::new();
        let steps = (0..self.steps).map(|_| {
            let began = Instant::now();
            let info = optimizer.backward_step(&(self.loss)()?)?;
            seconds.push(began.elapsed().as_secs_f64());
            info.loss.context("no loss")
        });
        let losses = steps.collect::<Result<Vec<_>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok((losses, seconds[seconds.len() / 2]))
    }

    /// The variables and the rows of the table.
    fn numbers(&self) -> Result<Vec<Tensor>> {
        let vars = self.vars.iter().map(|(_, var)| var.as_detached_tensor());
        let mut all: Vec<Tensor> = vars.collect();
        if let Some(table) = &self.table {
            all.push(table.to_tensor()?);
        }
        Ok(all)
    }
}

/// The largest difference over all tensors, relative to the largest entry of them all.
fn difference(a: &[Tensor], b: &[Tensor]) -> Result<f64> {
    let (mut worst, mut scale) = (0f64, 0f64);
    ensure!(a.len() == b.len(), "{} and {} tensors", a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        let flat = |t: &Tensor| {
            t.to_device(&Device::Cpu)?
                .to_dtype(DType::F64)?
                .flatten_all()?
                .to_vec1::<f64>()
        };
        for (x, y) in flat(a)?.into_iter().zip(flat(b)?) {
            worst = worst.max((x - y).abs());
            scale = scale.max(y.abs());
            ensure!(x.is_finite() && y.is_finite(), "a value is not finite");
        }
    }
    ensure!(scale > 0.0, "all of it is zero");
    Ok(worst / scale)
}

/// A row of the table: the differences between the two, which must be small, and the times.
pub fn compare(what: &str, dtype: DType, cpu: &Side, gpu: &Side) -> Result<Vec<String>> {
    let ((loss, gradient, product), (gpu_loss, gpu_gradient, gpu_product)) =
        (cpu.derivatives()?, gpu.derivatives()?);
    let ((losses, seconds), (gpu_losses, gpu_seconds)) = (cpu.train()?, gpu.train()?);
    let pairs = losses.iter().zip(&gpu_losses);
    let steps = pairs.map(|(a, b)| (a - b).abs() / a.abs().max(1.0));
    let steps = steps.fold(0.0, f64::max);
    let errors = [
        ("loss", (loss - gpu_loss).abs() / loss),
        (
            "gradient",
            difference(gpu_gradient.tensors(), gradient.tensors())?,
        ),
        ("Hz", difference(gpu_product.tensors(), product.tensors())?),
        (
            "steps",
            steps.max(difference(&gpu.numbers()?, &cpu.numbers()?)?),
        ),
    ];
    let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-3 };
    for (part, error) in errors {
        ensure!(
            error <= tolerance,
            "{part} differs by {error:.2e}, allowed {tolerance:.0e}"
        );
    }
    let mut row = vec![what.to_string()];
    row.extend(errors.map(|(_, error)| format!("{error:.1e}")));
    row.extend([seconds, gpu_seconds].map(|s| format!("{:.1}", 1e3 * s)));
    Ok(row)
}
