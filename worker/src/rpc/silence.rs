//! When a peer counts as silent.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// So many looks at a peer in the time between two of its heartbeats.
const LOOKS: u32 = 4;
/// So many looks' time counts at most between two of them.
const MOST_COUNTED: u32 = 2;

/// Adds up the time in which a peer says nothing. Only time in which this process runs counts: one that stood still, or
/// got no processor, has not listened either, and must not hold that against its peer.
#[derive(Debug)]
pub struct Silence {
    timeout: Duration,
    look: Duration,
    looked_at: Instant,
    lasted: Duration,
}

impl Silence {
    /// A peer that has just been heard, and should be heard at each `interval`.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        let look = (interval / LOOKS).max(Duration::from_millis(1));
        Self { timeout, look, looked_at: Instant::now(), lasted: Duration::ZERO }
    }

    /// When to [`look`](Self::look).
    pub fn looks(&self) -> Interval {
        let mut looks = interval(self.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    }

    /// The peer has said something.
    pub fn heard(&mut self) {
        self.lasted = Duration::ZERO;
    }

    /// Returns how long the peer has been silent, where that is too long.
    pub fn look(&mut self) -> Option<Duration> {
        self.look_at(Instant::now())
    }

    fn look_at(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        self.lasted += passed.min(self.look * MOST_COUNTED);
        (self.lasted > self.timeout).then_some(self.lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks after each of these times; returns whether the last look found the peer silent.
    fn silent_after(gaps: &[Duration]) -> bool {
        let mut silence = Silence::new(SECOND, SECOND * 3);
        let mut now = silence.looked_at;
        let mut found = false;
        for gap in gaps {
            now += *gap;
            found = silence.look_at(now).is_some();
        }
        found
    }

    #[test]
    fn a_peer_is_silent_after_the_timeout_and_not_before() {
        let look = SECOND / LOOKS;
        assert!(!silent_after(&[look; 12]));
        assert!(silent_after(&[look; 13]));
    }

    #[test]
    fn time_in_which_this_process_stood_still_does_not_count() {
        let minute = SECOND * 60;
        assert!(!silent_after(&[minute]));
        assert!(!silent_after(&[minute, minute, minute]));
        // And what does count adds up.
        assert!(silent_after(&[minute; 7]));
    }

    #[test]
    fn a_word_ends_the_silence() {
        let mut silence = Silence::new(SECOND, SECOND * 3);
        let mut now = silence.looked_at;
        for _ in 0..12 {
            now += SECOND / LOOKS;
            assert_eq!(silence.look_at(now), None);
        }
        silence.heard();
        assert_eq!(silence.look_at(now + SECOND / LOOKS), None);
    }
}
