//! What of a folder is pushed.

use crate::error::{Error, Result};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file that is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name in the repository.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// A model in the Hub's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Where it lies.
    pub path: PathBuf,
    /// Its files, by name.
    pub files: Vec<File>,
    /// What lies beside them and stays here: folders, and names that begin with a dot.
    pub left_out: Vec<String>,
}

impl Folder {
    /// Looks at a model's folder, or at that of a run, whose model lies in `model`.
    ///
    /// # Errors
    /// [`Error::NoModel`] without a configuration or weights; [`Error::Damaged`] for a configuration that is no JSON
    /// and for weights that are cut off; [`Error::Io`] if something cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let within = path.join("model");
        let path = match !path.join("config.json").exists() && within.is_dir() {
            true => within,
            false => path.to_path_buf(),
        };
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&path).map_err(|e| io(&path, e))? {
            let entry = entry.map_err(|e| io(&path, e))?;
            let (place, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy().into_owned();
            // Through links: a cache's files are some.
            let data = fs::metadata(&place).map_err(|e| io(&place, e))?;
            match data.is_file() && !name.starts_with('.') {
                true => files.push(File {
                    name,
                    path: place,
                    bytes: data.len(),
                }),
                false => left_out.push(name),
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        left_out.sort();
        let folder = Self {
            path,
            files,
            left_out,
        };
        folder.check()?;
        Ok(folder)
    }

    fn check(&self) -> Result<()> {
        let lacks = |missing| Error::NoModel {
            path: self.path.clone(),
            missing,
        };
        let config = self.files.iter().find(|file| file.name == "config.json");
        configuration(&config.ok_or_else(|| lacks("config.json"))?.path)?;
        let files = self.files.iter();
        let weights: Vec<_> = files
            .filter(|file| file.name.ends_with(".safetensors"))
            .collect();
        match weights.is_empty() {
            true => Err(lacks("model.safetensors")),
            false => weights.into_iter().try_for_each(whole),
        }
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether a card says what the model is.
    pub fn has_card(&self) -> bool {
        self.card().is_some()
    }

    fn card(&self) -> Option<&File> {
        self.files.iter().find(|file| file.name == "README.md")
    }

    /// The licence that the card names: `license` in the lines between `---` at its beginning, which the Hub reads.
    ///
    /// # Errors
    /// [`Error::Io`] if the card cannot be read.
    pub fn license(&self) -> Result<Option<String>> {
        let Some(card) = self.card() else {
            return Ok(None);
        };
        let text = fs::read(&card.path).map_err(|e| io(&card.path, e))?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return Ok(None);
        }
        let head = lines.take_while(|line| line.trim_end() != "---");
        let mut named = head.filter_map(|line| line.strip_prefix("license:"));
        let named = named
            .next()
            .map(|name| name.trim().trim_matches(['"', '\'']));
        Ok(named.filter(|name| !name.is_empty()).map(str::to_string))
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.into(),
        source,
    }
}

fn damaged(path: &Path, what: impl Into<String>) -> Error {
    Error::Damaged {
        path: path.into(),
        what: what.into(),
    }
}

fn configuration(path: &Path) -> Result<()> {
    let text = fs::read(path).map_err(|e| io(path, e))?;
    let parsed: serde_json::Result<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&text);
    parsed
        .map(drop)
        .map_err(|e| damaged(path, format!("no configuration: {e}")))
}

/// A header of safetensors is no longer.
const LONGEST_HEADER: u64 = 100_000_000;

/// That a file of safetensors ends where its header says. All of it is not read.
fn whole(file: &File) -> Result<()> {
    let (path, size) = (&file.path, file.bytes);
    let mut reader = fs::File::open(path).map_err(|e| io(path, e))?;
    let mut length = [0; 8];
    if size < 8 {
        return Err(damaged(path, format!("{size} bytes are no safetensors")));
    }
    reader.read_exact(&mut length).map_err(|e| io(path, e))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > size - 8 {
        let what = format!("a header of {length} bytes in a file of {size}");
        return Err(damaged(path, what));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(|e| io(path, e))?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|e| damaged(path, format!("no header of safetensors: {e}")))?;
    let end = |tensor: &serde_json::Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let last = header.values().filter_map(end).max().unwrap_or(0);
    let expected = (8 + length).saturating_add(last);
    match expected == size {
        true => Ok(()),
        false => Err(damaged(
            path,
            format!("{size} bytes, and {expected} by its header"),
        )),
    }
}
