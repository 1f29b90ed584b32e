//! Looks once in a while whether the partitions that a reader reads are still there and still the same, and how far they
//! go, on a thread with a client of its own.
//!
//! librdkafka does not always tell that a topic was deleted, and a topic that was deleted and created anew looks to it
//! like the old one: reading would go on silently, or at a wrong place. The end of a partition never moves back while it
//! is the same, so an end that does tells. A topic that is created anew *and* filled beyond its old end between two looks
//! is not told from the old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{Error, Result};

use super::{KafkaSplit, enumerator::Look, errors::is_missing, offsets::Partition, source::Settings};

/// How often partitions are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(8);
/// A broker that has just started may not know its topics for a while.
const MISSING_LIMIT: Duration = Duration::from_secs(10);

/// Watches a reader's partitions until it is dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<BTreeMap<Partition, Seen>>>,
    /// Its end wakes the thread, which then ends.
    _reader_lives: mpsc::Sender<()>,
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The highest end that was seen; at first, the position that reading began with.
    end: i64,
    /// Whether `end` was told by the cluster.
    told: bool,
    missing_since: Option<Instant>,
    /// The last look showed an end before the highest.
    moved_back: bool,
    trouble: Option<Trouble>,
}

/// What is wrong with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is not there any more.
    Missing,
    /// Its end was here, behind where it is now.
    MovedBack { from: i64, to: i64 },
}

impl Seen {
    fn new(position: i64) -> Self {
        Self { end: position, told: false, missing_since: None, moved_back: false, trouble: None }
    }

    /// Takes what a look showed: the partition's end, or `None` where it is not there.
    fn look(&mut self, end: Option<i64>, now: Instant) {
        let Some(end) = end else {
            let since = *self.missing_since.get_or_insert(now);
            if now.duration_since(since) >= MISSING_LIMIT {
                self.trouble = Some(Trouble::Missing);
            }
            return;
        };
        self.missing_since = None;
        if end >= self.end {
            (self.end, self.told, self.moved_back) = (end, true, false);
        } else if std::mem::replace(&mut self.moved_back, true) {
            // Seen twice: a leader that has just been elected may know a little less for a moment.
            self.trouble = Some(Trouble::MovedBack { from: self.end, to: end });
        }
    }
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(settings: Arc<Settings>) -> Result<Self> {
        let seen = Arc::<Mutex<BTreeMap<Partition, Seen>>>::default();
        let (reader_lives, ended) = mpsc::channel();
        let shared = Arc::clone(&seen);
        let watch = move || {
            let mut client = None;
            while ended.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                // What can't be made or reached now may be later, and the reader tells of it.
                let client = match &client {
                    Some(client) => client,
                    None => match settings.connect(false) {
                        Ok(connected) => client.insert(connected),
                        Err(error) => {
                            tracing::debug!("topics are not watched: {error}");
                            continue;
                        }
                    },
                };
                let deadline = Instant::now() + LOOK_LIMIT;
                let look = Look { client, servers: settings.properties.servers(), deadline };
                take_look(&look, &shared);
                // Serves what librdkafka has to tell of this client.
                let _ = client.poll(Duration::ZERO);
            }
        };
        let spawned = thread::Builder::new().name("kafka-watch".into()).spawn(watch);
        spawned.map_err(|error| Error::external(format!("no thread to watch Kafka topics: {error}")))?;
        Ok(Self { seen, _reader_lives: reader_lives })
    }

    /// Watches these too.
    pub(super) fn add(&self, splits: &[KafkaSplit]) {
        let partition = |split: &KafkaSplit| ((split.topic.clone(), split.partition), Seen::new(split.offset));
        lock(&self.seen).extend(splits.iter().map(partition));
    }

    /// Fails where something is wrong with one of these.
    pub(super) fn check<'a>(&self, open: impl Iterator<Item = &'a KafkaSplit>, servers: &str) -> Result<()> {
        let seen = lock(&self.seen);
        if seen.values().all(|seen| seen.trouble.is_none()) {
            return Ok(());
        }
        for KafkaSplit { topic, partition, offset, .. } in open {
            let trouble = seen.get(&(topic.clone(), *partition)).and_then(|seen| seen.trouble);
            match trouble {
                None => {}
                Some(Trouble::Missing) => {
                    return Err(Error::external(format!(
                        "partition {partition} of topic {topic} no longer exists on Kafka at {servers}; it is read up \
                         to offset {offset}"
                    )));
                }
                Some(Trouble::MovedBack { from, to }) => {
                    return Err(Error::external(format!(
                        "the end of partition {partition} of topic {topic} on Kafka at {servers} has moved back from \
                         offset {from} to {to}: the topic was deleted and created anew, or its broker has lost \
                         messages. It is read up to offset {offset}, which now means another message; start the job \
                         anew without its checkpoint to read the topic as it is now"
                    ))
                    .fatal());
                }
            }
        }
        Ok(())
    }

    /// How many messages lie behind the positions of these; `None` before the cluster has told of all.
    pub(super) fn pending<'a>(&self, mut splits: impl Iterator<Item = &'a KafkaSplit>) -> Option<u64> {
        let seen = lock(&self.seen);
        splits.try_fold(0, |sum, split| {
            let seen = seen.get(&(split.topic.clone(), split.partition)).filter(|seen| seen.told)?;
            let end = split.stop.map_or(seen.end, |stop| stop.min(seen.end));
            Some(sum + u64::try_from(end - split.offset).unwrap_or(0))
        })
    }
}

