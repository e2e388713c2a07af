//! Criteo's click logs: text, stores, vocabularies, journals.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use candle_core::Device;
use datasets::Batches;
use datasets::criteo::{
    CATEGORIES, ClickBatches, Malformed, Preprocessing, Store, Vocabularies, prepare,
    prepare_noting,
};

use crate::{Scratch, settings};

/// Bits of the first byte: without labels (1), malformed lines are skipped (2), values seen once are rare
/// (4), hashes (8).
fn preprocessing(bits: u8) -> Preprocessing {
    Preprocessing {
        labelled: bits & 1 == 0,
        hash_modulo: (bits & 8 != 0).then_some(100),
        minimum_count: if bits & 4 == 0 { 1 } else { 2 },
        malformed: match bits & 2 {
            0 => Malformed::Refuse,
            _ => Malformed::Skip,
        },
    }
}

/// Whether a batch could be made.
fn read(store: Store) -> bool {
    let sizes = store.table_sizes().to_vec();
    assert_eq!(sizes.len(), CATEGORIES);
    for row in [
        0,
        store.len() / 2,
        store.len().saturating_sub(1),
        usize::MAX,
    ] {
        let found = (store.label(row), store.dense(row), store.ids(row));
        assert_eq!(found.1.is_some(), row < store.len());
    }
    store.days(3).ok();
    store.expect(&Preprocessing::default()).ok();
    store.vocabularies().ok();
    let batches = ClickBatches {
        rows: 0..store.len(),
        store,
        batch_size: 8,
        shuffle: Some(1),
        drop_last: false,
        device: Device::Cpu,
    };
    batches.get(0, 0).is_ok()
}

/// A click log, plain or gzipped: preprocessing, file.
pub fn criteo_text(data: &[u8]) -> bool {
    let ([bits], file) = settings(data);
    let scratch = Scratch::new();
    let text = scratch.put("train.txt", file);
    let out = scratch.path().join("train.clicks");
    let Ok(store) = prepare(&[text], &out, &preprocessing(bits), |_| ()) else {
        return false;
    };
    assert!(!store.is_empty(), "no rows, and no error");
    let ids = store.ids(store.len() - 1).expect("ids of the last row");
    let mut inside = ids.iter().zip(store.table_sizes());
    assert!(inside.all(|(id, size)| (*id as usize) < *size), "{ids:?}");
    read(store)
}

/// A file that a preparation has made: which (0 store, 1 vocabulary, 2 journal), whether its checksums are
/// made right here, file.
pub fn criteo_store(data: &[u8]) -> bool {
    let ([which, fits], file) = settings(data);
    let scratch = Scratch::new();
    let mut file = file.to_vec();
    match which % 3 {
        0 => {
            let path = scratch.put("x.clicks", &file);
            Store::open(&path).is_ok_and(read)
        }
        1 => {
            if fits & 1 == 1 && file.len() > 4 {
                let end = file.len() - 4;
                let sum = crc32fast::hash(&file[..end]);
                file[end..].copy_from_slice(&sum.to_le_bytes());
            }
            let path = scratch.put("x.clicks.vocabulary", &file);
            let Ok(vocabularies) = Vocabularies::open(&path) else {
                return false;
            };
            for table in 0..=CATEGORIES {
                let ids = [None, Some(0), Some(7)].map(|value| vocabularies.id(table, value));
                assert_eq!(ids[0].is_some(), table < CATEGORIES);
            }
            vocabularies.sizes().len() == CATEGORIES
        }
        _ => journal(&scratch, fits, &mut file),
    }
}

/// Goes on from a journal, with records of zeros, or of ones: marked positions that no table has.
fn journal(scratch: &Scratch, fits: u8, file: &mut [u8]) -> bool {
    if fits & 1 == 1 {
        repair(file);
    }
    let text = journal_source(scratch);
    scratch.put("j.clicks.journal", file);
    let records = if fits & 2 == 0 { 0 } else { 255 };
    scratch.put("j.clicks.partial", &vec![records; 1 << 14]);
    let preprocessing = preprocessing(fits & 4);
    let out = scratch.path().join("j.clicks");
    let made = prepare_noting(&[text], &out, &preprocessing, None, u64::MAX, |_| ());
    made.is_ok_and(read)
}

/// The text that the journals of the seeds speak of, with the time that they know.
pub fn journal_source(scratch: &Scratch) -> std::path::PathBuf {
    let line = format!("1{}\n", "\t7".repeat(39));
    let path = scratch.put("j.txt", line.repeat(30).as_bytes());
    stamp(&path);
    path
}

fn stamp(path: &Path) {
    let file = File::options()
        .write(true)
        .open(path)
        .expect("the file just written");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    file.set_modified(time).expect("a time for the file");
}

/// Makes the checksums of a journal's entries right, as far as it has the form of one.
fn repair(file: &mut [u8]) {
    let mut sum = crc32fast::Hasher::new();
    let mut at = 12;
    if file.len() < at {
        return;
    }
    sum.update(&file[..at]);
    while let Some(length) = file[at..].first_chunk::<8>() {
        let length = u64::from_le_bytes(*length);
        let Some(end) = usize::try_from(length)
            .ok()
            .and_then(|n| (at + 8).checked_add(n))
        else {
            return;
        };
        if end.checked_add(4).is_none_or(|end| end > file.len()) {
            return;
        }
        sum.update(&file[at..end]);
        let so_far = sum.clone().finalize();
        file[end..end + 4].copy_from_slice(&so_far.to_le_bytes());
        at = end + 4;
    }
}
