//! Seeds: small whole files of each kind, made here or taken from the tests' fixtures.
//!
//! `cargo run --bin seeds` writes them to `corpus/`, where they lie in the repository.

mod clicks;
mod parquet;
mod pictures;
mod text;
mod trained;
mod translation;

use std::path::Path;

/// A target's name, a seed's name, the seed.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub fn all() -> Vec<Seed> {
    let kinds = [
        text::glue(),
        text::conll(),
        text::masked(),
        text::words(),
        parquet::words(),
        text::tokenizers(),
        text::configs(),
        parquet::texts(),
        parquet::pictures(),
        pictures::cifar(),
        pictures::files(),
        clicks::texts(),
        clicks::stores(),
        trained::folders(),
        translation::files(),
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

#[cfg(test)]
mod tests {
    /// A seed that is refused at once leads nowhere. The exceptions are there for what is refused.
    #[test]
    fn seeds_are_taken() {
        let refused = ["damaged"];
        let mut wrong = Vec::new();
        for (target, name, bytes) in super::all() {
            let of_name = |t: &&crate::Target| t.name == target;
            let target = crate::TARGETS.iter().find(of_name).expect("a target");
            let taken = (target.run)(&bytes);
            if taken == refused.contains(&name.as_str()) {
                wrong.push(format!("{}/{name}", target.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn every_target_has_seeds_on_the_disk_and_a_program() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for target in crate::TARGETS {
            let seeds = std::fs::read_dir(folder.join("corpus").join(target.name));
            assert!(
                seeds.is_ok_and(|seeds| seeds.count() > 0),
                "{}",
                target.name
            );
            let program = folder.join(format!("fuzz_targets/{}.rs", target.name));
            assert!(program.is_file(), "{}", target.name);
        }
    }
}
