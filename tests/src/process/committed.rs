//! What readers see of committed output: a consumer with `read_committed` beside a test, all the time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use millrace_testkit::{
    cluster::Result,
    services::kafka::{Isolation, KafkaBroker},
};

use super::printed::lines;

/// How long the reader waits for more.
const POLL: Duration = Duration::from_millis(100);

/// What `checkpoint_example` has written to a topic, as a reader saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often each record was counted.
    pub counts: BTreeMap<String, u64>,
    /// Where a line does not continue those before it of the same record: it came twice, one is missing, or they are
    /// out of order.
    pub wrong: Vec<String>,
    /// From a record's processing until it was seen, in milliseconds, in the order of seeing.
    pub latencies: Vec<u64>,
}

impl Seen {
    /// How many lines continue those before them.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn take(&mut self, text: &str, now: SystemTime) {
        for line in lines(text) {
            let count = self.counts.entry(line.record.clone()).or_default();
            if line.count != *count + 1 {
                self.wrong.push(format!("{} is seen with number {} after {count}", line.record, line.count));
            }
            *count = line.count;
            let processed = humantime::parse_rfc3339(&line.timestamp).expect("a line begins with a time");
            self.latencies.push(now.duration_since(processed).unwrap_or_default().as_millis() as u64);
        }
    }
}

/// A reader of a topic on a thread of its own.
pub struct CommittedReader {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CommittedReader {
    /// Begins to read. A topic with one partition has an order to look at.
    pub fn start(kafka: &KafkaBroker, topic: &str) -> Result<Self> {
        let mut follower = kafka.follow(topic, Isolation::ReadCommitted)?;
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (into, is_over) = (Arc::clone(&seen), Arc::clone(&stop));
        let read = move || {
            while !is_over.load(Ordering::Relaxed) {
                let messages = follower.read_on(POLL).expect("the output can be read");
                let now = SystemTime::now();
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                messages.iter().for_each(|message| seen.take(&format!("{}\n", message.text()), now));
            }
        };
        Ok(Self { seen, stop, thread: Some(thread::spawn(read)) })
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines were seen so far.
    pub fn total(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).total()
    }

    /// Ends it.
    ///
    /// # Panics
    /// When the topic could not be read.
    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.expect("it runs").expect("the output can be read");
        self.seen()
    }
}

/// A test that fails does not go on reading.
impl Drop for CommittedReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
