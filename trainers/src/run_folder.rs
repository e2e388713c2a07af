//! Where the files of a run lie, and whose they are.

use crate::checkpoint::{Checkpoints, Lock, is_checkpoint, lock_folder};
use crate::disk::{make_folder, write_whole};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of one run:
///
/// | file | content |
/// |---|---|
/// | `config.toml` | the whole configuration, with a checksum as its last line |
/// | `metrics.jsonl` | a line for each logged step and each evaluation |
/// | `events.out.tfevents.*` | the same for TensorBoard |
/// | `curves.svg` | the same as a picture |
/// | `checkpoint/` | see [`crate::checkpoint`] |
/// | `model/` | what was trained, for other programs |
/// | `model-best/` | the same of the best evaluation, where that was an earlier one |
/// | `summary.json` | what came out |
/// | `report.html` | all of it, to be read |
/// | `.lock` | held by the process that writes here |
///
/// A folder that was [created](RunFolder::create) or [resumed](RunFolder::resume) is this process's alone, until the last
/// clone is dropped or the process dies.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    lock: Option<Lock>,
}

/// The files and folders that runs leave in theirs, `events.out.tfevents.*` apart.
const OWN: [&str; 11] = [
    "config.toml",
    "metrics.jsonl",
    "curves.svg",
    "losses.svg",
    "summary.json",
    "results.json",
    "report.html",
    "checkpoint",
    "model",
    "model-best",
    ".lock",
];

/// What a folder holds, as far as a new run is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// Nothing, or only what a run left that saved nothing.
    Nothing,
    Run,
    Others,
}

impl RunFolder {
    /// A new run's folder with its configuration, this process's alone. What a run has left there that was
    /// cut off before its first checkpoint is removed.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if there is something else in the folder already: another run, finished or
    /// not, is never written over. [`Error::InUse`] if a run is at work there. [`Error::Io`] if it cannot be
    /// made.
    pub fn create(path: impl Into<PathBuf>, config: &str) -> Result<Self> {
        let path = path.into();
        Self::check_free(&path)?;
        make_folder(&path)?;
        let lock = Some(lock_folder(&path)?);
        Self::check_free(&path)?; // now that nobody else can change it
        remove_leftovers(&path)?;
        let folder = Self { path, lock };
        write_whole(&folder.config(), seal(config).as_bytes())?;
        Ok(folder)
    }

    /// Whether [`RunFolder::create`] would take this folder, as far as its files are concerned.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if not.
    pub fn check_free(path: &Path) -> Result<()> {
        let what = match contents(path)? {
            Contents::Nothing => return Ok(()),
            Contents::Run => "holds a run already: go on with --resume, or choose another --out",
            Contents::Others => "is not empty and holds no run: choose another --out",
        };
        Err(Error::RunFolder {
            path: path.into(),
            what,
        })
    }

    /// The folder of a run to go on with, from its path or that of one of its checkpoints, this process's
    /// alone. It need not have a checkpoint yet.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if it is neither, [`Error::InUse`] if a run is at work there.
    pub fn resume(path: impl AsRef<Path>) -> Result<Self> {
        let folder = Self::open(path)?;
        let lock = Some(lock_folder(&folder.path)?);
        folder.checkpoints().tidy()?;
        Ok(Self { lock, ..folder })
    }

    /// Removes what a run has written that was cut off before its first checkpoint, and has to begin again: its events
    /// would stand beside the new ones. What it is, its configuration says, and that stays.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_again(&self) -> Result<()> {
        match contents(&self.path)? {
            Contents::Nothing => remove_leftovers(&self.path),
            Contents::Run | Contents::Others => Ok(()),
        }
    }

    /// The folder of a run to look at, from its path or that of one of its checkpoints.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if it is neither.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let is_run = |p: &&Path| {
            let config = p.join("config.toml").is_file() && !is_checkpoint(p);
            config || p.join("checkpoint").is_dir()
        };
        // `RUN`, `RUN/checkpoint` or `RUN/checkpoint/step-00000120`, and not the folder of a comparison
        // from that of one of its runs.
        let folder = Some(path).filter(|p| p.ends_with("checkpoint"));
        let beside = path.parent().filter(|p| p.ends_with("checkpoint"));
        let above = [folder, beside].map(|p| p.and_then(Path::parent));
        let named = [Some(path), above[0], above[1]];
        match named.into_iter().flatten().find(is_run) {
            Some(run) => Ok(Self {
                // What lies above `checkpoint` is here.
                path: match run.as_os_str().is_empty() {
                    true => ".".into(),
                    false => run.into(),
                },
                lock: None,
            }),
            None => Err(Error::RunFolder {
                path: path.into(),
                what: "is neither a run's folder nor one of its checkpoints: nothing was begun here",
            }),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this process holds the folder.
    pub fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    /// The configuration that the run was begun with.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if `config.toml` is not what was written; [`Error::Io`].
    pub fn settings(&self) -> Result<String> {
        let path = self.config();
        let text = fs::read_to_string(&path).map_err(Error::io("cannot read", &path))?;
        let what = match (unseal(&text), text.contains(CHECKSUM)) {
            (Some(config), _) => return Ok(config.into()),
            (None, true) => {
                "is not what the run was begun with (its last line, a checksum, does not fit): undo the \
                 change, or begin another run with --config and another --out"
            }
            (None, false) => {
                "has no checksum as its last line: it was emptied, or an older version of this program began \
                 the run: go on with that version, or begin another run with another --out; the checkpoints \
                 here are whole, and any program can load their model.safetensors"
            }
        };
        Err(Error::RunFolder { path, what })
    }

    /// Writes another configuration, of which a resumed run says that it leads to the same steps.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_settings(&self, config: &str) -> Result<()> {
        write_whole(&self.config(), seal(config).as_bytes())
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `curves.svg`.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.svg")
    }

    /// `summary.json`.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// `model/`.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// `model-best/`.
    pub fn best_model(&self) -> PathBuf {
        self.path.join("model-best")
    }

    /// `report.html`.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// `checkpoint/`.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path.join("checkpoint"))
    }
}

