//! Records for a job that is being killed: without a pause, at an even pace, until it is told to stop.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_testkit::services::kafka::KafkaBroker;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How many different records there are.
const KEYS: u32 = 50;
/// How many partitions, or files, they are spread over.
pub const PARTITIONS: i32 = 2;
/// The pace: so many records, then a pause.
const CHUNK: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Where records go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// A topic of a broker, with [`PARTITIONS`] partitions.
    Kafka(&'static KafkaBroker, &'a str),
    /// One partition of a topic.
    Partition(&'static KafkaBroker, &'a str, i32),
    /// Files in a directory.
    Files(&'a Path),
}

/// Records being written beside a test.
pub struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<String, u64>>>,
}

impl Feed {
    /// Begins to write records: which one comes next is decided by the seed.
    pub fn start(target: Target<'_>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Records { rng: ChaCha8Rng::seed_from_u64(seed), stop: Arc::clone(&stop), written: 0 };
        let thread = match target {
            Target::Kafka(kafka, topic) => {
                let topic = topic.to_owned();
                thread::spawn(move || to_kafka(kafka, &topic, records))
            }
            Target::Partition(kafka, topic, partition) => {
                let topic = topic.to_owned();
                thread::spawn(move || to_partition(kafka, &topic, partition, records))
            }
            Target::Files(directory) => {
                fs::create_dir_all(directory).expect("the directory can be made");
                let path = |partition| directory.join(format!("part-{partition}.txt"));
                let paths = (0..PARTITIONS).map(path).collect();
                thread::spawn(move || to_files(paths, records))
            }
        };
        Self { stop, thread: Some(thread) }
    }

    /// Ends it. Returns how often each record was written.
    ///
    /// # Panics
    /// When the records could not be written.
    pub fn finish(mut self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.thread.take().and_then(|thread| thread.join().ok());
        written.expect("all records were written")
    }
}

/// A test that fails does not go on writing.
impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The records, each when its time has come.
struct Records {
    rng: ChaCha8Rng,
    stop: Arc<AtomicBool>,
    written: usize,
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
        Some(format!("key-{}", self.rng.random_range(0..KEYS)))
    }
}

fn to_kafka(kafka: &KafkaBroker, topic: &str, records: Records) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let counted = records.inspect(|record| *counts.entry(record.clone()).or_default() += 1);
    // Without a key a record goes to any partition: the copies of one record come by different ways.
    kafka.produce(topic, counted.map(|record| (None::<&[u8]>, record))).expect("all records are acknowledged");
    counts
}

fn to_partition(kafka: &KafkaBroker, topic: &str, partition: i32, records: Records) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let counted = records.inspect(|record| *counts.entry(record.clone()).or_default() += 1);
    kafka.produce_to(topic, partition, counted).expect("all records are acknowledged");
    counts
}

fn to_files(paths: Vec<PathBuf>, records: Records) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let open = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let mut files: Vec<_> = paths.iter().map(|path| open(path).expect("the file can be made")).collect();
    for (number, record) in records.enumerate() {
        let file = &mut files[number % paths.len()];
        file.write_all(format!("{record}\n").as_bytes()).expect("the file can be written");
        *counts.entry(record).or_default() += 1;
    }
    counts
}
