//! Tests of several parts together, and on real data.

mod binary;
mod codes;
mod moses;
mod parquet;
mod real;
mod store;
mod subwords;

use std::path::PathBuf;

use crate::random::Random;

/// A path beside the project that holds real data; `None`, with a printed reason, where it is absent.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ADAHESSIAN_SHARED").map(PathBuf::from);
    let root =
        root.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")));
    let full = root.join(path);
    match full.exists() {
        true => Some(full),
        false => {
            println!("skipped: {} is not here", full.display());
            None
        }
    }
}

/// The bytes of a file with a few changed, cut off or put in: what a damaged one may look like.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let place = random.below(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, random.below(256) as u8),
            2 => bytes[place] = 255,
            3 => bytes[place] ^= 1 << random.below(8),
            _ => _ = bytes.remove(place),
        }
    }
    bytes
}
