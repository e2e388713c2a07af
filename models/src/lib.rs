//! BERT, SqueezeBERT and residual networks for training with second derivatives: every operation
//! on the way is right to the second order (see [`adahessian::ops`]), and checkpoints go to and from
//! the Hugging Face Hub, or torchvision, under the names they have there.
//!
//! ```
//! use adahessian::ops::{Mode, cross_entropy};
//! use candle_core::{Device, Tensor};
//! use models::{SequenceClassifier, Start, bert};
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
//! To start from a checkpoint, [`auto::sequence_classifier`] opens a folder by its `config.json`.
//! A new architecture is one file like [`bert`]: a configuration and the [`Architecture`] that it
//! describes.

pub mod architecture;
pub mod auto;
pub mod bert;
mod config;
pub mod dlrm;
pub mod encoder;
pub mod error;
pub mod heads;
mod parts;
pub mod resnet;
pub mod squeezebert;
pub mod weights;

pub use architecture::Architecture;
pub use auto::Config;
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use heads::{MaskedLanguageModel, Outputs, SequenceClassifier};
pub use resnet::ResNet;
pub use weights::{LoadReport, Start};
