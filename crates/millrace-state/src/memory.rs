//! Whether the process takes more memory than it may: state on the heap is then to fail by name, before the system ends
//! the process without a word.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The setting that says what the process may take.
pub const PROCESS_MEMORY_SETTING: &str = "taskmanager.memory.process.size";

/// Nothing is wrong.
const FINE: u64 = 0;

/// What is taken, seen by who looks and asked by who holds state. Asking costs no more than a load.
#[derive(Debug, Default)]
pub struct MemoryGuard {
    /// What the process took when it took too much.
    exceeded: AtomicU64,
    /// What it took when tasks were last failed for it.
    failed_at: Mutex<u64>,
}

impl MemoryGuard {
    /// Takes what the process takes and may take. It takes too much from 19 twentieths on: the rest is for what it takes
    /// until the next look.
    ///
    /// What failed tasks give back stays with the allocator for a while. Until the process is seen below its limit again,
    /// it therefore takes too much only when it takes a hundredth more than it did when they were failed.
    pub fn observe(&self, resident: u64, limit: u64) {
        let too_much = limit - limit / 20;
        let mut failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if resident < too_much {
            *failed_at = 0;
            self.exceeded.store(FINE, Ordering::Relaxed);
            return;
        }
        let is_new = resident > *failed_at + *failed_at / 100;
        if is_new {
            *failed_at = resident;
        }
        self.exceeded.store(if is_new { resident } else { FINE }, Ordering::Relaxed);
    }

    /// What the process takes, where that is too much.
    #[inline]
    pub fn exceeded(&self) -> Option<u64> {
        Some(self.exceeded.load(Ordering::Relaxed)).filter(|resident| *resident != FINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_told_once_until_more_is_taken() {
        let guard = MemoryGuard::default();
        let seen = |resident| {
            guard.observe(resident, 1000);
            guard.exceeded()
        };
        assert_eq!((seen(949), seen(950)), (None, Some(950)));
        assert_eq!((seen(950), seen(955)), (None, None), "what was given back is still held");
        assert_eq!((seen(960), seen(960)), (Some(960), None));
        assert_eq!((seen(100), seen(951)), (None, Some(951)), "a new failure");
    }
}
