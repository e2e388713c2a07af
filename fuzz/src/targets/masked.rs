//! Text without labels, of which tokens are hidden.

use datasets::masked::{MaskedBatches, Masking, Packed, Pairing, TextFile};
use datasets::wordpiece::learn_wordpiece;
use datasets::{Batcher, Batches, LabelledBatch, TextEncoder};

use crate::{Scratch, settings};

/// WikiText's form (1), gzipped (2), whole words (4), pairs (8, 16); file. What can be read is packed and hidden.
pub fn masked_text(data: &[u8]) -> bool {
    let ([bits], file) = settings(data);
    let scratch = Scratch::new();
    let name = ["train.txt", "wiki.train.tokens"][usize::from(bits & 1)];
    let end = ["", ".gz"][usize::from(bits >> 1 & 1)];
    let text = TextFile::new(scratch.put(&format!("{name}{end}"), file));
    let Ok(lines) = text.lines() else {
        return false;
    };
    assert!(!lines.is_empty(), "no lines, and no error");
    let learned = learn_wordpiece(["the game began development in 2010 , unaffable"], 60);
    let encoder = learned.and_then(|tokenizer| TextEncoder::new(tokenizer, 8));
    let encoder = encoder.expect("a tokenizer of its own");
    let store = scratch.path().join("text.pieces");
    let stored = Packed::of_file(&encoder, &text, &store);
    let Ok(packed) = Packed::encode(&encoder, &lines) else {
        assert!(stored.is_err(), "a store of what cannot be packed");
        return false;
    };
    let stored = stored.expect("a store of what can be packed");
    assert_eq!(
        stored.checksum(),
        packed.checksum(),
        "other tokens in the store"
    );
    let masking = Masking::new(0.15, bits & 4 != 0, 1).expect("a share");
    let plain = || MaskedBatches::new(packed.clone(), masking, Batcher::default());
    let pairing = match bits >> 3 & 3 {
        1 => Some(Pairing::NextSentence),
        2 => Some(Pairing::SentenceOrder),
        3 => Some(Pairing::Excerpt),
        _ => None,
    };
    let batches = match pairing.map(|pairing| plain().paired(pairing)) {
        None | Some(Err(_)) => plain(),
        Some(Ok(paired)) => paired,
    };
    let batch = batches.get(0, 0).expect("a batch of its own text");
    let places = batch.positions.to_vec1::<u32>().expect("places");
    let inside = batch.input_ids.elem_count() as u32;
    assert!(
        places.iter().all(|place| *place < inside),
        "a place outside"
    );
    assert!(places.len() >= batch.size(), "a sequence without a place");
    true
}
