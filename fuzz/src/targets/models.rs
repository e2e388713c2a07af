//! A model's folder: config.json and model.safetensors.

use models::{Start, auto};

use crate::{Scratch, parts};

/// Whether a config.json may say anything. As long as models are made of whatever size one says, inputs
/// with a number of three digits or more are left out here; once they have limits this becomes true.
const MODELS_HAVE_LIMITS: bool = false;

fn numbers_of_three_digits(config: &[u8]) -> bool {
    let runs = config.split(|byte| !byte.is_ascii_digit());
    runs.into_iter().any(|digits| digits.len() > 2)
}

/// The two files.
pub fn safetensors_config(data: &[u8]) {
    let [config, weights] = parts(data);
    if !MODELS_HAVE_LIMITS && numbers_of_three_digits(config) {
        return;
    }
    let scratch = Scratch::new();
    scratch.put("config.json", config);
    scratch.put("model.safetensors", weights);
    let start = Start::default();
    if let Ok((model, _)) = auto::sequence_classifier(scratch.path(), None, &start) {
        assert!(model.labels() > 0, "a classifier without classes");
    }
    auto::masked_language_model(scratch.path(), &start).ok();
}