/// Looks at all partitions once.
fn take_look(look: &Look<'_>, shared: &Mutex<BTreeMap<Partition, Seen>>) {
    let watched: Vec<Partition> = lock(shared).keys().cloned().collect();
    let topics: BTreeSet<&String> = watched.iter().map(|(topic, _)| topic).collect();
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for topic in topics {
        let of_topic = watched.iter().filter(|(of, _)| of == topic).cloned();
        match look.try_partitions(topic) {
            Ok(ids) => {
                let (found, gone): (Vec<_>, Vec<_>) = of_topic.partition(|(_, partition)| ids.contains(partition));
                there.extend(found);
                missing.extend(gone);
            }
            Err(code) if is_missing(code) => missing.extend(of_topic),
            // No answer: nothing is known for now.
            Err(_) => {}
        }
    }
    let ends = if there.is_empty() { Ok(Vec::new()) } else { look.offsets().ends(&there) };
    let ends = ends.unwrap_or_else(|error| {
        tracing::debug!("topics can't be watched for now: {error}");
        Vec::new()
    });
    let looks = there.into_iter().zip(ends).map(|(partition, end)| (partition, Some(end)));
    let now = Instant::now();
    let mut seen = lock(shared);
    for (partition, end) in looks.chain(missing.into_iter().map(|partition| (partition, None))) {
        if let Some(seen) = seen.get_mut(&partition) {
            seen.look(end, now);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stays_away_is_missing_and_one_that_comes_back_is_not() {
        let (mut seen, start) = (Seen::new(5), Instant::now());
        seen.look(None, start);
        seen.look(Some(7), start + MISSING_LIMIT / 2);
        seen.look(None, start + MISSING_LIMIT);
        assert_eq!((seen.trouble, seen.end), (None, 7));
        seen.look(None, start + 2 * MISSING_LIMIT);
        assert_eq!(seen.trouble, Some(Trouble::Missing));
    }

    #[test]
    fn an_end_that_moves_back_twice_is_another_topics() {
        let (mut seen, now) = (Seen::new(5), Instant::now());
        seen.look(Some(9), now);
        seen.look(Some(8), now);
        seen.look(Some(9), now);
        seen.look(Some(3), now);
        assert_eq!(seen.trouble, None);
        seen.look(Some(4), now);
        assert_eq!(seen.trouble, Some(Trouble::MovedBack { from: 9, to: 4 }));
    }
}
