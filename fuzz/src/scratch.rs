//! A folder for the files of an input: loaders take paths.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    /// A folder that is not in use: making and removing one costs more than most inputs do.
    static SPARE: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

/// An empty folder, in memory where the system has such a place.
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// An empty one.
    pub fn new() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(Some(spare.unwrap_or_else(made)))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0
            .as_ref()
            .expect("a folder until it is dropped")
            .path()
    }

    /// Writes a file, with the folders that it needs.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        if name.contains('/') {
            let parent = path.parent().expect("a file in the folder");
            fs::create_dir_all(parent).expect("room for folders");
        }
        fs::write(&path, bytes).expect("room for the files of an input");
        path
    }
}

fn made() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a folder for the files of an input")
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let folder = self.0.take().filter(|folder| empty(folder.path()).is_ok());
        SPARE.with_borrow_mut(|spare| spare.extend(folder));
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