/// What is in a folder, which need not exist.
fn contents(path: &Path) -> Result<Contents> {
    if !path.exists() {
        return Ok(Contents::Nothing);
    }
    let names = entries(path)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let checkpoint = Checkpoints::new(path.join("checkpoint")).newest()?;
    if checkpoint.is_some() || has("summary.json") || has("results.json") {
        return Ok(Contents::Run);
    }
    // A run's first file is its configuration: what lies where there is none, or one that no run wrote, is
    // somebody's, whatever it is called. So are a model and a report, which come behind the first checkpoint.
    let before_it =
        |name: &String| [".lock", ".config.toml.partial", "checkpoint"].contains(&name.as_str());
    let foreign = ["model", "model-best", "report.html"].into_iter().any(has);
    Ok(match begun(path)? {
        _ if foreign => Contents::Others,
        false if names.iter().all(before_it) => Contents::Nothing,
        false => Contents::Others,
        true if names.iter().all(|name| is_own(name)) => Contents::Nothing,
        // A comparison whose runs have folders of their own here.
        true => Contents::Run,
    })
}

/// Whether a run has written this folder's configuration. An empty one is what a power failure can leave of it.
fn begun(path: &Path) -> Result<bool> {
    let config = path.join("config.toml");
    if !config.exists() {
        return Ok(false);
    }
    let written = fs::read(&config).map_err(Error::io("cannot read", &config))?;
    let written = String::from_utf8_lossy(&written);
    Ok(written.trim().is_empty() || written.contains(CHECKSUM))
}

fn is_own(name: &str) -> bool {
    let hidden = [".partial", ".replaced"];
    let hidden = hidden.iter().find_map(|end| name.strip_suffix(end));
    let name = match hidden {
        Some(hidden) => hidden.strip_prefix('.').unwrap_or(hidden),
        None => name,
    };
    OWN.contains(&name) || name.starts_with("events.out.tfevents.")
}

/// Removes the files of a run that saved no checkpoint, and nothing else. The configuration, by which they are known
/// to be a run's, is replaced afterwards.
fn remove_leftovers(path: &Path) -> Result<()> {
    for name in entries(path)? {
        let file = path.join(&name);
        if !is_own(&name) || [".lock", "checkpoint", "config.toml"].contains(&name.as_str()) {
            continue;
        }
        let removed = match file.is_dir() {
            true => fs::remove_dir_all(&file),
            false => fs::remove_file(&file),
        };
        removed.map_err(Error::io("cannot remove", &file))?;
    }
    Checkpoints::new(path.join("checkpoint")).tidy()
}

fn entries(path: &Path) -> Result<Vec<String>> {
    let error = || Error::io("cannot read the run's folder", path);
    let entries = fs::read_dir(path).map_err(error())?;
    let names = entries.map(|entry| {
        let entry = entry.map_err(error())?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    });
    names.collect()
}

const CHECKSUM: &str = "# checksum of the lines above, which a run goes on with as they are: ";

/// A configuration with its checksum.
fn seal(config: &str) -> String {
    let config = config.trim_end();
    format!(
        "{config}\n{CHECKSUM}{:08x}\n",
        crc32fast::hash(config.as_bytes())
    )
}

/// The configuration, if its checksum fits.
fn unseal(text: &str) -> Option<&str> {
    let (config, last) = text.trim_end().rsplit_once('\n')?;
    let sum = u32::from_str_radix(last.strip_prefix(CHECKSUM)?, 16).ok()?;
    (crc32fast::hash(config.as_bytes()) == sum).then_some(config)
}

/// The checkpoint that a path means: itself, or the newest of a run's folder.
pub(crate) fn find_checkpoint(path: &Path) -> Result<PathBuf> {
    if is_checkpoint(path) {
        return Ok(path.into());
    }
    let inside = path.join("checkpoint");
    let folder = if inside.is_dir() { inside } else { path.into() };
    Checkpoints::new(folder).newest()?.ok_or_else(|| Error::NoCheckpoint {
        path: path.into(),
        what: "no checkpoint here; give a run's folder or one of its checkpoints, or start the run anew",
    })
}
