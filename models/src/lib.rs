//! BERT, SqueezeBERT, DistilBERT, RoBERTa, the transformer for translation, language models (the tensorized transformer), residual networks and DLRM for training with second derivatives:
//! every operation on the way is right to the second order (see [`adahessian::ops`]), and checkpoints go to
//! and from the Hugging Face Hub, or torchvision, under the names they have there.
//!
//! ```
//! use adahessian::ops::{Mode, cross_entropy};
//! use candle_core::{Device, Tensor};
//! use models::{Model, SequenceClassifier, Start, bert};
//!
//! let device = Device::Cpu;
//! let start = Start { seed: 42, ..Start::default() }; // f32, CPU
//! let model = SequenceClassifier::new(&bert::Config::tiny().architecture()?, 2, &start)?;
//! let ids = Tensor::new(&[[2u32, 17, 5, 3], [2, 9, 3, 0]], &device)?;
//! let mask = Tensor::new(&[[1u32, 1, 1, 1], [1, 1, 1, 0]], &device)?;
//! let mode = Mode::Train { seed: 42, step: 0, micro: 0 };
//! let logits = model.forward(&ids, None, Some(&mask), &mode)?; // [2, 2]
//! let loss = cross_entropy(&logits, &Tensor::new(&[0u32, 1], &device)?, 0.0, None)?;
//! let gradients = adahessian::backward(&loss)?;
//! # assert!(model.vars().iter().all(|(_, var)| gradients.get(var).is_some()));
//! # Ok::<(), models::Error>(())
//! ```
//!
//! To start from a checkpoint, [`auto::sequence_classifier`], [`auto::token_classifier`] and
//! [`auto::masked_language_model`] open a folder by its `config.json`.
//!
//! An encoder is one file that reads from top to bottom: its configuration, its layers with their names, its
//! `forward`; [`bert`] and [`distilbert`] are examples. Larger models have their configuration in a file beside it
//! ([`resnet`]). Layers are those of [`adahessian::nn`] on a `VarBuilder`,
//! whose variables come from a seed or from a checkpoint ([`weights`]); they say themselves what their
//! variables are, so that a [`Model`] only has to say how large the curvature's blocks of each kind are.

pub mod architecture;
pub mod auto;
pub mod bert;
mod config;
pub mod distilbert;
pub mod dlrm;
mod embeddings;
pub mod encoder;
pub mod error;
pub mod heads;
mod labels;
pub mod language_model;
mod layer;
mod limits;
mod mimetic;
mod model;
mod parts;
pub mod resnet;
pub mod roberta;
pub mod squeezebert;
pub mod transformer;
pub mod weights;

pub use architecture::Architecture;
pub use auto::Config;
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use heads::{
    MaskedLanguageModel, Outputs, Problem, SequenceClassifier, TokenClassifier, WordsAndPairs,
};
pub use language_model::LanguageModel;
pub use mimetic::mimetic;
pub use model::Model;
pub use resnet::ResNet;
pub use transformer::Transformer;
pub use weights::{LoadReport, Start, Variables};
