//! Ready-made tasks for models that are functions from a batch to logits or values.

mod batch;
mod classification;
mod clicks;
mod images;
mod regression;

pub use batch::{LabelledBatch, TensorBatch, TextBatches};
pub use classification::Classification;
pub use clicks::ClickPrediction;
pub use images::ImageClassification;
pub use regression::Regression;
