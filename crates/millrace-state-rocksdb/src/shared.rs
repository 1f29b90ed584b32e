//! Hot entries that a task shares with the threads that write them to the database.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::hot::HotEntries;

/// Hot entries behind a lock at which the task comes first.
#[derive(Default)]
pub(crate) struct SharedEntries {
    entries: Mutex<HotEntries>,
    /// The task waits for the lock.
    task_waits: AtomicBool,
}

impl SharedEntries {
    /// For the task.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HotEntries> {
        match self.entries.try_lock() {
            Ok(entries) => entries,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.task_waits.store(true, Ordering::SeqCst);
                let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
                self.task_waits.store(false, Ordering::SeqCst);
                entries
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn task_waits(&self) -> bool {
        self.task_waits.load(Ordering::SeqCst)
    }

    /// For the others, who take it again and again: a lock that is free for a moment only would never be the task's.
    pub(crate) fn lock_after_task(&self) -> MutexGuard<'_, HotEntries> {
        while self.task_waits.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
