//! What the fields of an encoder's config.json may be, whatever its family: sizes that memory could hold
//! one by one (what they multiply to is counted when variables are made), probabilities, and choices of
//! which this crate has one.

use crate::config::{require, within};
use crate::error::Result;
use serde_json::Value;

const WIDTH: usize = 1 << 16;
const WIDE: usize = 1 << 18;
const LAYERS: usize = 1 << 12;

/// Fields with their least and greatest value.
const SIZES: [(&str, usize, usize); 18] = [
    ("vocab_size", 1, 1 << 24),
    ("hidden_size", 1, WIDTH),
    ("dim", 1, WIDTH),
    ("num_hidden_layers", 0, LAYERS),
    ("n_layers", 0, LAYERS),
    ("num_attention_heads", 1, WIDTH),
    ("n_heads", 1, WIDTH),
    ("intermediate_size", 1, WIDE),
    ("hidden_dim", 1, WIDE),
    ("max_position_embeddings", 1, 1 << 20),
    ("type_vocab_size", 1, 1 << 16),
    ("pad_token_id", 0, 1 << 24),
    ("q_groups", 1, WIDTH),
    ("k_groups", 1, WIDTH),
    ("v_groups", 1, WIDTH),
    ("post_attention_groups", 1, WIDTH),
    ("intermediate_groups", 1, WIDTH),
    ("output_groups", 1, WIDTH),
];

/// Of dropout, at least 0 and below 1. `classifier_dropout` can be none.
const PROBABILITIES: [&str; 6] = [
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
];

const NOT_NEGATIVE: [&str; 2] = ["initializer_range", "layer_norm_eps"];

const SWITCHES: [(&str, bool, &str); 3] = [
    ("is_decoder", false, "false: only encoders are supported"),
    ("tie_word_embeddings", true, "true"),
    (
        "sinusoidal_pos_embds",
        false,
        "false; a checkpoint's own table of sines is opened by `auto::Checkpoint`",
    ),
];

/// Checks every field that a configuration has of these.
pub(crate) fn check(config: &Value) -> Result<()> {
    for (field, least, most) in SIZES {
        if let Some(size) = config.get(field).and_then(Value::as_u64) {
            within(
                field,
                usize::try_from(size).unwrap_or(usize::MAX),
                least..=most,
            )?;
        }
    }
    for (field, expected, text) in SWITCHES {
        let got = config.get(field).and_then(Value::as_bool);
        require(
            got.is_none_or(|got| got == expected),
            field,
            text,
            !expected,
        )?;
    }
    let kind = config
        .get("position_embedding_type")
        .and_then(Value::as_str);
    let kind = kind.unwrap_or("absolute");
    require(
        kind == "absolute",
        "position_embedding_type",
        "absolute",
        kind,
    )?;
    for field in PROBABILITIES {
        let fits = |p| (0.0..1.0).contains(&p);
        number(config, field, fits, "at least 0 and below 1")?;
    }
    for field in NOT_NEGATIVE {
        let fits = |x| (0.0..f64::INFINITY).contains(&x);
        number(config, field, fits, "a finite number of at least 0")?;
    }
    Ok(())
}

/// Checks a number; one that is not finite has become null in JSON.
fn number(
    config: &Value,
    field: &'static str,
    fits: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<()> {
    match config.get(field) {
        None => Ok(()),
        Some(Value::Null) if field == "classifier_dropout" => Ok(()),
        Some(got) => require(got.as_f64().is_some_and(fits), field, expected, got),
    }
}
