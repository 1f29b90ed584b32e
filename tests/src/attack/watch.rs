//! Follows what a job writes: what came, and when something new did.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use millrace_testkit::{
    figures::longest_silence,
    services::kafka::{Isolation, KafkaClient, Message},
};

use super::{Guarantee, Result, checker::Outputs};

/// How long a look at the topic may wait for a record.
const LOOK: Duration = Duration::from_millis(20);

/// A topic that is being followed.
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
    /// Begins at the topic's beginning.
    pub fn start(kafka: &KafkaClient, topic: &str, guarantee: Guarantee) -> Result<Self> {
        let mut follower = kafka.follow(topic, isolation(guarantee))?;
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let (stopped, filled) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let messages = follower.read_on(LOOK)?;
                let now = Instant::now();
                let mut seen = lock(&filled);
                for message in messages {
                    seen.add(&message, now)?;
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
    fn add(&mut self, message: &Message, now: Instant) -> Result<()> {
        let (key, value) = split(message)?;
        self.messages += 1;
        if self.known.entry(key).or_default().insert(value) {
            self.news.push(now);
        }
        Ok(())
    }
}

/// A topic's outputs from its beginning to its present end.
pub fn outputs(kafka: &KafkaClient, topic: &str, guarantee: Guarantee) -> Result<Outputs> {
    let mut outputs = Outputs::new();
    for message in kafka.consume_all(topic, isolation(guarantee))? {
        let (key, value) = split(&message)?;
        outputs.entry(key).or_default().push(value);
    }
    Ok(outputs)
}

fn isolation(guarantee: Guarantee) -> Isolation {
    match guarantee {
        Guarantee::AtLeastOnce => Isolation::ReadUncommitted,
        Guarantee::ExactlyOnce => Isolation::ReadCommitted,
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Key and value: a message without a key has the key before its first comma.
fn split(message: &Message) -> Result<(String, String)> {
    let value = std::str::from_utf8(&message.value).map_err(|error| format!("an output is no text: {error}"))?;
    match &message.key {
        Some(key) => Ok((String::from_utf8_lossy(key).into_owned(), value.to_owned())),
        None => {
            let (key, value) = value.split_once(',').ok_or_else(|| {
                format!("the output {value:?} has no key: neither a message key nor one before a comma")
            })?;
            Ok((key.to_owned(), value.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: Option<&str>, value: &str) -> Message {
        Message { partition: 0, offset: 0, key: key.map(|key| key.into()), value: value.into() }
    }

    #[test]
    fn the_key_is_the_messages_or_comes_before_a_comma() {
        assert_eq!(split(&message(Some("k"), "a,b")).unwrap(), ("k".into(), "a,b".into()));
        assert_eq!(split(&message(None, "a,b,c")).unwrap(), ("a".into(), "b,c".into()));
        assert!(split(&message(None, "abc")).unwrap_err().to_string().contains("\"abc\""));
    }

    #[test]
    fn what_came_before_is_no_news() {
        let mut seen = Seen::default();
        for value in ["1", "2", "1", "2", "3"] {
            seen.add(&message(Some("k"), value), Instant::now()).unwrap();
        }
        assert_eq!((seen.news.len(), seen.messages), (3, 5));
    }
}
