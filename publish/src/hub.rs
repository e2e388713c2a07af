//! The server's side.

use crate::error::{Error, Result};
use crate::folder::Folder;
use hf_hub::progress::{Progress, ProgressEvent, ProgressHandler, UploadEvent};
use hf_hub::repository::{CommitOperation, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError};
use std::fmt;
use std::path::{Path, PathBuf};

/// The public Hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Where to push, and with what right.
#[derive(Clone)]
pub struct Hub {
    /// The server, without a slash at the end.
    pub endpoint: String,
    /// A token that may write.
    pub token: String,
    /// How often a request is made again that failed in passing.
    pub retries: usize,
}

impl fmt::Debug for Hub {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// The Hub as a set of variables describes it: the server `HF_ENDPOINT`, the token `HF_TOKEN`, else the content of
    /// `HF_TOKEN_PATH`, else that of `HF_HOME/token` (`~/.cache/huggingface/token`). Empty ones count as unset.
    ///
    /// # Errors
    /// [`Error::Setting`] without a token, and under `HF_HUB_OFFLINE`.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| {
            let text = lookup(name)?.trim().to_string();
            (!text.is_empty()).then_some(text)
        };
        let offline = get("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        if matches!(offline.as_str(), "1" | "true" | "yes" | "on") {
            return Err(Error::Setting {
                name: "HF_HUB_OFFLINE",
                what: "is set, and a push needs a network: unset it".into(),
            });
        }
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
            .or_else(|| Some(expanded(get("XDG_CACHE_HOME")?).join("huggingface")))
            .or_else(|| Some(Path::new(user.as_ref()?).join(".cache/huggingface")));
        let saved = || {
            let named = get("HF_TOKEN_PATH").map(expanded);
            let path = named.or_else(|| Some(home?.join("token")))?;
            let text = std::fs::read_to_string(path).ok()?.trim().to_string();
            (!text.is_empty()).then_some(text)
        };
        let token = get("HF_TOKEN").or_else(saved);
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: token.ok_or_else(|| Error::Setting {
                name: "HF_TOKEN",
                what: "no token is there to push with: set it to one that may write, from the Hub's page \
                       settings/tokens, or log in with `hf auth login`"
                    .into(),
            })?,
            retries: 3,
        })
    }
}

/// What to push to.
#[derive(Clone, Debug)]
pub struct Push {
    /// The repository, OWNER/NAME; made where it is not there.
    pub repo: String,
    /// Whether the repository must be private: one that is made is, and to one that is there and public nothing
    /// is pushed.
    pub private: bool,
    /// The branch, `main` by default.
    pub branch: Option<String>,
    /// The commit's message.
    pub message: String,
    /// Whether to ask the repository's owner to take it instead: a pull request.
    pub pull_request: bool,
}

impl Push {
    /// To the branch `main` of a public repository.
    ///
    /// # Errors
    /// [`Error::Name`] for what cannot be a repository's name.
    pub fn to(repo: &str) -> Result<Self> {
        let fits = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let edges = |c| part.starts_with(c) || part.ends_with(c);
            (1..=96).contains(&part.len())
                && part.chars().all(allowed)
                && !['-', '.'].into_iter().any(edges)
                && !part.contains("..")
                && !part.contains("--")
        };
        match repo.split_once('/') {
            Some((owner, name)) if fits(owner) && fits(name) => Ok(Self {
                repo: repo.into(),
                private: false,
                branch: None,
                message: "A model trained with AdaHessian for candle".into(),
                pull_request: false,
            }),
            _ => Err(Error::Name { got: repo.into() }),
        }
    }
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The page of the commit, or of the pull request.
    pub url: String,
    /// The commit.
    pub commit: Option<String>,
}

