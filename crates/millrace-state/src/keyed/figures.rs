//! What a state counts of itself: how often it is used, how long that takes, and what it holds.

use std::{cell::Cell, time::Instant};

use serde::{Deserialize, Serialize};

/// Of so many accesses one is timed: a look at the clock takes longer than many an access.
const SAMPLED: u64 = 512;

/// The accesses to one state. It lives on its task's thread.
#[derive(Default)]
pub(super) struct Accesses {
    count: Cell<u64>,
    timed: Cell<u64>,
    nanos: Cell<u64>,
}

impl Accesses {
    /// Counts an access, and times it once in a while.
    #[inline]
    pub(super) fn of<R>(&self, access: impl FnOnce() -> R) -> R {
        let count = self.count.get() + 1;
        self.count.set(count);
        let started = count.is_multiple_of(SAMPLED).then(Instant::now);
        let result = access();
        if let Some(started) = started {
            self.timed.set(self.timed.get() + 1);
            self.nanos.set(self.nanos.get() + started.elapsed().as_nanos() as u64);
        }
        result
    }

    pub(super) fn figures(&self, bytes: Option<u64>) -> StateFigures {
        StateFigures {
            state: String::new(),
            accesses: self.count.get(),
            timed_accesses: self.timed.get(),
            timed_nanos: self.nanos.get(),
            bytes,
        }
    }
}

/// What a state has counted since its task started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFigures {
    /// Its name.
    pub state: String,
    /// How often it was read or written.
    pub accesses: u64,
    /// How many of these were timed.
    pub timed_accesses: u64,
    /// How long those took together, in nanoseconds.
    pub timed_nanos: u64,
    /// The bytes of its tables' slots, filled or not, where it is on the heap: without what its values own elsewhere, such as
    /// texts, and without keys of more than 18 bytes.
    pub bytes: Option<u64>,
}

impl StateFigures {
    /// How long an access takes, in nanoseconds; `None` before one was timed.
    pub fn mean_nanos(&self) -> Option<u64> {
        self.timed_nanos.checked_div(self.timed_accesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_is_counted_and_some_are_timed() {
        let accesses = Accesses::default();
        assert_eq!(accesses.figures(None).mean_nanos(), None);
        let pause = std::time::Duration::from_micros(50);
        for number in 1..=2 * SAMPLED + 3 {
            accesses.of(|| {
                if number % SAMPLED == 0 {
                    std::thread::sleep(pause);
                }
            });
        }
        let figures = accesses.figures(Some(7));
        assert_eq!((figures.accesses, figures.timed_accesses, figures.bytes), (2 * SAMPLED + 3, 2, Some(7)));
        assert!(figures.mean_nanos().unwrap() >= pause.as_nanos() as u64, "{figures:?}");
    }
}
