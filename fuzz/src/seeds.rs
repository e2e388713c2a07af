//! Seeds: small whole files of each kind, made here or taken from the tests' fixtures.
//!
//! `cargo run --bin seeds` writes them to `corpus/`, where they lie in the repository.

mod clicks;
mod parquet;
mod pictures;
mod text;
mod trained;

use std::path::Path;

/// A target's name, a seed's name, the seed.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub fn all() -> Vec<Seed> {
    let kinds = [
        text::glue(),
        text::conll(),
        text::tokenizers(),
        text::configs(),
        parquet::texts(),
        parquet::pictures(),
        pictures::cifar(),
        pictures::files(),
        clicks::texts(),
        clicks::stores(),
        trained::folders(),
    ];
    kinds.into_iter().flatten().collect()
}

/// Settings before a file.
fn with(settings: &[u8], file: &[u8]) -> Vec<u8> {
    [settings, file].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    packed.expect("memory takes everything")
}

/// A file of the tests.
fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    std::fs::read(folder.join(name)).expect("a fixture of the tests")
}
