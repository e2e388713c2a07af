//! Which residual network: its presets, and where its convolutions are.

use super::places::{Place, UnitPlaces};
use crate::config::require;
use crate::error::Result;
use crate::weights::{Fill, Parameter};
use serde::{Deserialize, Serialize};

/// How a network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// One 3x3 convolution at full resolution: images of 32x32.
    Cifar,
    /// A 7x7 convolution of stride 2 and a 3x3 maximum of stride 2: images of 224x224.
    ImageNet,
}

/// What the stages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1, the last four times as wide; the stride is on the 3x3 (v1.5).
    Bottleneck,
}

/// How an input reaches the sum where the unit changes its shape; it is the identity elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// Every second row and column, and zeros in the new channels (He et al., option A).
    ParameterFree,
    /// A 1x1 convolution with batch normalisation (option B).
    #[default]
    Projection,
}

/// `a` or `b`, as He et al. call them.
impl std::str::FromStr for Shortcut {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "a" => Ok(Self::ParameterFree),
            "b" => Ok(Self::Projection),
            _ => Err(crate::Error::Config {
                field: "shortcut",
                expected: "a (parameter-free) or b (projection)".into(),
                got: format!("`{text}`"),
            }),
        }
    }
}

/// A residual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How it begins.
    pub stem: Stem,
    /// What its stages are made of.
    pub unit: Unit,
    /// How many units each stage has; from the second on, a stage halves the resolution and doubles
    /// the width.
    pub stages: Vec<usize>,
    /// Channels of the first stage.
    pub width: usize,
    /// The shortcut where the shape changes.
    pub shortcut: Shortcut,
    /// The number of classes.
    pub classes: usize,
}

impl Config {
    /// He et al.'s networks for CIFAR-10: 6n + 2 layers (20, 32, 44, 56, 110, …), three stages of
    /// width 16, 32, 64, with projections as in the published code of AdaHessian.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for another depth.
    pub fn cifar(depth: usize) -> Result<Self> {
        let fits = depth >= 8 && depth % 6 == 2;
        require(fits, "depth", "6 n + 2 with n of at least 1", depth)?;
        Ok(Self {
            stem: Stem::Cifar,
            unit: Unit::Basic,
            stages: vec![(depth - 2) / 6; 3],
            width: 16,
            shortcut: Shortcut::Projection,
            classes: 10,
        })
    }

    /// torchvision's networks for ImageNet: 18, 34 or 50 layers, four stages from width 64.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for another depth.
    pub fn imagenet(depth: usize) -> Result<Self> {
        let (unit, stages) = match depth {
            18 => (Unit::Basic, [2, 2, 2, 2]),
            34 => (Unit::Basic, [3, 4, 6, 3]),
            _ => (Unit::Bottleneck, [3, 4, 6, 3]),
        };
        require(
            [18, 34, 50].contains(&depth),
            "depth",
            "18, 34 or 50",
            depth,
        )?;
        Ok(Self {
            stem: Stem::ImageNet,
            unit,
            stages: stages.into(),
            width: 64,
            shortcut: Shortcut::Projection,
            classes: 1000,
        })
    }

    /// A network by its name: `resnet18`, `resnet34` and `resnet50` are ImageNet's, `resnet20`,
    /// `resnet32` and all others of 6n + 2 layers CIFAR's.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a name that is none.
    pub fn named(name: &str) -> Result<Self> {
        let depth = name.strip_prefix("resnet").and_then(|d| d.parse().ok());
        match depth {
            Some(depth @ (18 | 34)) => Self::imagenet(depth),
            // 50 is 6·8 + 2, too, but the name is ImageNet's.
            Some(50) => Self::imagenet(50),
            Some(depth) if depth >= 8 && depth % 6 == 2 => Self::cifar(depth),
            _ => Err(crate::Error::Config {
                field: "model",
                expected: "resnet18, resnet34, resnet50, or resnet20, resnet32 and others of 6 n + 2 layers"
                    .into(),
                got: format!("`{name}`"),
            }),
        }
    }

    /// The number of channels that reach the classifier.
    pub(crate) fn features(&self) -> usize {
        let last = self.stages.len().saturating_sub(1);
        (self.width << last) * self.expansion()
    }

    fn expansion(&self) -> usize {
        match self.unit {
            Unit::Basic => 1,
            Unit::Bottleneck => 4,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        require(self.classes > 0, "classes", "at least 1", self.classes)?;
        require(self.width > 0, "width", "at least 1", self.width)?;
        let fits = (1..=8).contains(&self.stages.len()) && !self.stages.contains(&0);
        let expected = "1 to 8 stages of at least 1 unit";
        require(fits, "stages", expected, format!("{:?}", self.stages))
    }

    /// The first convolution.
    pub(crate) fn stem_place(&self) -> Place {
        let (kernel, stride) = match self.stem {
            Stem::Cifar => (3, 1),
            Stem::ImageNet => (7, 2),
        };
        Place::new(
            String::new(),
            "conv1",
            "bn1",
            (3, self.width),
            kernel,
            stride,
        )
    }

    /// All units from the input to the output.
    pub(crate) fn units(&self) -> Vec<UnitPlaces> {
        let mut units = Vec::new();
        let mut inputs = self.width;
        for (stage, count) in self.stages.iter().enumerate() {
            for index in 0..*count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let prefix = format!("layer{}.{index}.", stage + 1);
                let unit = self.unit_places(prefix, inputs, self.width << stage, stride);
                inputs = unit.outputs;
                units.push(unit);
            }
        }
        units
    }

    fn unit_places(
        &self,
        prefix: String,
        inputs: usize,
        width: usize,
        stride: usize,
    ) -> UnitPlaces {
        let outputs = width * self.expansion();
        let place = |conv: &str, norm: &str, channels, kernel, stride| {
            Place::new(prefix.clone(), conv, norm, channels, kernel, stride)
        };
        let main = match self.unit {
            Unit::Basic => vec![
                place("conv1", "bn1", (inputs, width), 3, stride),
                place("conv2", "bn2", (width, width), 3, 1),
            ],
            Unit::Bottleneck => vec![
                place("conv1", "bn1", (inputs, width), 1, 1),
                place("conv2", "bn2", (width, width), 3, stride),
                place("conv3", "bn3", (width, outputs), 1, 1),
            ],
        };
        let changes = stride != 1 || inputs != outputs;
        let projects = changes && self.shortcut == Shortcut::Projection;
        let projection = || place("downsample.0", "downsample.1", (inputs, outputs), 1, stride);
        UnitPlaces {
            main,
            projection: projects.then(projection),
            subsample: (changes && !projects).then_some(stride),
            outputs,
        }
    }

    /// All variables, the running statistics included.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let mut all = self.stem_place().parameters();
        for unit in self.units() {
            let places = unit.main.iter().chain(&unit.projection);
            all.extend(places.flat_map(Place::parameters));
        }
        let features = self.features();
        // PyTorch's default for a linear layer.
        let fill = Fill::Uniform(1.0 / (features as f64).sqrt());
        let shapes: [(&str, &[usize]); 2] = [
            ("fc.weight", &[self.classes, features]),
            ("fc.bias", &[self.classes]),
        ];
        let head = shapes.map(|(name, shape)| Parameter::new(name.into(), shape, fill).optional());
        all.extend(head);
        all
    }
}
