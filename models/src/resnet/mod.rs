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
mod layers;
mod places;

pub use config::{Config, Shortcut, Stem, Unit};

use crate::error::{Error, Result};
use crate::parts::tensor;
use crate::weights::{self, LoadReport, Start};
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Mode, Window, global_avg_pool2d, max_pool2d};
use adahessian::{Blocks, NamedVars};
use candle_core::Tensor;
use candle_nn::VarMap;
use layers::{ConvNorm, Residual};
use places::{RUNNING_MEAN, RUNNING_VARIANCE};
use std::path::Path;

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
    stem: ConvNorm,
    units: Vec<Residual>,
    head: (Tensor, Tensor),
    map: VarMap,
}

impl ResNet {
    /// A network with random weights, each a function of the seed and the variable's name:
    /// kernels N(0, 2/(k²·outputs)), norms 1 and 0, the classifier uniform within 1/√inputs.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes of 0; candle's errors.
    pub fn new(config: &Config, start: &Start) -> Result<Self> {
        config.check()?;
        let map = weights::initialise(&config.parameters(), 0.0, start)?;
        Self::from_map(map, config)
    }

    /// A network from a folder's `model.safetensors` or from a safetensors file, such as
    /// torchvision's weights. With [`Start::new_head`] the classifier is fresh, for another number
    /// of classes; one that the file lacks is fresh, too, and reported. The counters
    /// `num_batches_tracked` are of no use here and are passed over.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`], [`Error::File`].
    pub fn load(path: &Path, config: &Config, start: &Start) -> Result<(Self, LoadReport)> {
        config.check()?;
        let (map, report) = weights::load(path, &config.parameters(), "", &[], 0.0, start)?;
        Ok((Self::from_map(map, config)?, report))
    }

    fn from_map(map: VarMap, config: &Config) -> Result<Self> {
        let vars = NamedVars::from(&map);
        let units = config.units();
        let units = units.iter().map(|places| Residual::new(&vars, places));
        Ok(Self {
            stem: ConvNorm::new(&vars, &config.stem_place())?,
            units: units.collect::<Result<_>>()?,
            head: (tensor(&vars, "fc.weight")?, tensor(&vars, "fc.bias")?),
            config: config.clone(),
            map,
        })
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
        self.check(pixels)?;
        let training = matches!(mode, Mode::Train { .. });
        let x = Handle::enter(pixels)?;
        let mut x = self.stem.forward(&x, None, Activation::Relu, training)?;
        if self.config.stem == Stem::ImageNet {
            x = max_pool2d(&x, &STEM_POOL)?;
        }
        for unit in &self.units {
            x = unit.forward(&x, training)?;
        }
        let features = global_avg_pool2d(&x)?; // [N, features]
        let (weight, bias) = &self.head;
        let logits = ops::linear(&features, weight, Some(bias), 1, Activation::Identity)?;
        Ok(logits.exit()?) // [N, classes]
    }

    fn check(&self, pixels: &Tensor) -> Result<()> {
        let dtype = self.head.0.dtype();
        match pixels.dims() {
            [_, 3, _, _] if pixels.dtype() == dtype && pixels.elem_count() > 0 => Ok(()),
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

    /// The variables to train, under torchvision's names.
    pub fn vars(&self) -> NamedVars {
        let running = [RUNNING_MEAN, RUNNING_VARIANCE];
        let is_trained = |name: &str| !running.iter().any(|part| name.ends_with(part));
        self.saved_vars().partition(is_trained).0
    }

    /// All variables to save: those to train and the running means and variances, which no
    /// optimizer must touch.
    pub fn saved_vars(&self) -> NamedVars {
        NamedVars::from(&self.map)
    }

    /// [`Self::saved_vars`] as a `VarMap`, for code that wants one.
    pub fn var_map(&self) -> &VarMap {
        &self.map
    }

    /// The blocks of the paper's image experiments: each kernel window has one curvature.
    pub fn blocks(&self) -> Blocks {
        Blocks::spatial()
    }

    /// Writes `model.safetensors`, which torchvision's network of the same sizes loads.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be written to.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        weights::save(&self.map, folder)
    }
}
