//! Residual networks (He et al. 2016) for CIFAR-10 and ImageNet.
//!
//! ```text
//! x₀     = relu(BN(image ∗ w))                          [N, width, H, W], ImageNet: a quarter of it
//! xᵢ₊₁   = relu(F(xᵢ) + shortcut(xᵢ))                    F: two or three convolutions, each with BN
//! logits = mean over the image of the last x · Wᵀ + b     [N, classes]
//! ```
//!
//! Variables have torchvision's names (`conv1.weight`, `bn1.weight`, `layer1.0.conv1.weight`,
//! `layer2.0.downsample.0.weight`, `fc.weight`, …), CIFAR's networks, too.

mod config;

pub use config::{Config, Shortcut, Stem, Unit};

use crate::config::{for_class, to_json};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::model::Model;
use crate::parts::normal;
use crate::weights::{self, LoadReport, Start, Variables, head};
use adahessian::engine::Handle;
use adahessian::nn::{
    self, ConvBatchNorm, ConvBatchNormConfig, Init, Linear, LinearConfig, VarBuilder,
};
use adahessian::ops::{self, Activation, Convolution, Mode, Window};
use adahessian::{Block, Kind};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;

/// What config.json says that it is.
const MODEL_TYPE: &str = "torchvision_resnet";
/// The maximum after ImageNet's first convolution.
const STEM_POOL: Window = Window {
    kernel: 3,
    stride: 2,
    padding: 1,
};

/// A residual network and its variables.
#[derive(Clone)]
pub struct ResNet {
    config: Config,
    json: Value,
    labels: Labels,
    layers: Layers,
    variables: Variables,
}

impl ResNet {
    /// A network with random weights, each a function of the seed and the variable's name:
    /// kernels N(0, 2/(k²·outputs)), norms 1 and 0, the classifier uniform within 1/√inputs.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes of 0 or too many parameters; candle's errors.
    pub fn new(config: &Config, start: &Start) -> Result<Self> {
        config.check()?;
        let (layers, variables) = weights::draw(start, |vb| Layers::new(config, vb))?;
        Self::of(config, layers, variables)
    }

    /// A network from a folder's `model.safetensors` or from a safetensors file, such as
    /// torchvision's weights. With [`Start::new_head`] the classifier is fresh, for another number
    /// of classes; one that the file lacks is fresh, too, and reported. The counters
    /// `num_batches_tracked` are of no use here and are passed over.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`], [`Error::File`]; as
    /// [`Self::new`].
    pub fn load(path: &Path, config: &Config, start: &Start) -> Result<(Self, LoadReport)> {
        config.check()?;
        let make = |vb| Layers::new(config, vb);
        let (layers, variables, report) = weights::load(path, "", start, make)?;
        Ok((Self::of(config, layers, variables)?, report))
    }

    /// A network from a folder that [`Model::save`] wrote, with the names of its classes.
    ///
    /// # Errors
    /// As [`Config::read`] and [`Self::load`].
    pub fn open(folder: &Path, start: &Start) -> Result<(Self, LoadReport)> {
        let (config, names) = Config::with_names(folder)?;
        let (mut model, report) = Self::load(folder, &config, start)?;
        model.labels = model.labels.after_reading(&names, &report);
        Ok((model, report))
    }

    fn of(config: &Config, layers: Layers, variables: Variables) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            json: to_json(config, MODEL_TYPE)?,
            labels: Labels::nameless(config.classes),
            layers,
            variables,
        })
    }

    /// What the classes are called, by number: `LABEL_0` and so on unless [`Self::open`] or [`Self::with_label_names`] said
    /// otherwise.
    pub fn label_names(&self) -> &[String] {
        self.labels.names()
    }

    /// Calls the classes so, in config.json, too.
    ///
    /// # Errors
    /// [`Error::Input`] if there are not as many names, or two are alike; [`Error::Labels`] if the classifier is from a
    /// folder where they have other names, or these in another order.
    pub fn with_label_names(mut self, names: &[String]) -> Result<Self> {
        self.labels = self.labels.renamed(names)?;
        Ok(self)
    }

    /// The logits [N, classes] of images [N, 3, H, W] in the weights' dtype.
    ///
    /// In [`Mode::Train`] every norm uses the batch's own statistics and moves its running ones
    /// towards them; in [`Mode::Eval`] it uses the running ones.
    ///
    /// # Errors
    /// [`Error::Input`] for images of another shape or dtype; the operations' errors for images
    /// smaller than a kernel.
    pub fn forward(&self, pixels: &Tensor, mode: &Mode) -> Result<Tensor> {
        let dtype = self.layers.classifier.weight().dtype();
        match pixels.dims() {
            [_, 3, _, _] if pixels.dtype() == dtype && pixels.elem_count() > 0 => {
                self.layers.forward(pixels, mode)
            }
            dims => Err(Error::Input {
                what: "images",
                expected: format!("[N, 3, H, W] of {dtype:?} with at least one image"),
                got: format!("{dims:?} of {:?}", pixels.dtype()),
            }),
        }
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Model for ResNet {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        match self.labels.are_named() {
            true => for_class(&self.json, "ResNet".into(), Some(&self.labels)),
            false => self.json.clone(),
        }
    }

    /// The paper's image experiments: each kernel's window has one curvature.
    fn block(&self, kind: Kind) -> Block {
        match kind {
            Kind::Kernel { window } => Block::Trailing(window),
            _ => Block::Single,
        }
    }
}

