//! Single files from the Hugging Face Hub, through the cache that its Python library shares.

mod checkpoint;
mod request;
mod transfer;
mod wanted;

pub use checkpoint::checkpoint_folder;

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::error::{Error, Result};
use request::{Failure, Request};
use wanted::Wanted;

/// The public Hub.
const ENDPOINT: &str = "https://huggingface.co";
/// The revision that is meant when none is named.
const MAIN: &str = "main";

/// What the Hub says, with the status of what is not there, where it is not the file that is not there, or may not be.
const WITHOUT_ACCESS: [&str; 3] = ["RepoNotFound", "RevisionNotFound", "GatedRepo"];

/// How long a server may be silent where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// Models and data sets live in different name spaces of the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// Where files come from and where they are kept.
#[derive(Clone)]
pub struct Hub {
    /// The server, without a slash at the end.
    pub endpoint: String,
    /// The cache folder, in the layout `{models,datasets}--ORG--NAME/{blobs,refs,snapshots}`.
    pub cache_dir: PathBuf,
    /// The access token for private repositories.
    pub token: Option<String>,
    /// Whether to use the cache only.
    pub offline: bool,
    /// Whether to show a progress bar, if standard error is a terminal.
    pub progress: bool,
    /// How long to wait for a server that sends nothing, at the beginning or in the middle of a file.
    pub patience: Duration,
}

impl fmt::Debug for Hub {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .field("patience", &self.patience)
            .finish()
    }
}

