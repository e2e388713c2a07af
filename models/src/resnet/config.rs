//! Which residual network: its sizes and presets.

use super::MODEL_TYPE;
use crate::config::{LABELS, parse, path_in, read_as, require, within};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

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
    /// `resnet32` and all others of 6n + 2 layers CIFAR's, but for `resnet152` and `resnet200`, which are ImageNet's and
    /// not here.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a name that is none.
    pub fn named(name: &str) -> Result<Self> {
        let depth = name.strip_prefix("resnet").and_then(|d| d.parse().ok());
        match depth {
            Some(depth @ (18 | 34)) => Self::imagenet(depth),
            // 50, 152 and 200 are 6n + 2, too, but the names are ImageNet's.
            Some(50) => Self::imagenet(50),
            Some(depth) if depth >= 8 && depth % 6 == 2 && ![152, 200].contains(&depth) => {
                Self::cifar(depth)
            }
            _ => Err(crate::Error::Config {
                field: "model",
                expected: "resnet18, resnet34, resnet50, or resnet20, resnet32 and others of 6 n + 2 layers"
                    .into(),
                got: format!("`{name}`"),
            }),
        }
    }

    /// Reads config.json from a folder that [`Model::save`](crate::Model::save) wrote.
    ///
    /// # Errors
    /// [`crate::Error::Architecture`] for another `model_type`; [`crate::Error::File`] and [`crate::Error::Config`] for
    /// malformed files and sizes that cannot be.
    pub fn read(folder: &Path) -> Result<Self> {
        Ok(Self::with_names(folder)?.0)
    }

    /// The same with what the file says of its classes' names.
    pub(super) fn with_names(folder: &Path) -> Result<(Self, Value)> {
        let path = path_in(folder);
        let mut file: Value = read_as(&path, MODEL_TYPE)?;
        let names = file["id2label"].take();
        let config: Self = parse(file, &path)?;
        config.check()?;
        Ok((config, names))
    }

    /// The width of a stage's 3x3 convolutions.
    pub(super) fn stage_width(&self, stage: usize) -> usize {
        self.width << stage
    }

    /// How many times as wide a unit's output is.
    pub(super) fn expansion(&self) -> usize {
        match self.unit {
            Unit::Basic => 1,
            Unit::Bottleneck => 4,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        within("classes", self.classes, 1..=LABELS)?;
        within("width", self.width, 1..=1 << 20)?;
        let fits = (1..=8).contains(&self.stages.len());
        let units = |units: &usize| (1..=1024).contains(units);
        let expected = "1 to 8 stages of 1 to 1024 units";
        let fits = fits && self.stages.iter().all(units);
        require(fits, "stages", expected, format!("{:?}", self.stages))
    }
}
