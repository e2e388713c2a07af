//! Tokenizers: files of them, and vocabularies learned from text.

use datasets::wordpiece::learn_wordpiece;
use datasets::{Row, TextDataset, TextEncoder};

use crate::{Scratch, parts, settings};

/// Texts that a tokenizer that could be read has to do something with.
fn rows() -> Vec<Row> {
    let long = "unaffable ".repeat(40);
    let texts = [
        ("", None),
        ("The film is not dull.", Some("")),
        (
            "naïve ﬁlm 日本語 \u{1f600}\u{200d}\u{1f600} a\u{301}\u{0}\r\n\t",
            Some(long.as_str()),
        ),
        (long.as_str(), None),
    ];
    let row = |(first, second): (&str, Option<&str>)| Row {
        first: first.to_string(),
        second: second.map(str::to_string),
        label: None,
    };
    texts.map(row).to_vec()
}

/// Whether all texts could be encoded.
fn encode(encoder: &TextEncoder) -> bool {
    encoder.check(30_522, 512).ok();
    let Ok(data) = TextDataset::encode(encoder, &rows()) else {
        return false;
    };
    for example in &data.examples {
        assert!(
            example.ids.len() <= encoder.max_length(),
            "longer than asked for"
        );
        assert_eq!(example.ids.len(), example.types.len());
        let inside = |id: &u32| (*id as usize) < encoder.vocab_size();
        assert!(
            example.ids.iter().all(inside),
            "an id that no model has room for"
        );
    }
    true
}

/// A tokenizer.json: longest sequence, file.
pub fn tokenizer_json(data: &[u8]) -> bool {
    let ([length], file) = settings(data);
    let scratch = Scratch::new();
    scratch.put("tokenizer.json", file);
    let encoder = TextEncoder::from_folder(scratch.path(), usize::from(length));
    encoder.is_ok_and(|encoder| encode(&encoder))
}

/// A vocab.json and a merges.txt with their tokenizer_config.json.
pub fn byte_level(data: &[u8]) -> bool {
    let [config, vocabulary, merges] = parts(data);
    let scratch = Scratch::new();
    scratch.put("tokenizer_config.json", config);
    scratch.put("vocab.json", vocabulary);
    scratch.put("merges.txt", merges);
    let encoder = TextEncoder::from_folder(scratch.path(), 16);
    encoder.is_ok_and(|encoder| encode(&encoder))
}

/// A vocab.txt with its tokenizer_config.json, or texts to learn from: which, files.
pub fn wordpiece(data: &[u8]) -> bool {
    let ([which], file) = settings(data);
    if which & 1 == 0 {
        let scratch = Scratch::new();
        let [config, vocabulary] = parts(file);
        scratch.put("tokenizer_config.json", config);
        scratch.put("vocab.txt", vocabulary);
        let encoder = TextEncoder::from_folder(scratch.path(), 16);
        return encoder.is_ok_and(|encoder| encode(&encoder));
    }
    let Ok(text) = std::str::from_utf8(file) else {
        return false;
    };
    let learned = learn_wordpiece(text.lines(), 16 + usize::from(which));
    let encoder = learned.and_then(|tokenizer| TextEncoder::new(tokenizer, 16));
    encoder.is_ok_and(|encoder| encode(&encoder))
}
