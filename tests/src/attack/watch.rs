//! Follows what a job writes: what came, and when something new did.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use millrace_testkit::figures::longest_silence;

use super::{Guarantee, Result, output::Output};

/// An output that is being followed.
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What came.
#[derive(Default)]
struct Seen {
    known: HashMap<String, HashSet<String>>,
    /// When outputs came that had not come before.
    news: Vec<Instant>,
    messages: u64,
}

impl Watch {
    /// Begins at its beginning.
    pub fn start(output: &Output, guarantee: Guarantee) -> Result<Self> {
        let mut follow = output.follow(guarantee)?;
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let (stopped, filled) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let came = follow()?;
                let now = Instant::now();
                let mut seen = lock(&filled);
                for (key, value) in came {
                    seen.add(key, value, now);
                }
            }
            Ok(())
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// How many outputs came that had not come before.
    pub fn news(&self) -> usize {
        lock(&self.seen).news.len()
    }

    /// How many came at all.
    pub fn messages(&self) -> u64 {
        lock(&self.seen).messages
    }

    /// The longest time without a new output that ended between these moments; one that began before counts from the
    /// first of them on.
    pub fn longest_silence(&self, from: Instant, until: Instant) -> Option<Range<Instant>> {
        let seen = lock(&self.seen);
        longest_silence(&seen.news, from, until)
    }

    /// Ends it. An error is what it could not read.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.ok_or("the watch was finished before")?.map_err(|_| "the watch panicked")?
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn add(&mut self, key: String, value: String, now: Instant) {
        self.messages += 1;
        if self.known.entry(key).or_default().insert(value) {
            self.news.push(now);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_is_no_news() {
        let mut seen = Seen::default();
        for value in ["1", "2", "1", "2", "3"] {
            seen.add("k".into(), value.into(), Instant::now());
        }
        assert_eq!((seen.news.len(), seen.messages), (3, 5));
    }
}
