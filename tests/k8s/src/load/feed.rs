//! Records for a job under fire: without a pause, at an even pace, until told to stop.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_testkit::services::kafka::KafkaClient;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Counts, Place};
use crate::{Context, Result};

/// How many different records there are.
const KEYS: u32 = 40;
/// The pace: so many records, then a pause.
const CHUNK: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Records being written to a topic beside a test.
pub struct Feed {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Feed {
    /// Begins to write records to the place's input. Each round has every record once, in an order that the seed
    /// decides.
    pub fn start(place: &Place, seed: u64) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Counts::new())));
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let records = Records { rng, round: Vec::new(), written: 0, stop: Arc::clone(&stop) };
        let (kafka, topic, counted) = (place.kafka.clone(), place.input.clone(), Arc::clone(&counts));
        let thread = thread::spawn(move || write(&kafka, &topic, records, &counted));
        Self { stop, counts, thread: Some(thread) }
    }

    /// How often each record was handed to the broker's client so far.
    pub fn written(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Ends it. Returns how often each record was written: all are acknowledged.
    pub fn finish(mut self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is finished once")?;
        thread.join().expect("writing does not panic")?;
        Ok(self.written())
    }
}

/// A test that fails does not go on writing.
impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(kafka: &KafkaClient, topic: &str, records: Records, counts: &Mutex<Counts>) -> Result<()> {
    let counted = records.inspect(|record| *lock(counts).entry(record.clone()).or_default() += 1);
    // Without a key a record goes to any partition: the copies of one record come by different ways.
    Ok(kafka.produce(topic, counted.map(|record| (None::<&[u8]>, record)))?)
}

/// The records, each when its time has come.
struct Records {
    rng: ChaCha8Rng,
    round: Vec<String>,
    written: usize,
    stop: Arc<AtomicBool>,
}

impl Iterator for Records {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.written += 1;
        if self.written.is_multiple_of(CHUNK) {
            // The pace of the input, not a wait for something to happen.
            thread::sleep(PAUSE);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        if self.round.is_empty() {
            self.round = (0..KEYS).map(|key| format!("key-{key}")).collect();
            self.round.shuffle(&mut self.rng);
        }
        self.round.pop()
    }
}
