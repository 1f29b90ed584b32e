//! Writing in transactions, one for each checkpoint.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        mpsc::{self, RecvError, TryRecvError},
    },
    thread,
};

use millrace_core::{
    Error, Record, Result,
    ids::{Attempt, Generation, JobAttempt},
    sink::{SinkWriter, WriterContext},
};
use serde::{Deserialize, Serialize};

use super::{
    KafkaCommittable, Settings,
    coordinator::Coordinators,
    ids::{Place, TransactionalIds},
    left_open::{LeftOpen, Share},
    outgoing::Outgoing,
    startup,
    transaction::Transaction,
};
use crate::sweep::Sweeper;

/// The operator list that says which prefixes a sink has used.
const STATE: &str = "millrace.kafka-sink";

/// What a checkpoint holds of a writer beside its committables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WriterState {
    /// Its transactional ids' prefix: after another was chosen, what was left open under this one is still found.
    prefix: String,
    /// The highest parallelism that the sink has had.
    parallelism: u32,
    /// Generation and attempt of its start; of old checkpoints, none.
    attempt: Option<(u64, u32)>,
}

type Begun = Result<Transaction>;

/// So many transactions are begun ahead at most: each has a client of its own.
const MOST_AHEAD: usize = 4;

/// A transaction is open from the first record behind a barrier to the next barrier. Those after it are begun beside,
/// since that takes several round trips: as many ahead as it takes for none to be waited for.
pub(super) struct TransactionalWriter<T> {
    settings: Arc<Settings>,
    outgoing: Outgoing<T>,
    ids: TransactionalIds,
    subtask: u32,
    attempt: JobAttempt,
    /// The slots of transactions that are open or not settled.
    taken: BTreeSet<u32>,
    open: Option<Transaction>,
    /// Those that are begun ahead, by their slots.
    next: VecDeque<(u32, mpsc::Receiver<Begun>)>,
    /// How often one was not begun yet when it was needed; the first never is.
    waits: usize,
    coordinators: Coordinators,
    /// What zombies leave open is looked for as long as it is there.
    _watch: Sweeper,
}

impl<T: Record> TransactionalWriter<T> {
    /// What the checkpoint held is committed; ends what earlier attempts have left open, and only then writes.
    pub fn new(
        settings: Arc<Settings>,
        outgoing: Outgoing<T>,
        context: &mut WriterContext<KafkaCommittable>,
    ) -> Result<Self> {
        let WriterContext { subtask, parallelism, attempt, .. } = *context;
        let prefix = settings.prefix()?;
        startup::check(&settings, |client| outgoing.check_topic(client))?;
        let state = context.operator_state.union_list::<WriterState>(STATE)?;
        let known = state.get();
        let since = known.iter().map(|state| state.attempt).min().flatten();
        let mut prefixes: BTreeSet<String> = known.iter().map(|state| state.prefix.clone()).collect();
        prefixes.insert(prefix.to_owned());
        let highest = known.iter().map(|state| state.parallelism).max().unwrap_or(0).max(parallelism);
        let state_of = |prefix: &String| WriterState {
            prefix: prefix.clone(),
            parallelism: highest,
            attempt: Some((attempt.generation.0, attempt.attempt.0)),
        };
        state.update(prefixes.iter().map(state_of).collect());
        let servers = settings.properties.servers();
        let mut coordinators = Coordinators::new(servers);
        let left_open = LeftOpen {
            servers: servers.to_owned(),
            ids: prefixes.iter().map(|prefix| TransactionalIds::new(prefix, &context.uid.0)).collect(),
            attempt,
            held: context.restored.iter().map(|committable| committable.transactional_id.clone()).collect(),
        };
        let since = since.map(|(generation, attempt)| (Generation(generation), Attempt(attempt)));
        let share = Share { subtask, parallelism, since };
        left_open.fence(share, &mut coordinators)?;
        let mut writer = Self {
            ids: TransactionalIds::new(prefix, &context.uid.0),
            settings,
            outgoing,
            subtask,
            attempt,
            taken: BTreeSet::new(),
            open: None,
            next: VecDeque::new(),
            waits: 0,
            coordinators,
            _watch: left_open.watch(share),
        };
        writer.begin_ahead();
        Ok(writer)
    }

