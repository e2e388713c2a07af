//! A folder for the files of an input: loaders take paths.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that is removed with it, in memory where the system has such a place.
pub struct Scratch(TempDir);

impl Scratch {
    /// An empty one.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let made = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self(made.expect("a folder for the files of an input"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders that it needs.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        let parent = path.parent().expect("a file in the folder");
        std::fs::create_dir_all(parent).expect("room for folders");
        std::fs::write(&path, bytes).expect("room for the files of an input");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
