//! Labelled words, as CoNLL-2003 has them.

use datasets::TextEncoder;
use datasets::conll::{LabelSet, Scheme, TokenDataset, read, read_known};
use datasets::wordpiece::learn_wordpiece;

use crate::{Scratch, settings};

/// IOB1 or IOB2 (1), gzipped (2); file. What can be read is cut into pieces.
pub fn conll(data: &[u8]) -> bool {
    let ([bits], file) = settings(data);
    let scratch = Scratch::new();
    let scheme = match bits & 1 {
        0 => Scheme::Iob2,
        _ => Scheme::Iob1,
    };
    let name = if bits & 2 == 0 {
        "train.txt"
    } else {
        "train.txt.gz"
    };
    let path = scratch.put(name, file);
    let Ok(sentences) = read(&path, scheme) else {
        return false;
    };
    assert!(!sentences.is_empty(), "no sentences, and no error");
    let Ok(labels) = LabelSet::of(&sentences) else {
        return false;
    };
    let again = read_known(&path, scheme, &labels).expect("its own labels");
    assert_eq!(again, sentences);
    let learned = learn_wordpiece(["U.N. official heads for Baghdad ."], 40);
    let encoder = learned.and_then(|tokenizer| TextEncoder::new(tokenizer, 12));
    let encoder = encoder.expect("a tokenizer of its own");
    let Ok(data) = TokenDataset::encode(&encoder, &labels, &sentences) else {
        return false;
    };
    for (example, sentence) in data.examples.iter().zip(&sentences) {
        assert_eq!(example.labels.len(), example.encoded.ids.len());
        assert_eq!(
            example.words() + example.left_out,
            sentence.tokens.len(),
            "words without a place"
        );
    }
    true
}