#[derive(Clone, Debug)]
struct Layers {
    stem: ConvBatchNorm,
    pool: Option<Window>,
    units: Vec<Residual>,
    classifier: Linear, // [classes, features]
}

impl Layers {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (kernel, stride, pool) = match config.stem {
            Stem::Cifar => (3, 1, None),
            Stem::ImageNet => (7, 2, Some(STEM_POOL)),
        };
        let mut units = Vec::new();
        let mut inputs = config.width;
        for (stage, count) in config.stages.iter().enumerate() {
            let vb = vb.pp(format!("layer{}", stage + 1));
            for index in 0..*count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let width = config.stage_width(stage);
                units.push(Residual::new(config, inputs, width, stride, vb.pp(index))?);
                inputs = width * config.expansion();
            }
        }
        let bound = 1.0 / (inputs as f64).sqrt(); // PyTorch's default for a linear layer
        let (lo, up) = (-bound, bound);
        let uniform = Init::Uniform { lo, up };
        let of_head = LinearConfig::new(uniform, uniform);
        Ok(Self {
            stem: conv(
                3,
                config.width,
                kernel,
                stride,
                [vb.pp("conv1"), vb.pp("bn1")],
            )?,
            pool,
            units,
            classifier: head(|| nn::linear_with(inputs, config.classes, of_head, vb.pp("fc")))?,
        })
    }

    fn forward(&self, pixels: &Tensor, mode: &Mode) -> Result<Tensor> {
        let training = matches!(mode, Mode::Train { .. });
        let x = Handle::enter(pixels)?; // [N, 3, H, W]
        let mut x = self.stem.forward(&x, None, Activation::Relu, training)?; // [N, width, H, W]
        if let Some(window) = &self.pool {
            x = ops::max_pool2d(&x, window)?; // a quarter of the height and width
        }
        for unit in &self.units {
            x = unit.forward(&x, training)?; // half of both where a stage begins
        }
        let features = ops::global_avg_pool2d(&x)?; // [N, features]
        let logits = (self.classifier).forward_activation(&features, Activation::Identity)?;
        Ok(logits.exit()?) // [N, classes]
    }
}

/// A convolution that keeps the size up to its stride, from N(0, 2/(k²·outputs)), and its norm.
fn conv(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    vbs: [VarBuilder; 2],
) -> Result<ConvBatchNorm> {
    let fan_out = kernel * kernel * outputs;
    let config = ConvBatchNormConfig {
        kernel: normal((2.0 / fan_out as f64).sqrt()),
        ..ConvBatchNormConfig::new(Convolution::new(stride, kernel / 2))
    };
    Ok(nn::conv_batch_norm(inputs, outputs, kernel, config, vbs)?)
}

/// How a unit's input reaches its sum.
#[derive(Clone, Debug)]
enum Way {
    Identity,
    Subsample { stride: usize, channels: usize },
    Projection(Box<ConvBatchNorm>),
}

/// One unit: relu(F(x) + shortcut(x)).
#[derive(Clone, Debug)]
struct Residual {
    main: Vec<ConvBatchNorm>,
    shortcut: Way,
}

impl Residual {
    fn new(
        config: &Config,
        inputs: usize,
        width: usize,
        stride: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let outputs = width * config.expansion();
        let conv = |number: usize, inputs, outputs, kernel, stride| {
            let vbs = ["conv", "bn"].map(|part| vb.pp(format!("{part}{number}")));
            conv(inputs, outputs, kernel, stride, vbs)
        };
        let main = match config.unit {
            Unit::Basic => vec![
                conv(1, inputs, width, 3, stride)?,
                conv(2, width, width, 3, 1)?,
            ],
            Unit::Bottleneck => vec![
                conv(1, inputs, width, 1, 1)?,
                conv(2, width, width, 3, stride)?,
                conv(3, width, outputs, 1, 1)?,
            ],
        };
        let changes = stride != 1 || inputs != outputs;
        let shortcut = match (changes, config.shortcut) {
            (false, _) => Way::Identity,
            (true, Shortcut::ParameterFree) => Way::Subsample {
                stride,
                channels: outputs,
            },
            (true, Shortcut::Projection) => {
                let vbs = [vb.pp("downsample.0"), vb.pp("downsample.1")];
                let projection = self::conv(inputs, outputs, 1, stride, vbs)?;
                Way::Projection(Box::new(projection))
            }
        };
        Ok(Self { main, shortcut })
    }

    /// From [N, in, H, W] to [N, out, H/stride, W/stride].
    fn forward(&self, x: &Handle, training: bool) -> Result<Handle> {
        let shortcut = match &self.shortcut {
            Way::Identity => x.clone(),
            Way::Subsample { stride, channels } => ops::subsample_channels(x, *stride, *channels)?,
            Way::Projection(conv) => conv.forward(x, None, Activation::Identity, training)?,
        };
        let mut h = x.clone();
        for (index, conv) in self.main.iter().enumerate() {
            let is_last = index + 1 == self.main.len();
            let residual = is_last.then_some(&shortcut);
            h = conv.forward(&h, residual, Activation::Relu, training)?;
        }
        Ok(h)
    }
}
