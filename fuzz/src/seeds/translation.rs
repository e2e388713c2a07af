//! Parallel text: a small one of each kind of file.

use datasets::translation::{PairStore, learn_subwords};

use super::parquet::{Values, write};
use super::{Seed, gzip, with};
use crate::join;
use crate::targets::translation::FINGERPRINT;

const DE: &str = "ein kleines Haus\n\ndas Haus ist alt .\n";
const EN: &str = "a small house\n\nthe house is old .\n";
const DICTIONARY: &str = "lo@@ 5\nw 4\nwer 3\nthe 2\nthe 1 #fairseq:overwrite\n";
const CODES: &str = "#version: 0.2\nl o\ne r</w>\nw er</w>\nt h\n";

/// Subwords of both kinds, two texts, and the files of ids that programs make of them.
pub(super) fn files() -> Vec<Seed> {
    let codes = join(&[DICTIONARY.as_bytes(), CODES.as_bytes()]);
    let packed = join(&[&gzip(DICTIONARY.as_bytes()), &gzip(CODES.as_bytes())]);
    let texts = join(&[DE.as_bytes(), EN.as_bytes()]);
    let column = |text: &str| Values::Bytes(text.lines().map(|line| Some(line.into())).collect());
    let schema = "message schema { optional group translation { optional binary de (UTF8); optional binary en (UTF8); } }";
    let columns = write(schema, &[vec![column(DE), column(EN)]], 0, 1);
    let kinds = [
        ("codes", 0, codes),
        ("codes.gz", 8, packed),
        ("learned", 1, learned()),
        ("fairseq", 2, fairseq()),
        ("store", 3, store()),
        ("texts", 4, texts),
        ("parquet", 5, columns),
    ];
    let seed = |(name, kind, bytes): (&str, u8, Vec<u8>)| {
        ("parallel_text", name.to_string(), with(&[kind], &bytes))
    };
    kinds.into_iter().map(seed).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for a seed")
}

fn learned() -> Vec<u8> {
    let folder = folder();
    let subwords = learn_subwords(DE.lines().chain(EN.lines()), 60).expect("subwords");
    subwords.save(folder.path()).expect("room for a tokenizer");
    std::fs::read(folder.path().join("tokenizer.json")).expect("what was saved")
}

/// An index of two sentences, and their ids.
fn fairseq() -> Vec<u8> {
    let mut index = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0\x08\x02\0\0\0\0\0\0\0".to_vec();
    index.extend([3i32, 2].iter().flat_map(|length| length.to_le_bytes()));
    index.extend([0i64, 6].iter().flat_map(|place| place.to_le_bytes()));
    let ids = [5u16, 300, 2, 6, 2];
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    join(&[&index, &ids])
}

fn store() -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("train.pairs");
    let pairs = [(vec![5, 6, 2], vec![7, 2]), (vec![8, 2], vec![2])];
    let built = PairStore::build(&path, FINGERPRINT, (60, 60), pairs.into_iter().map(Ok));
    built.expect("a store");
    std::fs::read(&path).expect("the store")
}
