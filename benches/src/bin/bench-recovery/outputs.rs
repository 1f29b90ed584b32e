//! What the job writes: when a count came that had not come before.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_testkit::{
    figures::longest_silence,
    services::kafka::{Isolation, KafkaClient},
};

use crate::Result;

/// How long a look at the topic may wait for a record.
const LOOK: Duration = Duration::from_millis(20);

/// A topic of counts, `<key>,<count>`, that is being followed.
pub struct Outputs {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    highest: HashMap<String, u64>,
    news: Vec<Instant>,
    wrong: Option<String>,
}

impl Outputs {
    /// Begins at the topic's beginning.
    pub fn follow(kafka: &KafkaClient, topic: &str) -> Result<Self> {
        let mut follower = kafka.follow(topic, Isolation::ReadUncommitted)?;
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let (stopped, filled) = (Arc::clone(&stop), Arc::clone(&seen));
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let messages = follower.read_on(LOOK);
                let now = Instant::now();
                let mut seen = lock(&filled);
                match messages {
                    Ok(messages) => messages.iter().for_each(|message| seen.add(message.text(), now)),
                    Err(error) => seen.wrong = Some(error.to_string()),
                }
            }
        });
        Ok(Self { stop, seen })
    }

    /// How many keys have come.
    pub fn keys(&self) -> usize {
        lock(&self.seen).highest.len()
    }

    /// The sum of all counts: how many of the records that are written out were counted.
    pub fn counted(&self) -> Result<u64> {
        let seen = lock(&self.seen);
        match &seen.wrong {
            Some(wrong) => Err(wrong.clone().into()),
            None => Ok(seen.highest.values().sum()),
        }
    }

    /// Whether a new count came after this moment.
    pub fn came_after(&self, moment: Instant) -> bool {
        lock(&self.seen).news.last().is_some_and(|last| *last > moment)
    }

    /// The longest time without a new count that ended between these moments.
    pub fn longest_silence(&self, from: Instant, until: Instant) -> Option<Range<Instant>> {
        longest_silence(&lock(&self.seen).news, from, until)
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn add(&mut self, text: &str, now: Instant) {
        let parsed = text.rsplit_once(',').and_then(|(key, count)| Some((key, count.parse::<u64>().ok()?)));
        let Some((key, count)) = parsed else {
            self.wrong = Some(format!("no count: {text:?}"));
            return;
        };
        let highest = match self.highest.get_mut(key) {
            Some(highest) => highest,
            None => self.highest.entry(key.to_owned()).or_default(),
        };
        if count > *highest {
            *highest = count;
            self.news.push(now);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
