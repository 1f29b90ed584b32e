//! Records for a job under attack: at an even pace, until told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_testkit::services::{self, kafka::KafkaClient};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Result;

/// How many different keys there are.
const KEYS: u32 = 60;
/// The pace: so many records, then a pause.
const CHUNK: u64 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Records being written beside an attack.
pub struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<services::Result<()>>>,
}

impl Feed {
    /// Begins to write records with keys: these over and over again, or ones whose order the seed decides.
    pub fn start(kafka: KafkaClient, topic: &str, records: Vec<(String, String)>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Records { rng: ChaCha8Rng::seed_from_u64(seed), given: records, written: 0, stop: stop.clone() };
        let topic = topic.to_owned();
        let thread = thread::spawn(move || kafka.produce(&topic, records));
        Self { stop, thread: Some(thread) }
    }

    /// Ends it: all records are acknowledged.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        Ok(ended.ok_or("the feed was finished before")?.map_err(|_| "the feed panicked")??)
    }
}

/// An attack that fails does not go on writing.
impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The records, each when its time has come.
struct Records {
    rng: ChaCha8Rng,
    given: Vec<(String, String)>,
    written: u64,
    stop: Arc<AtomicBool>,
}

impl Iterator for Records {
    type Item = (Option<String>, String);

    fn next(&mut self) -> Option<Self::Item> {
        self.written += 1;
        if self.written.is_multiple_of(CHUNK) {
            // The pace of the input, not a wait for something to happen.
            thread::sleep(PAUSE);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        if self.given.is_empty() {
            let key = format!("key-{}", self.rng.random_range(0..KEYS));
            let record = format!("{key} {}", self.written);
            return Some((Some(key), record));
        }
        let (key, value) = self.given[self.written as usize % self.given.len()].clone();
        Some((Some(key), value))
    }
}
