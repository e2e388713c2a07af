//! A model's folder: config.json and model.safetensors.

use models::{Start, auto};

use crate::{Scratch, parts};

/// The two files.
pub fn safetensors_config(data: &[u8]) -> bool {
    let [config, weights] = parts(data);
    let scratch = Scratch::new();
    scratch.put("config.json", config);
    scratch.put("model.safetensors", weights);
    let start = Start::default();
    let sequences = auto::sequence_classifier(scratch.path(), None, &start);
    if let Ok((model, _)) = &sequences {
        assert!(model.labels() > 0, "a classifier without classes");
    }
    let tokens = auto::token_classifier(scratch.path(), None, &start);
    let masked = auto::masked_language_model(scratch.path(), &start);
    sequences.is_ok() || tokens.is_ok() || masked.is_ok()
}
