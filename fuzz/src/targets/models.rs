//! A model's folder: config.json and model.safetensors.

use models::{Start, auto};

use crate::{Scratch, parts};

/// The two files.
pub fn safetensors_config(data: &[u8]) {
    let [config, weights] = parts(data);
    let scratch = Scratch::new();
    scratch.put("config.json", config);
    scratch.put("model.safetensors", weights);
    let start = Start::default();
    if let Ok((model, _)) = auto::sequence_classifier(scratch.path(), None, &start) {
        assert!(model.labels() > 0, "a classifier without classes");
    }
    auto::token_classifier(scratch.path(), None, &start).ok();
    auto::masked_language_model(scratch.path(), &start).ok();
}
