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

use crate::error::{Error, Result};

/// Refuses an evaluation on nothing: no mean and no metric of it is defined.
fn some_examples(count: usize) -> Result<()> {
    match count {
        0 => Err(Error::Batch {
            expected: "at least one example to evaluate on".into(),
            got: "none".into(),
        }),
        _ => Ok(()),
    }
}