impl Hub {
    /// Pushes the files of a folder as one commit: all of them, or nothing. `follow` is told how many of how many
    /// bytes are there.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::Refused`].
    pub fn push(
        &self,
        folder: &Folder,
        push: &Push,
        follow: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<Pushed> {
        let explain = |what, error| self.explain(what, push, error);
        let client = self.client().map_err(|e| explain("a client for", e))?;
        self.create(&client, push)?;
        if push.private {
            self.check_private(&client, push)?;
        }
        let operations = folder.files.iter();
        let operations = operations.map(|file| CommitOperation::add_file(&file.name, &file.path));
        let (owner, name) = hf_hub::split_id(&push.repo);
        let repository = client.model(owner, name);
        let commit = repository
            .create_commit()
            .operations(operations.collect())
            .commit_message(&push.message)
            .maybe_revision(push.branch.clone())
            .create_pr(push.pull_request)
            .progress(Progress::new(Follower(follow)))
            .send();
        let commit = commit.map_err(|e| explain("a commit to", e))?;
        let page = || format!("{}/{}", self.endpoint, push.repo);
        Ok(Pushed {
            url: commit.pr_url.or(commit.commit_url).unwrap_or_else(page),
            commit: commit.commit_oid,
        })
    }

    fn client(&self) -> std::result::Result<HFClientSync, HFError> {
        HFClient::builder()
            .endpoint(&self.endpoint)
            .token(&self.token)
            .retry_max_attempts(self.retries)
            .cache_enabled(false)
            .user_agent(concat!("adahessian-publish/", env!("CARGO_PKG_VERSION")))
            .build_sync()
    }

    /// Makes the repository. Who may not make one may still push to one that is there.
    fn create(&self, client: &HFClientSync, push: &Push) -> Result<()> {
        let made = client
            .create_repository()
            .repo_id(&push.repo)
            .repo_type(RepoTypeModel)
            .private(push.private)
            .exist_ok(true)
            .send();
        let Err(error) = made else {
            return Ok(());
        };
        let (owner, name) = hf_hub::split_id(&push.repo);
        let may_be_there = matches!(error, HFError::Forbidden { .. });
        if may_be_there && client.model(owner, name).exists().send().unwrap_or(false) {
            return Ok(());
        }
        Err(self.explain("to make the repository", push, error))
    }

    /// The Hub takes `private` for a repository that it makes, and says nothing where it is there and public.
    fn check_private(&self, client: &HFClientSync, push: &Push) -> Result<()> {
        let (owner, name) = hf_hub::split_id(&push.repo);
        let info = client.model(owner, name).info().send();
        let info = info.map_err(|e| self.explain("to say whether it is private:", push, e))?;
        match info.private {
            Some(true) => Ok(()),
            _ => Err(Error::Refused {
                what: "a private push to",
                repo: push.repo.clone(),
                reason: "the repository is there and public; make it private in its settings, or push without \
                         --private; nothing was pushed"
                    .into(),
            }),
        }
    }

    fn explain(&self, what: &'static str, push: &Push, error: HFError) -> Error {
        let hint = match &error {
            HFError::Request { source, .. } if source.is_decode() => {
                "nothing was pushed; is HF_ENDPOINT a Hub?"
            }
            HFError::Request { source, .. } => {
                return Error::Unreachable {
                    endpoint: self.endpoint.clone(),
                    reason: chain(source),
                };
            }
            HFError::AuthRequired { .. } => "is the token valid? HF_TOKEN wants one that may write",
            HFError::Forbidden { .. } => {
                "the token may not: it needs the right to write, and you to be the owner's member"
            }
            // The client says so of a branch that is not there, too.
            HFError::RepoNotFound { .. } if push.branch.is_some() => {
                "check the name, that the token sees the repository, and that it has the branch: make it first, or leave \
                 --branch out"
            }
            HFError::RepoNotFound { .. } => {
                "check the name, and that the token sees the repository"
            }
            HFError::RevisionNotFound { .. } => "make the branch first, or leave --branch out",
            HFError::RateLimited { .. } => "wait, then try again",
            _ => "nothing was pushed; try again",
        };
        Error::Refused {
            what,
            repo: push.repo.clone(),
            reason: format!("{}; {hint}", chain(&error)),
        }
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = error.source();
    }
    text
}

struct Follower<F>(F);

impl<F: Fn(u64, u64) + Send + Sync> ProgressHandler for Follower<F> {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Upload(UploadEvent::Start { total_bytes, .. }) => {
                (self.0)(0, *total_bytes)
            }
            ProgressEvent::Upload(UploadEvent::Progress {
                bytes_completed,
                total_bytes,
                ..
            }) => (self.0)(*bytes_completed, *total_bytes),
            _ => {}
        }
    }
}
