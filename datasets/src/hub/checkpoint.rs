//! A model's checkpoint, wherever it is.

use std::path::{Path, PathBuf};

use super::{Hub, RepoKind};
use crate::error::{Error, Result};

/// The folder of a checkpoint: the path itself, or the files of a Hub id such as
/// `squeezebert/squeezebert-uncased` in the cache, where they are fetched with a progress bar.
///
/// # Errors
/// [`Error::Setting`] for what is neither, and those of [`Hub::get`].
pub fn checkpoint_folder(model: &str) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.into());
    }
    // A Hub id is OWNER/NAME; everything else that is no folder is a path mistyped.
    let is_id = model.split('/').count() == 2 && !model.starts_with(['.', '/', '~']);
    if !is_id {
        return Err(Error::Setting {
            name: "model",
            got: model.into(),
            expected: "a folder, which it is not, or a Hub id (OWNER/NAME)".into(),
        });
    }
    let hub = Hub {
        progress: true,
        ..Hub::from_env()?
    };
    let get = |file: &str| hub.get(RepoKind::Model, model, None, file);
    let config = get("config.json")?;
    get("model.safetensors")?;
    if get("tokenizer.json").is_err() {
        get("vocab.txt")?;
    }
    let folder = config.parent().unwrap_or(Path::new("."));
    Ok(folder.into())
}
