//! The mini SqueezeBERT that comes with the program: see its card, `mini/README.md`.

use anyhow::{Context, Result};
use std::fs;
use tempfile::TempDir;

/// What `--model` calls it; a folder of this name is `./mini`.
pub const MINI: &str = "mini";

/// Its files, as `pretrain` has exported them.
const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("mini/config.json")),
    ("tokenizer.json", include_bytes!("mini/tokenizer.json")),
    (
        "tokenizer_config.json",
        include_bytes!("mini/tokenizer_config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("mini/model.safetensors"),
    ),
];

/// A folder with the files, which lasts as long as what is returned.
///
/// # Errors
/// If there is no place for temporary files.
pub fn folder() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("the shipped model, 4 MB, among temporary files")?;
    for (name, bytes) in FILES {
        let path = folder.path().join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(folder)
}
