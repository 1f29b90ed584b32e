//! The part of a task that other threads may touch.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

type Wake = Box<dyn Fn() + Send + Sync>;

/// A task's cancellation: a flag, and what wakes the task's thread wherever it waits.
#[derive(Default)]
pub(super) struct TaskControl {
    cancelled: AtomicBool,
    wakers: Mutex<Vec<Wake>>,
}

impl TaskControl {
    /// The flag. Whoever waits looks at it under the lock of what it waits for.
    pub(super) fn cancelled(&self) -> &AtomicBool {
        &self.cancelled
    }

    /// Adds something to be called on cancellation.
    pub(super) fn on_cancel(&self, wake: Wake) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Cancels the task.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|wake| wake());
    }

    /// Lets go of everything that would be woken.
    pub(super) fn clear(&self) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
