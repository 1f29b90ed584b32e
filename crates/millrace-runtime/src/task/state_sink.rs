//! Where a snapshot is written to: memory while it is small, a file of the checkpoint beyond that, a few parts of it in
//! memory at a time.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use millrace_core::{Error, Result};
use millrace_state::{
    StateHandle,
    storage::{LocalState, LocalStateWriter, StateWriter},
};
use tokio::runtime::Handle;

/// A local copy under way, where there is a place for one.
pub(super) type LocalCopy<'a> = Option<(&'a LocalState, LocalStateWriter)>;

/// A snapshot under way. Its writes block: it belongs on a thread of its own.
pub(super) struct StateSink<'a, F> {
    limit: usize,
    /// Nobody waits for the snapshot any more.
    aborted: &'a AtomicBool,
    runtime: Handle,
    open: F,
    small: Vec<u8>,
    file: Option<StateWriter>,
    /// Where a local copy of the file goes.
    local: LocalCopy<'a>,
    /// The store's own error: [`io::Error`] can't carry its class.
    failed: Option<Error>,
}

impl<'a, F: Fn() -> Result<(StateWriter, LocalCopy<'a>)>> StateSink<'a, F> {
    /// A sink that opens a file when the snapshot grows beyond `limit` bytes.
    pub(super) fn new(limit: usize, aborted: &'a AtomicBool, runtime: Handle, open: F) -> Self {
        Self { limit, aborted, runtime, open, small: Vec::new(), file: None, local: None, failed: None }
    }

    /// The store's error, where a write failed.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// Completes the snapshot.
    pub(super) fn finish(self) -> Result<StateHandle> {
        match self.file {
            Some(file) => {
                let handle = self.runtime.block_on(file.finish())?;
                if let Some((local, copy)) = self.local {
                    local.keep(copy);
                }
                Ok(handle)
            }
            None => Ok(StateHandle::Inline(self.small)),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.aborted.load(Ordering::Relaxed) {
            return Err(Error::external("the checkpoint was aborted"));
        }
        if self.file.is_none() && self.small.len() + bytes.len() <= self.limit {
            self.small.extend_from_slice(bytes);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, local) = (self.open)()?;
                self.local = local;
                none.insert(file)
            }
        };
        let start = std::mem::take(&mut self.small);
        if let Some((_, copy)) = &mut self.local {
            copy.write(&start);
            copy.write(bytes);
        }
        self.runtime.block_on(async {
            file.write(&start).await?;
            file.write(bytes).await
        })
    }
}

impl<'a, F: Fn() -> Result<(StateWriter, LocalCopy<'a>)>> io::Write for StateSink<'a, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let shown = io::Error::other(error.message.clone());
                self.failed = Some(error);
                Err(shown)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
