//! Records for the job: first each key once, as fast as the broker takes them, then at an even rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use millrace_testkit::services::{self, kafka::KafkaClient};

use crate::Result;

/// So many records are sent at once, at most.
const PACE: Duration = Duration::from_millis(5);

/// Records being written.
pub struct Feed {
    stop: Arc<AtomicBool>,
    /// How many that are written out when they are counted.
    sampled: Arc<AtomicU64>,
    thread: JoinHandle<services::Result<()>>,
}

impl Feed {
    /// Begins with `key-0` to `key-<keys - 1>`, and then goes round them at this many a second.
    pub fn start(kafka: KafkaClient, topic: &str, keys: u64, sample: u64, rate: u64) -> Self {
        let (stop, sampled) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut records =
            Records { keys, sample, rate, number: 0, paced: None, stop: stop.clone(), sampled: sampled.clone() };
        let topic = topic.to_owned();
        let thread = thread::spawn(move || kafka.produce(&topic, std::iter::from_fn(move || records.next())));
        Self { stop, sampled, thread }
    }

    /// How many records were handed over whose counts are written out.
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }

    /// Whether it still writes.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it: all is acknowledged. How many records there were whose counts are written out.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the feed panicked")??;
        Ok(self.sampled.load(Ordering::Relaxed))
    }
}

struct Records {
    keys: u64,
    sample: u64,
    rate: u64,
    number: u64,
    /// When the even rate began, and with which record.
    paced: Option<(Instant, u64)>,
    stop: Arc<AtomicBool>,
    sampled: Arc<AtomicU64>,
}

impl Records {
    fn next(&mut self) -> Option<(Option<String>, String)> {
        if self.number >= self.keys {
            let (start, first) = *self.paced.get_or_insert_with(|| (Instant::now(), self.number));
            let due = Duration::from_secs_f64((self.number - first) as f64 / self.rate as f64);
            let elapsed = start.elapsed();
            if due > elapsed + PACE {
                thread::sleep(due - elapsed);
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        // Prime to any number of keys that is no multiple of it: neighbours in time are none in number.
        let key = self.number.wrapping_mul(7919) % self.keys;
        self.number += 1;
        if key.is_multiple_of(self.sample) {
            self.sampled.fetch_add(1, Ordering::Relaxed);
        }
        let key = format!("key-{key}");
        Some((Some(key.clone()), key))
    }
}
