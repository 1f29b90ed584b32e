//! Wall-clock time, which tests can set.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the time that processing-time timers and state's time to live go by. Clones tell the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock for tests, which stands still until [`ManualClock::set`] or [`ManualClock::advance`].
    pub fn manual(now: u64) -> (Self, ManualClock) {
        let time = Arc::new(AtomicU64::new(now));
        (Self(Source::Manual(Arc::clone(&time))), ManualClock(time))
    }

    /// Milliseconds since the epoch. They may go back, as the system's clock may be set.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            Source::Manual(time) => time.load(Ordering::SeqCst),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "system clock",
            Source::Manual(_) => "manual clock",
        })
    }
}

/// Sets a clock of [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Makes it so many milliseconds since the epoch.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }

    /// Lets so many milliseconds pass.
    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_goes_only_when_it_is_told_to() {
        let (clock, hand) = Clock::manual(5);
        let other = clock.clone();
        hand.advance(7);
        assert_eq!((clock.now(), other.now()), (12, 12));
        hand.set(3);
        assert_eq!(clock.now(), 3);
    }
}
