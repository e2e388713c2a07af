//! The parts of a residual network, over variables by name.

use super::places::{Place, RUNNING_MEAN, RUNNING_VARIANCE, UnitPlaces};
use crate::error::Result;
use crate::parts::tensor;
use adahessian::NamedVars;
use adahessian::engine::Handle;
use adahessian::ops::{
    Activation, BatchNorm, Convolution, RunningStatistics, conv_batch_norm, subsample_channels,
};
use candle_core::Tensor;

/// A convolution and its batch normalisation.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    kernel: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: RunningStatistics,
    convolution: Convolution,
}

impl ConvNorm {
    pub fn new(vars: &NamedVars, place: &Place) -> Result<Self> {
        let norm = |part: &str| format!("{}.{part}", place.norm);
        Ok(Self {
            kernel: tensor(vars, &format!("{}.weight", place.conv))?,
            weight: tensor(vars, &norm("weight"))?,
            bias: tensor(vars, &norm("bias"))?,
            running: RunningStatistics {
                mean: vars.get(&norm(RUNNING_MEAN))?.clone(),
                variance: vars.get(&norm(RUNNING_VARIANCE))?.clone(),
            },
            convolution: place.convolution,
        })
    }

    /// act(BN(x ∗ w) + r).
    pub fn forward(
        &self,
        x: &Handle,
        residual: Option<&Handle>,
        activation: Activation,
        training: bool,
    ) -> Result<Handle> {
        let norm = BatchNorm::new(&self.weight, &self.bias, &self.running, training);
        let (kernel, conv) = (&self.kernel, &self.convolution);
        Ok(conv_batch_norm(
            x, kernel, conv, &norm, residual, activation,
        )?)
    }
}

#[derive(Clone, Debug)]
enum Path {
    Identity,
    Subsample { stride: usize, channels: usize },
    Projection(Box<ConvNorm>),
}

/// One unit: relu(F(x) + shortcut(x)).
#[derive(Clone, Debug)]
pub(super) struct Residual {
    main: Vec<ConvNorm>,
    shortcut: Path,
}

impl Residual {
    pub fn new(vars: &NamedVars, places: &UnitPlaces) -> Result<Self> {
        let main = places.main.iter().map(|place| ConvNorm::new(vars, place));
        let shortcut = match (&places.projection, places.subsample) {
            (Some(place), _) => Path::Projection(Box::new(ConvNorm::new(vars, place)?)),
            (None, Some(stride)) => Path::Subsample {
                stride,
                channels: places.outputs,
            },
            (None, None) => Path::Identity,
        };
        Ok(Self {
            main: main.collect::<Result<_>>()?,
            shortcut,
        })
    }

    pub fn forward(&self, x: &Handle, training: bool) -> Result<Handle> {
        let projected;
        let shortcut = match &self.shortcut {
            Path::Identity => x,
            Path::Subsample { stride, channels } => {
                projected = subsample_channels(x, *stride, *channels)?;
                &projected
            }
            Path::Projection(conv) => {
                projected = conv.forward(x, None, Activation::Identity, training)?;
                &projected
            }
        };
        let mut h = x.clone();
        for (index, conv) in self.main.iter().enumerate() {
            let is_last = index + 1 == self.main.len();
            let residual = is_last.then_some(shortcut);
            h = conv.forward(&h, residual, Activation::Relu, training)?;
        }
        Ok(h)
    }
}
