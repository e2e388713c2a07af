//! A model's checkpoint, wherever it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Hub, MAIN, RepoKind, Wanted};
use crate::byte_level;
use crate::error::{Error, Result};
use crate::limits::{self, LARGEST_LIST};

const WEIGHTS: &str = "model.safetensors";
/// What models have that were saved before there was safetensors.
const OLD_WEIGHTS: &str = "pytorch_model.bin";
/// Which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// The folder of a checkpoint: the path itself, or the files of a Hub id such as
/// `squeezebert/squeezebert-uncased`, or with a branch, tag or commit `OWNER/NAME@REVISION`, in the cache,
/// where they are fetched with a progress bar.
///
/// # Errors
/// [`Error::Setting`] for what is neither, and those of [`Hub::checkpoint`].
pub fn checkpoint_folder(model: &str) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.into());
    }
    let (id, revision) = match model.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (model, None),
    };
    // A Hub id is OWNER/NAME; everything else that is no folder is a path mistyped.
    if id.split('/').count() != 2 || id.starts_with(['.', '/', '~']) {
        return Err(Error::Setting {
            name: "model",
            got: model.into(),
            expected: "a folder, which it is not, or a Hub id (OWNER/NAME or OWNER/NAME@REVISION)"
                .into(),
        });
    }
    let hub = Hub {
        progress: true,
        ..Hub::from_env()?
    };
    let is_path = path.parent().is_some_and(Path::is_dir);
    hub.checkpoint(id, revision).map_err(|error| match is_path {
        // `runs/mimi`, say: what the Hub has to say of it is beside the point.
        true => Error::Setting {
            name: "model",
            got: model.into(),
            expected: format!(
                "a folder, and there is none here, or a repository of the Hub ({error})"
            ),
        },
        false => error,
    })
}

impl Hub {
    /// The folder in the cache with a model's `config.json`, its weights (`model.safetensors`, or the shards
    /// that its index names, else `pytorch_model.bin`) and its tokenizer (`tokenizer.json`, else `vocab.txt`, else
    /// `vocab.json` with `merges.txt`, with `tokenizer_config.json` and `added_tokens.json` where there are such), all of one commit.
    ///
    /// # Errors
    /// As [`Hub::get`], and [`Error::Absent`] for a repository without weights or tokenizer of these kinds. That a file is not there is one answer of a server, that it does not answer another:
    /// a tokenizer is never put together of less than there is.
    pub fn checkpoint(&self, repo: &str, revision: Option<&str>) -> Result<PathBuf> {
        let config = self.get(RepoKind::Model, repo, revision, "config.json")?;
        let folder = config.parent().unwrap_or(Path::new("."));
        // A branch may move between two requests; the commit of the first file is also the folder's name.
        let commit = folder.file_name().and_then(|name| name.to_str());
        let of = Commit {
            hub: self,
            repo,
            commit: commit.or(revision),
        };
        // The small files first: what is wrong with them shows before the large ones come.
        of.tokenizer()?;
        of.weights()?;
        Ok(folder.into())
    }
}

/// One state of a model's repository.
struct Commit<'a> {
    hub: &'a Hub,
    repo: &'a str,
    commit: Option<&'a str>,
}

impl Commit<'_> {
    fn get(&self, file: &str) -> Result<PathBuf> {
        self.hub.get(RepoKind::Model, self.repo, self.commit, file)
    }

    fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        self.hub.find(RepoKind::Model, self.repo, self.commit, file)
    }

    /// As [`Commit::find`]; offline, a file that nobody knows of is not there.
    fn known(&self, file: &str) -> Result<Option<PathBuf>> {
        match self.find(file) {
            Err(Error::NotCached { .. }) => Ok(None),
            other => other,
        }
    }

    fn is_cached(&self, file: &str) -> bool {
        let wanted = Wanted::new(
            RepoKind::Model,
            self.repo,
            self.commit.unwrap_or(MAIN),
            file,
        );
        wanted.is_ok_and(|wanted| self.hub.cached(&wanted).is_some())
    }

    fn weights(&self) -> Result<()> {
        if self.known(WEIGHTS)?.is_some() {
            return Ok(());
        }
        let Some(index) = self.known(INDEX)? else {
            return match self.known(OLD_WEIGHTS)? {
                Some(_) => Ok(()),
                None => self.one_of("weights", &[WEIGHTS, INDEX, OLD_WEIGHTS]),
            };
        };
        for shard in shards(&index)? {
            self.get(&shard)?;
        }
        Ok(())
    }

    fn tokenizer(&self) -> Result<()> {
        const CONFIG: &str = "tokenizer_config.json";
        if self.known("tokenizer.json")?.is_some() {
            return self.known(CONFIG).map(drop);
        }
        let [vocabulary, merges] = byte_level::FILES;
        let was_cached = self.is_cached("vocab.txt") || self.is_cached(vocabulary);
        let plain = self.known("vocab.txt")?.is_some();
        if !plain && self.known(vocabulary)?.is_some() {
            self.get(merges)?;
        } else if !plain {
            let others = "vocab.json with merges.txt";
            self.one_of("tokenizer", &["vocab.txt", "tokenizer.json", others])?;
        }
        // Tokens beyond the vocabulary. Versions that did not ask for them have left nothing of it in the cache.
        match self.known("added_tokens.json") {
            Err(Error::Unreachable { .. }) if was_cached => {}
            found => drop(found?),
        }
        // It alone says whether case is dropped.
        self.find(CONFIG).map(drop)
    }

    /// Fetches the first of these files; that there is none of them is no mistake in the repository's name.
    fn one_of(&self, what: &str, files: &[&str]) -> Result<()> {
        match self.find(files[0])? {
            Some(_) => Ok(()),
            None => Err(Error::Absent {
                repo: self.repo.into(),
                what: what.into(),
                tried: files.join(", "),
            }),
        }
    }
}

/// The files that an index names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let malformed = |reason: String| Error::Inconsistent {
        path: index.into(),
        reason: format!("{reason}; fetch the file again"),
    };
    let text = limits::read_text(index, LARGEST_LIST)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| malformed(format!("not valid JSON ({e})")))?;
    let places = json.get("weight_map").and_then(|map| map.as_object());
    let places = places.ok_or_else(|| malformed("no object `weight_map`".into()))?;
    let names = places.values().map(|name| name.as_str().map(String::from));
    let names: Option<BTreeSet<String>> = names.collect();
    names.ok_or_else(|| malformed("a file of `weight_map` that is no text".into()))
}