impl Hub {
    /// The public Hub with a cache in `cache_dir`: online, without token, without progress bar, with half a minute's
    /// patience.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: ENDPOINT.to_string(),
            cache_dir: cache_dir.into(),
            token: None,
            offline: false,
            progress: false,
            patience: PATIENCE,
        }
    }

    /// The Hub as the environment describes it, see [`Hub::from_variables`].
    ///
    /// # Errors
    /// If no variable says where the cache could be.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The Hub as a set of variables describes it; empty ones count as unset.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: cache only |
    /// | `HF_ENDPOINT` | the server |
    /// | `HF_HUB_CACHE` | the cache folder, else `HF_HOME/hub`, else `XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub` |
    /// | `HF_TOKEN` | the access token, else the content of the file `HF_TOKEN_PATH`, else of `HF_HOME/token` |
    /// | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds to wait for a server that sends nothing, 30 |
    ///
    /// # Errors
    /// If no variable says where the cache could be, or the seconds are no number above 0.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let user = get("HOME").or_else(|| get("USERPROFILE"));
        // Files of variables are read by no shell, which would have done this.
        let expanded = |path: String| match (path.strip_prefix('~'), &user) {
            (Some(rest), Some(user)) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
                Path::new(user).join(rest.trim_start_matches(['/', '\\']))
            }
            _ => PathBuf::from(path),
        };
        let home = get("HF_HOME")
            .map(expanded)
            .or_else(|| get("XDG_CACHE_HOME").map(|dir| expanded(dir).join("huggingface")))
            .or_else(|| Some(Path::new(user.as_ref()?).join(".cache").join("huggingface")));
        let cache_dir = get("HF_HUB_CACHE")
            .map(expanded)
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| Error::Setting {
                name: "HF_HOME",
                got: "unset".to_string(),
                expected: "a folder for downloaded files, as there is no HOME either".to_string(),
            })?;
        let saved_token = || {
            let named = get("HF_TOKEN_PATH").map(expanded);
            let path = named.or_else(|| Some(home.as_ref()?.join("token")))?;
            let text = std::fs::read_to_string(path).ok()?;
            Some(text.trim().to_string()).filter(|token| !token.is_empty())
        };
        let offline = get("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        let patience = match get("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(text) => seconds(&text)?,
        };
        Ok(Self {
            patience,
            endpoint: get("HF_ENDPOINT").map_or(ENDPOINT.to_string(), |endpoint| {
                endpoint.trim_end_matches('/').to_string()
            }),
            token: get("HF_TOKEN")
                .map(|token| token.trim().to_string())
                .or_else(saved_token),
            offline: matches!(offline.as_str(), "1" | "true" | "yes" | "on"),
            ..Self::new(cache_dir)
        })
    }

    /// The path of `file` of a repository, from the cache or downloaded into it.
    ///
    /// `revision` is a branch, tag or commit, `main` by default. What is in the cache is not asked
    /// for again: pin a commit where it matters. Of a data set of which the cache has files, others are those of the same
    /// commit, also where the branch has moved. The download's size is compared with the size
    /// that the server announced. [`Hub::patience`] limits the waiting for a silent server.
    ///
    /// # Errors
    /// If a name could leave the cache folder; offline, if the file is not in the cache; else if
    /// the server cannot be reached, refuses, or sends another number of bytes than announced.
    pub fn get(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: Option<&str>,
        file: &str,
    ) -> Result<PathBuf> {
        let wanted = Wanted::new(kind, repo, revision.unwrap_or(MAIN), file)?;
        if let Some(path) = self.cached(&wanted) {
            return Ok(path);
        }
        if self.offline {
            return Err(self.not_cached(&wanted));
        }
        match self.held(&wanted) {
            // Training rows of one state and validation rows of another are no data set.
            Some(commit) if kind == RepoKind::Dataset => self.download(&Wanted {
                revision: &commit,
                ..wanted
            }),
            _ => self.download(&wanted),
        }
    }

    /// As [`Hub::get`], for a file that a repository need not have: `None` where the server says that it is
    /// not there, or has said so before. The cache remembers it for a commit, as the Python library does; not where the
    /// server says of the repository or the revision that there is none, which it may say to those without access.
    ///
    /// # Errors
    /// As [`Hub::get`]; offline, [`Error::NotCached`] if nothing is known of the file.
    pub fn find(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: Option<&str>,
        file: &str,
    ) -> Result<Option<PathBuf>> {
        let wanted = Wanted::new(kind, repo, revision.unwrap_or(MAIN), file)?;
        if let Some(path) = self.cached(&wanted) {
            return Ok(Some(path));
        }
        let absent = self.place(&wanted, ".no_exist");
        if absent.is_file() {
            return Ok(None);
        }
        if self.offline {
            return Err(self.not_cached(&wanted));
        }
        match self.fetched(&wanted)? {
            Err(Failure::Refused { status: 404, code })
                if !WITHOUT_ACCESS.contains(&code.as_str()) =>
            {
                if code == "EntryNotFound" && is_of_commit(&absent, &wanted) {
                    // Only to spare the next request: that it cannot be written changes nothing.
                    let parent = absent.parent().map(std::fs::create_dir_all);
                    let _ = parent.map(|_| std::fs::write(&absent, ""));
                }
                Ok(None)
            }
            found => found
                .map(Some)
                .map_err(|failure| self.explain(&wanted, failure)),
        }
    }

    fn not_cached(&self, wanted: &Wanted<'_>) -> Error {
        Error::NotCached {
            repo: wanted.repo.to_string(),
            file: wanted.file.to_string(),
            revision: wanted.revision.to_string(),
            cache: self.cache_dir.clone(),
        }
    }

    /// The file in the cache, by branch or tag, or by commit.
    fn cached(&self, wanted: &Wanted<'_>) -> Option<PathBuf> {
        let path = self.place(wanted, "snapshots");
        path.is_file().then_some(path)
    }

    /// The commit that the cache has for a branch or tag, with files of it.
    fn held(&self, wanted: &Wanted<'_>) -> Option<String> {
        let folder = self.cache_dir.join(wanted.repo().folder_name());
        let commit = commit_of(&folder, wanted.revision)?;
        folder
            .join("snapshots")
            .join(&commit)
            .is_dir()
            .then_some(commit)
    }

    /// Where the cache has, in this folder of a repository, the file of a branch or tag, or of a commit.
    fn place(&self, wanted: &Wanted<'_>, within: &str) -> PathBuf {
        let folder = self.cache_dir.join(wanted.repo().folder_name());
        let commit = commit_of(&folder, wanted.revision);
        let commit = commit.as_deref().unwrap_or(wanted.revision);
        folder.join(within).join(commit).join(wanted.file)
    }

    fn download(&self, wanted: &Wanted<'_>) -> Result<PathBuf> {
        let fetched = self.fetched(wanted)?;
        fetched.map_err(|failure| self.explain(wanted, failure))
    }

    fn fetched(&self, wanted: &Wanted<'_>) -> Result<std::result::Result<PathBuf, Failure>> {
        let cache = std::path::absolute(&self.cache_dir)
            .map_err(|source| Error::io(&self.cache_dir, source))?;
        let request = Request {
            endpoint: self.endpoint.clone(),
            token: self.token.clone(),
            cache,
            repo: wanted.repo(),
            address: wanted.address(),
            file: wanted.file.to_string(),
        };
        let shown = self.progress && std::io::stderr().is_terminal();
        let bar = shown.then(|| ProgressBar::new(0));
        Ok(transfer::download(request, bar, self.patience))
    }

    /// The download's error with a way out.
    fn explain(&self, wanted: &Wanted<'_>, failure: Failure) -> Error {
        let (repo, file) = (wanted.repo.to_string(), wanted.file.to_string());
        let unreachable = |reason: String| Error::Unreachable {
            endpoint: self.endpoint.clone(),
            repo: wanted.repo.to_string(),
            file: wanted.file.to_string(),
            reason,
        };
        let (status, reason, hint) = match failure {
            Failure::Unreachable(reason) => return unreachable(reason),
            Failure::Silent => {
                let reason = format!(
                    "nothing came for {:?}; HF_HUB_DOWNLOAD_TIMEOUT=SECONDS waits longer",
                    self.patience
                );
                return unreachable(reason);
            }
            Failure::Size { expected, got } => {
                return Error::SizeMismatch {
                    repo,
                    file,
                    expected,
                    got,
                };
            }
            Failure::Refused { status, code } => {
                let hint = match status {
                    401 | 403 => {
                        "set HF_TOKEN to a token with access, and check the repository's name"
                    }
                    404 => "check the names of the repository, the revision and the file",
                    429 | 500.. => "try again later, or pass a local folder",
                    _ => "is HF_ENDPOINT a Hub? else pass a local folder with --model or --data",
                };
                let reason = match code.is_empty() {
                    true => format!("status {status}"),
                    false => format!("status {status}, {code}"),
                };
                (Some(status), reason, hint)
            }
            Failure::Io(error) => {
                let hint =
                    "check that the cache folder is writable, then try again: the download resumes";
                (None, error.to_string(), hint)
            }
            Failure::Broken(error) => {
                let hint = "the connection ended; try again: the download resumes";
                (None, error.to_string(), hint)
            }
            Failure::Locked => {
                let hint = "wait for it, then try again";
                let reason = "another process downloads the same file";
                (None, reason.to_string(), hint)
            }
            Failure::Answer(reason) => {
                let hint = "is HF_ENDPOINT a Hub? else pass a local folder with --model or --data";
                (None, reason, hint)
            }
        };
        Error::Refused {
            repo,
            file,
            revision: wanted.revision.to_string(),
            status,
            reason: format!("{reason}; {hint}"),
        }
    }
}

/// Whether a path in the cache is below a commit's name, and not a branch's.
fn is_of_commit(path: &Path, wanted: &Wanted<'_>) -> bool {
    let folder = path.ancestors().nth(wanted.file.split('/').count());
    let name = folder
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 40 && name.chars().all(|c| c.is_ascii_hexdigit()))
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.trim().parse::<f64>().ok().filter(|s| *s > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| Error::Setting {
        name: "HF_HUB_DOWNLOAD_TIMEOUT",
        got: format!("{text:?}"),
        expected: "seconds, more than 0".to_string(),
    })
}

/// The commit that a repository's folder in the cache has for a branch or tag. An empty note was cut off, and says
/// nothing.
fn commit_of(folder: &Path, revision: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("refs").join(revision)).ok()?;
    Some(text.trim().to_string()).filter(|commit| !commit.is_empty())
}
