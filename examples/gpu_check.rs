//! The golden models and twenty AdaHessian steps on the CPU and on a GPU, side by side.

use adahessian::ops::{self, Mode};
use adahessian::{AdaHessian, Hessian, LinearOperator, VarVec};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use common::{program, table};
use models::{SequenceClassifier, Start, auto};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compares loss, gradients, Hessian-vector products and twenty steps of small BERT and SqueezeBERT
/// models between the CPU and a GPU. Says so where there is no GPU.
#[derive(Parser)]
struct Cli {
    /// The folder with the golden models
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/huggingface"))]
    reference: PathBuf,

    /// cuda or cuda:N
    #[arg(long, default_value = "cuda")]
    device: String,

    /// Fail, instead of saying so, where there is no GPU
    #[arg(long)]
    require: bool,
}

/// A golden model on one device.
struct Side {
    model: SequenceClassifier,
    inputs: HashMap<String, Tensor>,
    probe: VarVec,
}

impl Side {
    fn new(folder: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let start = Start {
            dtype,
            device: device.clone(),
            ..Start::default()
        };
        let (model, _) = auto::sequence_classifier(folder, None, &start)?;
        let read = |file: &str| candle_core::safetensors::load(folder.join(file), device);
        let signs = read("z.safetensors")?;
        let probe = VarVec::from_fn(&model.vars(), |name, _, dtype, _| {
            Ok(signs[name].to_dtype(dtype)?)
        })?;
        Ok(Self {
            inputs: read("inputs.safetensors")?,
            model,
            probe,
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let input = |name: &str| {
            self.inputs
                .get(name)
                .with_context(|| format!("inputs.safetensors has no {name}"))
        };
        let (types, mask) = (
            Some(input("token_type_ids")?),
            Some(input("attention_mask")?),
        );
        let logits = self
            .model
            .forward(input("input_ids")?, types, mask, &Mode::Eval)?;
        Ok(ops::cross_entropy(&logits, input("labels")?, 0.0, None)?)
    }

    /// Loss, gradient, Hessian-vector product.
    fn derivatives(&self) -> Result<(f64, VarVec, VarVec)> {
        let loss = self.loss()?;
        let hessian = Hessian::of(&loss, &self.model.vars())?;
        let loss = loss.to_dtype(DType::F64)?.to_scalar()?;
        Ok((loss, hessian.gradient()?, hessian.apply(&self.probe)?))
    }

    /// The loss before each of twenty steps and the seconds they took.
    fn train(&self) -> Result<(Vec<f64>, f64)> {
        let builder = AdaHessian::builder()
            .lr(0.01)
            .blocks(self.model.blocks())
            .seed(1);
        let mut optimizer = builder.build(self.model.vars())?;
        let began = Instant::now();
        let steps = (0..20).map(|_| {
            optimizer
                .backward_step(&self.loss()?)?
                .loss
                .context("no loss")
        });
        let losses = steps.collect::<Result<Vec<_>>>()?;
        Ok((losses, began.elapsed().as_secs_f64()))
    }
}

/// The largest difference over all variables, relative to the largest entry of the whole vector.
fn difference(a: &VarVec, b: &VarVec) -> Result<f64> {
    let (mut worst, mut scale) = (0f64, 0f64);
    for (a, b) in a.tensors().iter().zip(b.tensors()) {
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
    Ok(worst / scale)
}

fn compare(folder: &Path, dtype: DType, gpu: &Device) -> Result<Vec<String>> {
    let (cpu, gpu) = (
        Side::new(folder, dtype, &Device::Cpu)?,
        Side::new(folder, dtype, gpu)?,
    );
    let ((loss, gradient, product), (gpu_loss, gpu_gradient, gpu_product)) =
        (cpu.derivatives()?, gpu.derivatives()?);
    let (gradient, product) = (
        difference(&gpu_gradient, &gradient)?,
        difference(&gpu_product, &product)?,
    );
    let ((losses, seconds), (gpu_losses, gpu_seconds)) = (cpu.train()?, gpu.train()?);
    let steps = losses
        .iter()
        .zip(&gpu_losses)
        .map(|(a, b)| (a - b).abs() / a.abs().max(1.0));
    let steps = steps.fold(0.0, f64::max);
    let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-3 };
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_string();
    for (what, error) in [
        ("loss", (loss - gpu_loss).abs() / loss),
        ("gradient", gradient),
        ("Hz", product),
        ("20 steps", steps),
    ] {
        ensure!(
            error <= tolerance,
            "{name} {dtype:?}: {what} differs by {error:.2e}, allowed {tolerance:.0e}"
        );
    }
    Ok(vec![
        format!("{name} {dtype:?}"),
        format!("{:.1e}", (loss - gpu_loss).abs() / loss),
        format!("{gradient:.1e}"),
        format!("{product:.1e}"),
        format!("{steps:.1e}"),
        format!("{:.1}", 50.0 * seconds),
        format!("{:.1}", 50.0 * gpu_seconds),
    ])
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(None)?;
    let gpu = match program::device(&cli.device) {
        Ok(gpu) => gpu,
        Err(error) if cli.require => return Err(error),
        Err(error) => {
            println!("{error}");
            return Ok(());
        }
    };
    let mut rows = Vec::new();
    for model in ["bert_tiny", "squeezebert_a"] {
        for dtype in [DType::F64, DType::F32] {
            rows.push(
                compare(&cli.reference.join(model), dtype, &gpu)
                    .with_context(|| model.to_string())?,
            );
        }
    }
    let header = [
        "relative difference",
        "loss",
        "gradient",
        "Hz",
        "20 steps",
        "CPU ms/step",
        "GPU ms/step",
    ];
    println!("{}", table::format(&header, &rows));
    Ok(())
}
