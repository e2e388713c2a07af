//! Settings in layers: flags over a file over defaults. What is `None` in a layer is open, and the layer
//! below decides.

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// The settings of `top`, and from `below` what they leave open.
///
/// # Errors
/// If the settings cannot be written as a table.
pub fn over<T: Serialize + DeserializeOwned>(top: &T, below: &T) -> Result<T> {
    let mut table = toml::Table::try_from(below)?;
    table.extend(toml::Table::try_from(top)?);
    Ok(table.try_into()?)
}

/// The settings in a TOML file.
///
/// # Errors
/// With file and line for what cannot be read, unknown names included.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// As the text of a TOML file.
///
/// # Errors
/// If they cannot be written.
pub fn text<T: Serialize>(settings: &T) -> Result<String> {
    Ok(toml::to_string(settings)?)
}
