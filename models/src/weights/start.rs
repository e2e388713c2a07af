//! How variables begin that no checkpoint gives.

use crate::error::Result;
use adahessian::random::Stream;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;

/// How variables are made that no checkpoint gives, and as what.
#[derive(Clone, Debug)]
pub struct Start {
    /// The seed of random values; each variable's are a function of it and the variable's name.
    pub seed: u64,
    /// The dtype of all variables; values of another one are converted.
    pub dtype: DType,
    /// The device they live on.
    pub device: Device,
    /// Whether to start with a fresh classifier although the checkpoint holds one: to go on from a
    /// model that was fine-tuned for another task.
    pub new_head: bool,
}

/// Seed 0, f32, CPU.
impl Default for Start {
    fn default() -> Self {
        Self {
            seed: 0,
            dtype: DType::F32,
            device: Device::Cpu,
            new_head: false,
        }
    }
}

impl Start {
    /// The first value of the variable of this name.
    pub(super) fn value(
        &self,
        name: &str,
        shape: &Shape,
        init: Init,
        (dtype, device): (DType, &Device),
    ) -> Result<Tensor> {
        let stream = || Stream::new(self.seed, &format!("weight/{name}"), 0, 0);
        let normal = |mean: f64, deviation: f64| -> Result<Tensor> {
            let unit = stream().normal_tensor(shape.dims(), dtype, device)?;
            let value = (unit * deviation)?;
            Ok(if mean == 0.0 { value } else { (value + mean)? })
        };
        let uniform = |middle: f64, bound: f64| -> Result<Tensor> {
            let numbers = stream().uniform(shape.elem_count()).into_iter();
            let numbers = numbers.map(|u| middle + bound * (2.0 * u - 1.0)).collect();
            let value = Tensor::from_vec::<_, f64>(numbers, shape, &Device::Cpu)?;
            Ok(value.to_dtype(dtype)?.to_device(device)?)
        };
        match init {
            Init::Const(0.0) => Ok(Tensor::zeros(shape, dtype, device)?),
            Init::Const(1.0) => Ok(Tensor::ones(shape, dtype, device)?),
            Init::Const(value) => Ok((Tensor::ones(shape, dtype, device)? * value)?),
            Init::Randn { mean, stdev } => normal(mean, stdev),
            Init::Uniform { lo, up } => uniform((up + lo) / 2.0, (up - lo) / 2.0),
            Init::Kaiming {
                dist,
                fan,
                non_linearity,
            } => {
                let deviation = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => normal(0.0, deviation),
                    NormalOrUniform::Uniform => uniform(0.0, 3f64.sqrt() * deviation),
                }
            }
        }
    }
}
