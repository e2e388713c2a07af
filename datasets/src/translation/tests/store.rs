//! Stores of pairs: built, opened, interrupted and damaged.

use std::path::Path;

use super::damaged;
use crate::random::Random;
use crate::translation::{Filter, PairStore, PairTexts, learn_subwords};
use crate::{Error, Result};

type PairIds = (Vec<u32>, Vec<u32>);

fn pairs(count: usize, most: usize) -> Vec<PairIds> {
    let mut random = Random::new(9, count as u64);
    let mut side = || {
        let mut ids: Vec<u32> = (0..random.below(9))
            .map(|_| 3 + random.below(most - 3) as u32)
            .collect();
        ids.push(2);
        ids
    };
    (0..count).map(|_| (side(), side())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn same(store: &PairStore, pairs: &[PairIds]) {
    assert_eq!(store.len(), pairs.len());
    for (i, (source, target)) in pairs.iter().enumerate() {
        assert_eq!(store.source(i).as_ref(), Some(source));
        assert_eq!(store.target(i).as_ref(), Some(target));
    }
    let lengths: Vec<_> = pairs
        .iter()
        .map(|(source, target)| (source.len(), target.len()))
        .collect();
    assert_eq!(store.lengths(), lengths);
    for beyond in [pairs.len(), usize::MAX / 2, usize::MAX] {
        assert!(store.source(beyond).is_none() && store.target(beyond).is_none());
    }
}

#[test]
fn a_file_has_what_memory_has() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("train.pairs");
    // The largest vocabulary of 16 bits, and one more.
    for (count, size, width) in [
        (1, 65536, 2),
        (300, 65536, 2),
        (2, 65537, 4),
        (300, 100_000, 4),
    ] {
        let pairs = pairs(count, size);
        let built = PairStore::build(&out, 7, (size, size), pairs.iter().cloned().map(Ok)).unwrap();
        same(&built, &pairs);
        same(&PairStore::open(&out, 7).unwrap(), &pairs);
        same(&PairStore::in_memory(pairs.clone()).unwrap(), &pairs);
        assert_eq!(built.vocabularies(), (size, size));
        let tokens: usize = pairs
            .iter()
            .map(|(source, target)| source.len() + target.len())
            .sum();
        let expected = (64 + width * tokens).next_multiple_of(8) + 8 * (2 * count + 1);
        assert_eq!(std::fs::metadata(&out).unwrap().len() as usize, expected);
        assert_eq!(names(dir.path()), ["train.pairs", "train.pairs.lock"]);
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("train.pairs");
    let stopped = || {
        let error = Error::Batch {
            reason: "stopped".to_string(),
        };
        pairs(50, 99).into_iter().map(Ok).chain([Err(error)])
    };
    assert!(PairStore::build(&out, 1, (99, 99), stopped()).is_err());
    assert_eq!(names(dir.path()), ["train.pairs.lock"]);
    let first = pairs(20, 99);
    PairStore::build(&out, 1, (99, 99), first.iter().cloned().map(Ok)).unwrap();
    assert!(PairStore::build(&out, 2, (99, 99), stopped()).is_err());
    same(&PairStore::open(&out, 1).unwrap(), &first);
    let none = PairStore::build(&out, 1, (99, 99), std::iter::empty::<Result<PairIds>>());
    assert!(matches!(none, Err(Error::Empty { .. })));
}

#[test]
fn pairs_that_cannot_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("train.pairs");
    for (second, expected) in [
        ((vec![], vec![2]), "source of pair 1 has no ids"),
        ((vec![5, 2], vec![]), "target of pair 1 has no ids"),
        ((vec![5, 2], vec![5]), "target of pair 1 ends with id 5"),
        ((vec![10, 2], vec![2]), "source of pair 1 has id 10"),
    ] {
        let pairs = vec![(vec![2], vec![4, 2]), second];
        let error = PairStore::build(&out, 0, (10, 20), pairs.iter().cloned().map(Ok)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(PairStore::in_memory(pairs.clone()).is_err() || pairs[1].0.contains(&10));
    }
    assert!(PairStore::in_memory(Vec::new()).is_err());
}

/// Every byte counts: whatever is changed, a store is refused.
#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("train.pairs");
    PairStore::build(&out, 3, (99, 99), pairs(5, 99).into_iter().map(Ok)).unwrap();
    let whole = std::fs::read(&out).unwrap();
    let mut random = Random::new(2, 0);
    for _ in 0..1000 {
        let bytes = damaged(&whole, &mut random);
        std::fs::write(&out, &bytes).unwrap();
        let opened = PairStore::open(&out, 3);
        assert!(
            bytes == whole || matches!(opened, Err(Error::TokenFile { .. })),
            "{opened:?}"
        );
    }
    for length in 0..whole.len() {
        std::fs::write(&out, &whole[..length]).unwrap();
        assert!(PairStore::open(&out, 3).is_err());
    }
}

#[test]
fn a_store_of_another_text_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (de, en, out) = (
        dir.path().join("de"),
        dir.path().join("en"),
        dir.path().join("pairs"),
    );
    std::fs::write(&de, "ein haus\n\ndas haus ist sehr sehr sehr alt\n").unwrap();
    std::fs::write(&en, "a house\n\nold\n").unwrap();
    let subwords = learn_subwords(
        ["ein haus das haus ist alt", "a house the house is old"],
        60,
    )
    .unwrap();
    let texts = PairTexts {
        source: &de,
        target: &en,
        source_subwords: &subwords,
        target_subwords: &subwords,
        filter: Filter {
            max_ratio: 3.0,
            ..Filter::default()
        },
    };
    let store = texts.open_or_build(&out).unwrap();
    assert_eq!(store.len(), 1);
    assert_eq!(
        subwords.decode(&store.target(0).unwrap()).unwrap(),
        "a house"
    );
    assert_eq!(store.target(0).unwrap().last(), Some(&subwords.eos()));
    same(
        &texts.in_memory().unwrap(),
        &[(store.source(0).unwrap(), store.target(0).unwrap())],
    );
    assert!(texts.open_or_build(&out).is_ok());
    let other = PairTexts {
        filter: Filter::NONE,
        ..texts
    };
    let refused = other.open_or_build(&out).unwrap_err().to_string();
    assert!(
        refused.contains("made of something else") && refused.contains("delete the file"),
        "{refused}"
    );
    assert_eq!(other.build(&out).unwrap().len(), 2);
    std::fs::write(&en, "a house\n\nOLD\n").unwrap();
    assert!(other.open_or_build(&out).is_err());
    std::fs::write(&en, "a house\n").unwrap();
    let error = other.build(&out).unwrap_err().to_string();
    assert!(
        error.contains("3 lines") && error.contains("has 1"),
        "{error}"
    );
}
