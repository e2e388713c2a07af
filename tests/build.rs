//! Copies of some of candle-transformers' models with `adahessian::nn` in the place of `candle_nn`.
//!
//! Nothing else than import paths is changed, and nothing is kept: they are read from the sources that cargo
//! compiles, and written into the build folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const MODELS: [&str; 5] = ["with_tracing", "bert", "distilbert", "vit", "llama"];

/// What a path in candle-transformers is called outside of it.
const PATHS: [(&str, &str); 5] = [
    ("candle_nn", "adahessian::nn"),
    ("candle::", "candle_core::"),
    ("crate::models::with_tracing", "super::with_tracing"),
    ("crate::utils", "candle_transformers::utils"),
    (
        "crate::quantized_var_builder",
        "candle_transformers::quantized_var_builder",
    ),
];

fn main() {
    if let Err(error) = copy() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn copy() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let from = source()?.join("src/models");
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    // The lock file says which version is compiled.
    for watched in [manifest.join("build.rs"), manifest.join("../Cargo.lock")] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let mut modules = String::new();
    for model in MODELS {
        let file = from.join(format!("{model}.rs"));
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("candle-transformers has no {}: {error}", file.display()))?;
        let ported = PATHS
            .iter()
            .fold(text, |text, (theirs, ours)| text.replace(theirs, ours));
        let copy = out.join(format!("{model}.rs"));
        write(&copy, &ported)?;
        println!("cargo::rerun-if-changed={}", file.display());
        modules += &format!(
            "#[path = {:?}]\npub mod {model};\n",
            copy.display().to_string()
        );
    }
    write(&out.join("models.rs"), &modules)
}

/// Only what differs, so that an unchanged copy is not compiled again.
fn write(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo sets no {name}: is this a build script of cargo's?"))
}

/// Where cargo has candle-transformers, by what it says itself.
fn source() -> Result<PathBuf, String> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(variable("CARGO")?)
        .args([
            "metadata",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
        ])
        .arg(variable("TARGET")?)
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .map_err(|error| {
            format!("cargo metadata, which says where candle-transformers is, failed: {error}")
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    manifest_of("candle-transformers", &text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("cargo metadata does not say where candle-transformers is: {said}")
    })
}

/// The folder of a package, from cargo's metadata: a package begins with its name and version, a dependency
/// on it with its name and source.
fn manifest_of(package: &str, metadata: &str) -> Option<PathBuf> {
    let (_, rest) = metadata.split_once(&format!("{{\"name\":\"{package}\",\"version\":"))?;
    let (_, path) = rest.split_once("\"manifest_path\":\"")?;
    let (path, _) = path.split_once('"')?;
    Some(Path::new(&path.replace("\\\\", "\\")).parent()?.into())
}
