//! A thread that brings records to the disk while others are made, and notes how far they got.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::files::Partial;
use super::journal::{Entry, Journal};
use crate::error::{Error, Result};

/// Bytes of records after which the disk shall begin.
const STEP: u64 = 64 << 20;

/// The thread. It ends with this.
pub(super) struct Behind {
    /// What to note once all that has been written so far is on the disk; nothing, just to get it
    /// there.
    sender: Option<SyncSender<Option<Entry>>>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Bytes written since the last step.
    written: u64,
}

impl Behind {
    /// A thread for the file of `partial`, which is kept from the first entry in the journal on.
    pub(super) fn start(file: &File, partial: &Partial, mut journal: Journal) -> Result<Self> {
        let kept = partial.kept();
        let path = partial.path().to_path_buf();
        let failed = |e| partial.failed(e);
        let file = file.try_clone().map_err(failed)?;
        let (sender, receiver): (_, Receiver<Option<Entry>>) = sync_channel(1);
        let work = move || {
            for entry in receiver {
                // First the records, then what speaks of them.
                file.sync_data().map_err(|e| Error::io(&path, e))?;
                if let Some(entry) = entry {
                    journal.append(&entry)?;
                    kept.set(true);
                }
            }
            Ok(())
        };
        let thread = Builder::new().name("click store".to_string());
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread.spawn(work).map_err(failed)?),
            written: 0,
        })
    }

    /// To be told that bytes have been written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        if self.written >= STEP {
            self.written = 0;
            // If it is not yet done with the last step, this one waits for the next.
            self.sender
                .as_ref()
                .map(|sender| sender.try_send(None).ok());
        }
    }

    /// Notes an entry once everything that has been written is on the disk.
    pub(super) fn note(&mut self, entry: Entry) -> Result<()> {
        let sent = self.sender.as_ref().map(|sender| sender.send(Some(entry)));
        match sent {
            Some(Ok(())) => Ok(()),
            // It listens no more, as it failed.
            _ => self.finish(),
        }
    }

    /// Waits until everything is noted.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(result)) => result,
            None => Ok(()),
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.sender = None;
        // After a failure that has been reported, or a panic: there is nobody to tell.
        self.thread.take().map(|thread| thread.join().ok());
    }
}
