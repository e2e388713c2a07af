//! Parallel text: dictionaries, codes, subwords, fairseq's files, stores of pairs.

use datasets::Batches;
use datasets::translation::{
    FairseqBinary, Filter, Language, Moses, PairStore, Subwords, TokenBatcher, TranslationBatches,
    encode_pairs, learn_subwords, read_parallel, read_parquet,
};

use crate::{Scratch, parts, settings};

/// What the seeds of stores are made of.
pub const FINGERPRINT: u64 = 7;

/// Which kind of file, gzipped (8); file or files. What can be read is used.
pub fn parallel_text(data: &[u8]) -> bool {
    let ([bits], file) = settings(data);
    let ending = if bits & 8 == 0 { "" } else { ".gz" };
    let scratch = Scratch::new();
    match bits % 8 {
        0 => {
            let [dictionary, codes] = parts(file);
            scratch.put(&format!("dict.txt{ending}"), dictionary);
            scratch.put(&format!("codes.txt{ending}"), codes);
            subwords(&scratch)
        }
        1 => {
            scratch.put("tokenizer.json", file);
            subwords(&scratch)
        }
        2 => binary(&scratch, parts(file)),
        3 => {
            let path = scratch.put("train.pairs", file);
            PairStore::open(&path, FINGERPRINT).is_ok_and(batches)
        }
        4 => text(&scratch, parts(file), ending),
        _ => {
            let path = scratch.put("train.parquet", file);
            read_parquet(&path, "de", "en").is_ok_and(|pairs| !pairs.is_empty())
        }
    }
}

/// Subwords of a folder: ids are within the vocabulary, and those that were saved are the same.
fn subwords(scratch: &Scratch) -> bool {
    let Ok(subwords) = Subwords::from_folder(scratch.path()) else {
        return false;
    };
    let line = "the low lower@@ ﬁ 日本 \u{1f600} </s> a\u{301}\u{0}";
    let ids = subwords.encode(line).expect("a line of few characters");
    let inside = |id: &u32| (*id as usize) < subwords.vocab_size();
    assert!(ids.iter().all(inside), "an id that no model has room for");
    subwords.decode(&ids).expect("its own ids");
    let saved = scratch.path().join("saved");
    subwords.save(&saved).expect("room for a copy");
    let again = Subwords::from_folder(&saved).expect("what was saved");
    assert_eq!(again.encode(line).expect("a line"), ids);
    true
}

fn binary(scratch: &Scratch, [index, ids]: [&[u8]; 2]) -> bool {
    scratch.put("train.idx", index);
    scratch.put("train.bin", ids);
    let Ok(binary) = FairseqBinary::open(&scratch.path().join("train")) else {
        return false;
    };
    (0..binary.len()).all(|sentence| binary.get(sentence).is_ok())
}

/// All batches of an epoch, which hold every pair.
fn batches(store: PairStore) -> bool {
    let batcher = TokenBatcher {
        max_tokens: 1 << 12,
        ..TokenBatcher::default()
    };
    let pairs = store.len();
    let device = candle_core::Device::Cpu;
    let Ok(batches) = TranslationBatches::new(store, batcher, 1, &device) else {
        return false;
    };
    let made = (0..batches.len(0)).map(|index| batches.get(0, index).expect("a batch").len());
    assert_eq!(made.sum::<usize>(), pairs);
    true
}

fn text(scratch: &Scratch, [source, target]: [&[u8]; 2], ending: &str) -> bool {
    let (source, target) = (
        scratch.put(&format!("train.de{ending}"), source),
        scratch.put(&format!("train.en{ending}"), target),
    );
    let Ok(pairs) = read_parallel(&source, &target) else {
        return false;
    };
    let moses = Moses::new(Language::English);
    for pair in pairs.iter().take(16) {
        moses.detokenize(&moses.tokenize(&pair.source));
    }
    let lines = pairs.iter().flat_map(|pair| [&pair.source, &pair.target]);
    let Ok(subwords) = learn_subwords(lines, 64) else {
        return false;
    };
    let ids = encode_pairs(&pairs, &subwords, &subwords, &Filter::NONE);
    PairStore::in_memory(ids.expect("lines that were read")).is_ok_and(batches)
}
