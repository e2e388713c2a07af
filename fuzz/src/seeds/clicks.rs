//! Click logs, and what preparations make of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use datasets::criteo::{Phase, Preprocessing, generate, prepare, prepare_noting};

use super::{Seed, gzip, with};
use crate::Scratch;
use crate::targets::clicks::journal_source;

fn log(rows: u64) -> Vec<u8> {
    let mut text = Vec::new();
    generate(rows, 5, &mut text).expect("memory takes everything");
    text
}

/// Rows of the generator, plain and gzipped; without labels; with a line that is none.
pub(super) fn texts() -> Vec<Seed> {
    let text = log(4);
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let unlabelled: Vec<u8> = lines.flat_map(|line| line[2..].to_vec()).collect();
    let odd = [text.as_slice(), b"1\t2\n", &text].concat();
    let marked = [b"\xef\xbb\xbf".as_slice(), &text].concat();
    vec![
        ("criteo_text", "labelled".to_string(), with(&[0], &text)),
        (
            "criteo_text",
            "gzipped".to_string(),
            with(&[4], &gzip(&text)),
        ),
        (
            "criteo_text",
            "unlabelled".to_string(),
            with(&[9], &unlabelled),
        ),
        ("criteo_text", "odd".to_string(), with(&[6], &odd)),
        ("criteo_text", "marked".to_string(), with(&[0], &marked)),
    ]
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file that was made")
}

/// A store without the zeros after its head, its vocabulary, and journals of preparations that were
/// interrupted while reading and while numbering.
pub(super) fn stores() -> Vec<Seed> {
    let scratch = Scratch::new();
    let text = scratch.put("train.txt", &log(3));
    let out = scratch.path().join("x.clicks");
    let made = prepare(&[text], &out, &Preprocessing::default(), |_| ());
    made.expect("a store of the generator's rows");
    let vocabulary = bytes(&scratch.path().join("x.clicks.vocabulary"));
    vec![
        (
            "criteo_store",
            "store".to_string(),
            with(&[0, 0], &bytes(&out)),
        ),
        (
            "criteo_store",
            "vocabulary".to_string(),
            with(&[1, 1], &vocabulary),
        ),
        (
            "criteo_store",
            "reading".to_string(),
            with(&[2, 1], &journal(1, Phase::Reading)),
        ),
        (
            "criteo_store",
            "numbering".to_string(),
            with(&[2, 5], &journal(2, Phase::Numbering)),
        ),
        (
            "criteo_store",
            "damaged".to_string(),
            with(&[2, 7], &journal(2, Phase::Numbering)),
        ),
    ]
}

fn journal(minimum_count: u32, until: Phase) -> Vec<u8> {
    let scratch = Scratch::new();
    let text = journal_source(&scratch);
    let preprocessing = Preprocessing {
        minimum_count,
        ..Preprocessing::default()
    };
    let out = scratch.path().join("j.clicks");
    let interrupt = |progress: datasets::criteo::Progress| {
        if progress.phase == until {
            std::panic::resume_unwind(Box::new("interrupted"));
        }
    };
    let prepare = || {
        prepare_noting(
            std::slice::from_ref(&text),
            &out,
            &preprocessing,
            None,
            1,
            interrupt,
        )
    };
    let interrupted = catch_unwind(AssertUnwindSafe(prepare));
    assert!(interrupted.is_err(), "it was not interrupted");
    bytes(&scratch.path().join("j.clicks.journal"))
}
