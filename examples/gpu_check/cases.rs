//! The models that are compared: small, and with every operation that the large ones have.

use crate::side::Side;
use adahessian::ops::{self, Mode};
use adahessian::random::Stream;
use adahessian::sparse::Precision;
use adahessian::{NamedVars, VarVec};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use models::dlrm::{self, Dlrm, Ids};
use models::resnet::{self, Shortcut, Stem, Unit};
use models::{Model, ResNet, Start, auto};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const TRAIN: Mode = Mode::Train {
    seed: 0,
    step: 0,
    micro: 0,
};

/// What is compared.
pub enum Case {
    /// A language model with reference numbers, from its folder.
    Golden(PathBuf),
    /// A residual network of two stages.
    Images,
    /// A DLRM, whose tables stay on the CPU.
    Clicks,
}

impl Case {
    pub fn name(&self) -> String {
        match self {
            Case::Golden(folder) => {
                let name = folder.file_name().unwrap_or_default();
                name.to_string_lossy().into()
            }
            Case::Images => "resnet".into(),
            Case::Clicks => "dlrm".into(),
        }
    }

    /// The same numbers on any device.
    pub fn side(&self, dtype: DType, device: &Device) -> Result<Side> {
        let start = Start {
            dtype,
            device: device.clone(),
            ..Start::default()
        };
        match self {
            Case::Golden(folder) => golden(folder, &start),
            Case::Images => images(&start),
            Case::Clicks => clicks(&start),
        }
    }
}

fn golden(folder: &Path, start: &Start) -> Result<Side> {
    let (model, _) = auto::sequence_classifier(folder, None, start)?;
    let read = |file: &str| -> Result<HashMap<String, Tensor>> {
        Ok(candle_core::safetensors::load(
            folder.join(file),
            &start.device,
        )?)
    };
    let signs = read("z.safetensors")?;
    let probe = VarVec::from_fn(&model.vars(), |name, _, dtype, _| {
        Ok(signs[name].to_dtype(dtype)?)
    })?;
    let mut inputs = read("inputs.safetensors")?;
    let mut input = |name: &str| {
        let input = inputs.remove(name);
        input.with_context(|| format!("inputs.safetensors has no {name}"))
    };
    let (ids, labels) = (input("input_ids")?, input("labels")?);
    let (types, mask) = (input("token_type_ids")?, input("attention_mask")?);
    Ok(Side {
        vars: model.vars(),
        blocks: model.blocks(),
        table: None,
        probe,
        steps: 20,
        loss: Box::new(move || {
            let logits = model.forward(&ids, Some(&types), Some(&mask), &Mode::Eval)?;
            Ok(ops::cross_entropy(&logits, &labels, 0.0, None)?)
        }),
    })
}

/// Normal numbers for every variable, the same on every device.
fn probe(vars: &NamedVars) -> Result<VarVec> {
    Ok(VarVec::from_fn(vars, |name, shape, dtype, device| {
        // Of f32, the same in both types.
        let z = Stream::new(3, name, 0, 0).normal_tensor(shape, DType::F32, device)?;
        Ok(z.to_dtype(dtype)?)
    })?)
}

/// `n` integers below `below`.
fn draw(name: &str, n: usize, below: usize) -> Vec<u32> {
    let uniform = Stream::new(0, name, 0, 0).uniform(n);
    uniform.iter().map(|u| (u * below as f64) as u32).collect()
}

fn images(start: &Start) -> Result<Side> {
    let config = resnet::Config {
        stem: Stem::Cifar,
        unit: Unit::Basic,
        stages: vec![1, 1],
        width: 4,
        shortcut: Shortcut::Projection,
        classes: 5,
    };
    let model = ResNet::new(&config, start)?;
    let pixels = Stream::new(0, "pixels", 0, 0);
    let pixels = pixels.normal_tensor(&[4, 3, 8, 8], start.dtype, &start.device)?;
    let labels = Tensor::from_vec(draw("labels", 4, config.classes), 4, &start.device)?;
    Ok(Side {
        probe: probe(&model.vars())?,
        vars: model.vars(),
        blocks: model.blocks(),
        table: None,
        steps: 5,
        loss: Box::new(move || {
            let logits = model.forward(&pixels, &TRAIN)?;
            Ok(ops::cross_entropy(&logits, &labels, 0.0, None)?)
        }),
    })
}

fn clicks(start: &Start) -> Result<Side> {
    let config = dlrm::Config {
        bottom: vec![6, 12, 8],
        tables: vec![30, 7, 50],
        top: vec![16, 8, 1],
    };
    let precision = match start.dtype {
        DType::F64 => Precision::F64,
        _ => Precision::F32,
    };
    let model = Dlrm::new(&config, start, precision)?.with_tables_on(&start.device)?;
    let (batch, tables) = (16, config.tables.len());
    // Below the size of the smallest table, so that rows repeat.
    let ids = Ids::Single(draw("ids", batch * tables, 7));
    let dense = Stream::new(0, "dense", 0, 0);
    let dense = dense.normal_tensor(&[batch, 6], start.dtype, &start.device)?;
    let labels = Stream::new(0, "clicks", 0, 0).bernoulli(batch, 0.4);
    let labels = Tensor::from_vec(labels, batch, &start.device)?;
    Ok(Side {
        probe: probe(&model.vars())?,
        vars: model.vars(),
        blocks: model.blocks(),
        table: Some(model.tables().clone()),
        steps: 20,
        loss: Box::new(move || {
            let logits = model.forward(&dense, &ids, &TRAIN)?;
            Ok(ops::binary_cross_entropy(&logits, &labels)?)
        }),
    })
}
