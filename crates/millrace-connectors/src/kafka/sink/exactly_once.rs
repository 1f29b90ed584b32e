//! Writing in transactions, one for each checkpoint.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread,
};

use millrace_core::{
    Error, Record, Result,
    sink::{SinkWriter, WriterContext},
};
use serde::{Deserialize, Serialize};

use super::{
    KafkaCommittable, Settings,
    coordinator::{Coordinators, failed},
    ids::{Place, TransactionalIds},
    outgoing::Outgoing,
    startup,
    transaction::Transaction,
};

/// The operator list that says which prefixes a sink has used.
const STATE: &str = "millrace.kafka-sink";

/// What a checkpoint holds of a writer beside its committables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WriterState {
    /// Its transactional ids' prefix: after another was chosen, what was left open under this one is still found.
    prefix: String,
    /// The highest parallelism that the sink has had.
    parallelism: u32,
}

type Begun = Result<Transaction>;

/// A transaction is open from the first record behind a barrier to the next barrier. The one after it is begun beside,
/// since that takes several round trips.
pub(super) struct TransactionalWriter<T> {
    settings: Arc<Settings>,
    outgoing: Outgoing<T>,
    ids: TransactionalIds,
    subtask: u32,
    /// The slots of transactions that are open or not settled. No other is ever touched.
    taken: BTreeSet<u32>,
    open: Option<Transaction>,
    next: Option<mpsc::Receiver<Begun>>,
    coordinators: Coordinators,
}

impl<T: Record> TransactionalWriter<T> {
    /// What the checkpoint held is committed; ends what dead starts of this sink have left open, and only then writes.
    pub fn new(
        settings: Arc<Settings>,
        outgoing: Outgoing<T>,
        context: &mut WriterContext<KafkaCommittable>,
    ) -> Result<Self> {
        let prefix = settings.prefix()?;
        let ids = TransactionalIds::new(prefix, &context.uid.0);
        startup::check(&settings, |client| outgoing.check_topic(client))?;
        let state = context.operator_state.union_list::<WriterState>(STATE)?;
        let known = state.get();
        let mut prefixes: BTreeSet<String> = known.iter().map(|state| state.prefix.clone()).collect();
        prefixes.insert(prefix.to_owned());
        let parallelism = known.iter().map(|state| state.parallelism).max().unwrap_or(0).max(context.parallelism);
        state.update(prefixes.iter().map(|prefix| WriterState { prefix: prefix.clone(), parallelism }).collect());
        let mut coordinators = Coordinators::new(settings.properties.servers());
        let left = LeftOpen { context, settings: &settings };
        for prefix in &prefixes {
            left.fence(&TransactionalIds::new(prefix, &context.uid.0), &mut coordinators)?;
        }
        let own = |committable: &KafkaCommittable| ids.place(&committable.transactional_id);
        let places = context.restored.iter().filter_map(own).filter(|place| place.subtask == context.subtask);
        let taken = places.map(|place| place.slot).collect();
        let subtask = context.subtask;
        let mut writer = Self { settings, outgoing, ids, subtask, taken, open: None, next: None, coordinators };
        writer.begin_next();
        Ok(writer)
    }

    /// Begins the transaction after the open one on a thread of its own: librdkafka blocks.
    fn begin_next(&mut self) {
        let slot = (0..).find(|slot| !self.taken.contains(slot)).unwrap_or(u32::MAX);
        self.taken.insert(slot);
        let place = Place { subtask: self.subtask, slot };
        let (id, settings) = (self.ids.id(place), Arc::clone(&self.settings));
        let (begun, receiver) = mpsc::sync_channel::<Begun>(1);
        self.next = Some(receiver);
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
            if self.next.is_none() {
                self.begin_next();
            }
            let next = self.next.take().and_then(|next| next.recv().ok());
            let begun =
                next.unwrap_or_else(|| Err(Error::external("there is no thread to begin a Kafka transaction on")));
            self.open = Some(begun?);
            self.begin_next();
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
            if let Some(place) = self.ids.place(&committable.transactional_id)
                && place.subtask == self.subtask
            {
                self.taken.remove(&place.slot);
            }
        }
        Ok(())
    }
}

impl<T> Drop for TransactionalWriter<T> {
    /// The next transaction may just be beginning: if that came late, it would fence the next start of this subtask.
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            // It is aborted by being dropped.
            let _ = next.recv();
        }
    }
}

/// What dead starts have left open.
struct LeftOpen<'a> {
    context: &'a WriterContext<KafkaCommittable>,
    settings: &'a Settings,
}

impl LeftOpen<'_> {
    /// Takes over every id that this subtask is responsible for, except those that a checkpoint still holds: so what was
    /// left open is aborted, and no dead start that still runs can go on. Each subtask is responsible for its own
    /// number, and for those that there are no subtasks of any more.
    fn fence(&self, ids: &TransactionalIds, coordinators: &mut Coordinators) -> Result<()> {
        let servers = self.settings.properties.servers();
        let brokers = startup::brokers(self.settings)?;
        let addresses: Vec<_> = brokers.into_iter().map(|(_, address)| address).collect();
        let listed = coordinators.list(&addresses);
        let listed = listed.map_err(|failure| failed("listing transactions", servers, &failure))?;
        for id in listed {
            let Some(place) = ids.place(&id) else { continue };
            let is_held = self.context.restored.iter().any(|committable| committable.transactional_id == id);
            if place.subtask % self.context.parallelism.max(1) != self.context.subtask || is_held {
                continue;
            }
            let fenced = coordinators.fence(&id);
            fenced.map_err(|failure| failed(format_args!("taking over transaction {id}"), servers, &failure))?;
        }
        Ok(())
    }
}
