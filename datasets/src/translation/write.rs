//! Files that become visible whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::criteo::files::{Partial, sync_folder};
use crate::error::{Error, Result};

/// A path with an ending behind its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes a file under a temporary name, waits until it is on the disk, and gives it its own name.
pub(crate) fn whole(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    // Of no other thread, nor of a process that has this one's number elsewhere: two that write one file would take it
    // from each other.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let own = format!(
        ".{}-{}-{}.partial",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed),
        since.unwrap_or_default().as_nanos()
    );
    let partial = Partial::new(beside(path, &own));
    let write = || {
        let mut file = BufWriter::new(File::create(partial.path())?);
        content(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()
    };
    write().map_err(|e| partial.failed(e))?;
    put_in_place(&partial, path)
}

/// Gives a temporary file that is on the disk its own name.
pub(crate) fn put_in_place(partial: &Partial, path: &Path) -> Result<()> {
    fs::rename(partial.path(), path).map_err(|e| Error::io(path, e))?;
    sync_folder(path);
    Ok(())
}
