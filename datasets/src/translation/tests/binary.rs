//! fairseq's files, whole and damaged.

use std::path::{Path, PathBuf};

use super::damaged;
use crate::Error;
use crate::random::Random;
use crate::translation::FairseqBinary;

const SENTENCES: [&[u32]; 3] = [&[5, 6, 2], &[2], &[300, 2]];

/// An index of these sentences, with ids of so many bytes, and the ids.
fn made(code: u8, width: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut index, mut ids) = (b"MMIDIDX\0\0".to_vec(), Vec::new());
    index.extend(1u64.to_le_bytes());
    index.push(code);
    index.extend((SENTENCES.len() as u64).to_le_bytes());
    for sentence in SENTENCES {
        index.extend((sentence.len() as i32).to_le_bytes());
    }
    for sentence in SENTENCES {
        index.extend((ids.len() as i64).to_le_bytes());
        for id in sentence {
            ids.extend(&u64::from(*id).to_le_bytes()[..width]);
        }
    }
    (index, ids)
}

fn written(dir: &Path, index: &[u8], ids: &[u8]) -> PathBuf {
    std::fs::write(dir.join("train.de-en.de.idx"), index).unwrap();
    std::fs::write(dir.join("train.de-en.de.bin"), ids).unwrap();
    dir.join("train.de-en.de")
}

#[test]
fn every_type_of_ids_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for (code, width) in [(3, 2), (4, 4), (5, 8), (8, 2), (9, 4), (10, 8)] {
        let (index, ids) = made(code, width);
        let binary = FairseqBinary::open(&written(dir.path(), &index, &ids)).unwrap();
        assert_eq!((binary.len(), binary.is_empty()), (3, false));
        for (place, sentence) in SENTENCES.iter().enumerate() {
            assert_eq!(binary.get(place).unwrap(), *sentence);
        }
        assert!(binary.get(3).is_err() && binary.get(usize::MAX).is_err());
    }
}

/// What an index may say that is not so.
#[test]
fn a_lying_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (index, ids) = made(8, 2);
    let with = |at: usize, bytes: &[u8]| {
        let mut index = index.clone();
        index[at..at + bytes.len()].copy_from_slice(bytes);
        index
    };
    let mut megatron = with(26, &4u64.to_le_bytes());
    megatron.extend([0; 8 + 8 * 4]);
    let cases: [(Vec<u8>, &str); 13] = [
        (with(0, b"TNTIDX\0\0"), "older format (TNTIDX)"),
        (with(0, b"X"), "begins with other bytes"),
        (with(9, &2u64.to_le_bytes()), "version 2"),
        (with(17, &[7]), "numbers of type 7"),
        (with(17, &[0]), "numbers of type 0"),
        (with(18, &4u64.to_le_bytes()), "for each of its 4 sentences"),
        (with(18, &u64::MAX.to_le_bytes()), "sentences"),
        (with(26, &(-1i32).to_le_bytes()), "sentence 0 has -1 ids"),
        (
            with(34, &3i32.to_le_bytes()),
            "sentence 2 has 3 ids from byte 8 on",
        ),
        (with(38, &i64::MIN.to_le_bytes()), "sentence 0 has 3 ids"),
        (with(46, &i64::MAX.to_le_bytes()), "sentence 1 has 1 ids"),
        (megatron, "Megatron-LM"),
        (index[..20].to_vec(), "an index of 20 bytes"),
    ];
    for (index, expected) in cases {
        let error = FairseqBinary::open(&written(dir.path(), &index, &ids)).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::TokenFile { .. }) && text.contains(expected),
            "{text}"
        );
        assert!(text.contains("train.de-en.de.idx"), "{text}");
    }
    let cut = FairseqBinary::open(&written(dir.path(), &index, &ids[..11]));
    assert!(cut.unwrap_err().to_string().contains("within the 11 bytes"));
    assert!(FairseqBinary::open(&written(dir.path(), &[], &[])).is_err());
    assert!(matches!(
        FairseqBinary::open(&dir.path().join("none")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn ids_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mut ids) = made(5, 8);
    ids[7] = 0x80;
    ids[8 * 3 + 4] = 1;
    let binary = FairseqBinary::open(&written(dir.path(), &index, &ids)).unwrap();
    assert!(
        binary
            .get(0)
            .unwrap_err()
            .to_string()
            .contains("sentence 0 has an id that is negative")
    );
    assert!(binary.get(1).is_err());
    assert_eq!(binary.get(2).unwrap(), [300, 2]);
}

#[test]
fn damaged_files_are_errors_or_ids() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(1, 0);
    let (index, ids) = made(8, 2);
    for _ in 0..1000 {
        let prefix = written(dir.path(), &damaged(&index, &mut random), &ids);
        if let Ok(binary) = FairseqBinary::open(&prefix) {
            (0..binary.len()).for_each(|sentence| drop(binary.get(sentence)));
        }
    }
}
