//! How much longer a tokenizer may make a text before it cuts it.

use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::text::tokenizer_error;

/// Bytes that a text may become in front of the model, of which the tokenizer keeps some ten times as much. A
/// blank that becomes a mark of three bytes makes three of one, bytes as letters two, both six.
const LONGEST: f64 = (8 << 20) as f64;

/// Refuses a text of `length` bytes that steps of this `factor` may make too long.
pub(crate) fn fits(length: usize, factor: f64, path: Option<&Path>) -> Result<()> {
    let becomes = length as f64 * factor;
    if becomes <= LONGEST || factor <= 1.0 {
        return Ok(());
    }
    let why = format!(
        "its replacements and changes of alphabet may make a text {factor} times as long, and one of {length} \
         bytes more than {LONGEST} bytes; take the tokenizer.json that came with the model, or cut the text"
    );
    Err(tokenizer_error(path, why))
}

/// How many times longer the steps of a `tokenizer.json` in front of its model may make a text, as far as they
/// multiply: a replacement by its length over that of the shortest thing it replaces, and a change of alphabet,
/// which makes two bytes of one. Thirty of them, a line each in the file, make a gigabyte of a letter.
pub(crate) fn factor(tokenizer: &Value) -> f64 {
    let steps = ["normalizer", "pre_tokenizer"];
    steps
        .iter()
        .map(|step| steps_factor(&tokenizer[step]))
        .product()
}

fn steps_factor(step: &Value) -> f64 {
    match step {
        Value::Array(steps) => steps.iter().map(steps_factor).product(),
        Value::Object(fields) => {
            let inner: f64 = fields.values().map(steps_factor).product();
            let alphabet = match fields.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => 2.0,
                _ if fields.contains_key("trim_offsets") => 2.0,
                _ => 1.0,
            };
            let content = fields.get("content").and_then(Value::as_str);
            let replaced = content.map_or(1.0, |content| {
                // What an expression matches is no longer than a byte, if not empty.
                let text = fields
                    .get("pattern")
                    .and_then(|pattern| pattern.get("String"));
                let shortest = text.and_then(Value::as_str).map_or(1, str::len).max(1);
                (content.len() as f64 / shortest as f64).max(1.0)
            });
            inner * alphabet * replaced
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn factors_multiply() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        assert_eq!(factor(&json!({"normalizer": null})), 1.0);
        let spaces = replace(json!({"String": " "}), "▁");
        let quotes = replace(json!({"Regex": "``|''"}), "\"");
        let sequence = json!({"type": "Sequence", "normalizers": [spaces, quotes]});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true});
        let tokenizer = json!({"normalizer": sequence, "pre_tokenizer": bytes, "decoder": bytes});
        assert_eq!(factor(&tokenizer), 6.0);
        let many = json!({"type": "Sequence", "pretokenizers": vec![bytes; 7]});
        assert_eq!(factor(&json!({"pre_tokenizer": many})), 128.0);
    }
}
