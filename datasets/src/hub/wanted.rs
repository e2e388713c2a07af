//! What is asked of the Hub, checked before it becomes part of a path or an address.

use std::path::{Component, Path};

use hf_hub::{Repo, RepoType};

use super::RepoKind;
use crate::error::{Error, Result};

/// A file of a repository, with names that cannot leave the cache folder or the URL's path.
pub(super) struct Wanted<'a> {
    pub(super) kind: RepoKind,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: &'a str,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(
        kind: RepoKind,
        repo: &'a str,
        revision: &'a str,
        file: &'a str,
    ) -> Result<Self> {
        check_name("repository", repo, 2)?;
        check_name("revision", revision, usize::MAX)?;
        check_name("file", file, usize::MAX)?;
        Ok(Self {
            kind,
            repo,
            revision,
            file,
        })
    }

    pub(super) fn repo(&self) -> Repo {
        let kind = match self.kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.repo.to_string(), kind, self.revision.to_string())
    }

    /// Where a server has the files of this revision.
    pub(super) fn address(&self) -> String {
        let name_space = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        let revision = self.revision.replace('/', "%2F");
        format!("{name_space}{}/resolve/{revision}", self.repo)
    }
}

/// Refuses anything but at most `parts` plain names joined by slashes.
fn check_name(what: &'static str, name: &str, parts: usize) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=@/".contains(c);
    let normal = Path::new(name)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    let pieces = name.split('/');
    let whole = pieces
        .clone()
        .all(|piece| !piece.is_empty() && piece != ".");
    if normal && whole && pieces.count() <= parts && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Setting {
        name: what,
        got: format!("{name:?}"),
        expected: "names of letters, digits, `-`, `_` and `.` joined by `/`, as in ORG/NAME; \
                   a local folder must exist to be taken as one"
            .to_string(),
    })
}