    fn begin_ahead(&mut self) {
        while self.next.len() < self.waits.clamp(1, MOST_AHEAD) {
            self.begin_next();
        }
    }

    /// Begins a transaction on a thread of its own: librdkafka blocks.
    fn begin_next(&mut self) {
        let slot = (0..).find(|slot| !self.taken.contains(slot)).unwrap_or(u32::MAX);
        self.taken.insert(slot);
        let place = Place { subtask: self.subtask, slot, attempt: Some(self.attempt) };
        let (id, settings) = (self.ids.id(place), Arc::clone(&self.settings));
        let (begun, receiver) = mpsc::sync_channel::<Begun>(1);
        self.next.push_back((slot, receiver));
        let begin = move || {
            // A writer that has gone lets it be aborted.
            let _ = begun.send(Transaction::begin(&settings.properties, id));
        };
        if let Err(error) = thread::Builder::new().name("kafka-transaction".into()).spawn(begin) {
            tracing::warn!("no thread to begin a Kafka transaction on: {error}");
        }
    }

    fn open(&mut self) -> Result<&Transaction> {
        if self.open.is_none() {
            self.begin_ahead();
            let none = || Error::internal("no transaction was begun ahead");
            let (slot, next) = self.next.pop_front().ok_or_else(none)?;
            let begun = match next.try_recv() {
                // It failed some time ago, and may succeed now.
                Ok(Err(_)) => {
                    self.taken.remove(&slot);
                    self.begin_next();
                    self.next.pop_back().ok_or_else(none)?.1.recv()
                }
                Err(TryRecvError::Empty) => {
                    self.waits += 1;
                    next.recv()
                }
                begun => begun.map_err(|_| RecvError),
            };
            self.open =
                Some(begun.map_err(|_| Error::external("there is no thread to begin a Kafka transaction on"))??);
            self.begin_ahead();
        }
        self.open.as_ref().ok_or_else(|| Error::internal("a transaction that was begun is not there"))
    }
}

impl<T: Record> SinkWriter<T, KafkaCommittable> for TransactionalWriter<T> {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.open()?;
        match &self.open {
            Some(open) => self.outgoing.send_all(open.producer()?, &records),
            None => Ok(()),
        }
    }

    fn prepare_commit(&mut self) -> Result<Vec<KafkaCommittable>> {
        let Some(open) = &self.open else { return Ok(Vec::new()) };
        self.outgoing.flush(open.producer()?)?;
        let prepared = self.open.take().map(|open| open.prepare(&mut self.coordinators));
        Ok(vec![prepared.ok_or_else(|| Error::internal("a transaction was prepared twice"))??])
    }

    fn settled(&mut self, committables: &[KafkaCommittable]) -> Result<()> {
        for committable in committables {
            let place = self.ids.place(&committable.transactional_id);
            // Slots of earlier attempts are not this one's.
            if let Some(Place { subtask, slot, attempt }) = place
                && (subtask, attempt) == (self.subtask, Some(self.attempt))
            {
                self.taken.remove(&slot);
            }
        }
        Ok(())
    }
}

impl<T> Drop for TransactionalWriter<T> {
    /// Some may just be beginning.
    fn drop(&mut self) {
        for (_, next) in &self.next {
            // It is aborted by being dropped.
            let _ = next.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::operator_state::OperatorStateStore;

    use super::*;

    /// What checkpoints held before attempts were in them.
    #[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[serde(rename = "WriterState")]
    struct WithoutAttempt {
        prefix: String,
        parallelism: u32,
    }

    #[test]
    fn state_of_old_checkpoints_is_read() {
        let mut store = OperatorStateStore::default();
        let old = WithoutAttempt { prefix: "shop".into(), parallelism: 3 };
        store.union_list(STATE).unwrap().add(old);
        let mut store = OperatorStateStore::restored(store.snapshot().unwrap());
        let read = store.union_list::<WriterState>(STATE).unwrap().get();
        assert_eq!(read, [WriterState { prefix: "shop".into(), parallelism: 3, attempt: None }]);
    }
}
