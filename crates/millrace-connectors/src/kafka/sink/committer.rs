//! The second phase: ends transactions, whoever has begun them.

use kafka_protocol::ResponseError;
use millrace_core::{
    Result,
    sink::{Committer, lost},
};
use serde::{Deserialize, Serialize};

use super::coordinator::{Coordinators, Described, END_TXN_VERSION, Failure, failed};

/// A transaction that waits to be committed: all that its coordinator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaCommittable {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch: a later one means that somebody has taken the id over.
    pub producer_epoch: i16,
    /// The version of the request that commits it: another could move the epoch.
    pub end_txn_version: i16,
}

impl KafkaCommittable {
    pub(super) fn new(transactional_id: String, producer_id: i64, producer_epoch: i16) -> Self {
        Self { transactional_id, producer_id, producer_epoch, end_txn_version: END_TXN_VERSION }
    }
}

pub(super) struct KafkaCommitter {
    servers: String,
    coordinators: Coordinators,
}

impl KafkaCommitter {
    pub fn new(servers: &str) -> Self {
        Self { servers: servers.to_string(), coordinators: Coordinators::new(servers) }
    }

    fn commit_one(&mut self, committable: &KafkaCommittable) -> Result<()> {
        let KafkaCommittable { transactional_id: id, producer_id, producer_epoch, end_txn_version } = committable;
        let what = format!("committing transaction {id}");
        match self.coordinators.end(id, *producer_id, *producer_epoch, *end_txn_version, true) {
            Ok(()) => Ok(()),
            Err(failure) if is_verdict(&failure) => {
                let described = self.coordinators.describe(id);
                let described = described.map_err(|failure| failed(&what, &self.servers, &failure))?;
                judge(committable, &failure, described.as_ref())
            }
            Err(failure) => Err(failed(&what, &self.servers, &failure)),
        }
    }
}

impl Committer<KafkaCommittable> for KafkaCommitter {
    fn commit(&mut self, committables: &[KafkaCommittable]) -> Result<()> {
        committables.iter().try_for_each(|committable| self.commit_one(committable))
    }
}

/// Whether the coordinator says that this transaction can't be committed, or not any more.
fn is_verdict(failure: &Failure) -> bool {
    use ResponseError as E;
    match failure {
        Failure::Connection(_) => false,
        Failure::Broker(error) => {
            let fenced = matches!(error, E::ProducerFenced | E::InvalidProducerEpoch | E::InvalidProducerIdMapping);
            fenced || matches!(error, E::InvalidTxnState)
        }
    }
}

/// What the coordinator knows decides whether it was committed, or is lost.
fn judge(committable: &KafkaCommittable, refused: &Failure, described: Option<&Described>) -> Result<()> {
    let KafkaCommittable { transactional_id: id, producer_id, producer_epoch, .. } = committable;
    let Some(described) = described else {
        return Err(lost(format!(
            "Kafka's transaction coordinator does not know transaction {id} any more ({refused}). It forgets ids after \
             transactional.id.expiration.ms, 7 days by default: the records of this transaction are not readable. A \
             checkpoint that is so old can be restored under another uid of the sink, or with \
             allow-non-restored-state"
        )));
    };
    let same = (described.producer_id, described.producer_epoch) == (*producer_id, *producer_epoch);
    if same && matches!(described.state.as_str(), "CompleteCommit" | "PrepareCommit") {
        return Ok(());
    }
    Err(lost(format!(
        "transaction {id} of producer {producer_id} and epoch {producer_epoch} is refused ({refused}); its coordinator \
         now says {described}. Either it was open for longer than transaction.timeout.ms and Kafka has aborted it: then \
         its records are lost, and the job has to go back to before them; choose a longer timeout. Or another producer has used \
         the id since: another job has the same transactional_id_prefix, or this checkpoint is not the job's newest and \
         its records were committed by those after it"
    )))
}

#[cfg(test)]
mod tests {
    use millrace_core::{
        codec,
        ids::CheckpointId,
        operator_state::{OperatorListSnapshot, OperatorStateStore},
        sink::PendingCommittable,
    };

    use super::*;

    fn committable() -> KafkaCommittable {
        KafkaCommittable::new("shop-orders-1-0".into(), 4711, 7)
    }

    #[test]
    fn the_coordinator_decides_what_a_refusal_means() {
        let fenced = Failure::Broker(ResponseError::ProducerFenced);
        assert!(is_verdict(&fenced) && !is_verdict(&Failure::Broker(ResponseError::NotCoordinator)));
        let judged = |state: &str, epoch| {
            let described = Described { state: state.into(), producer_id: 4711, producer_epoch: epoch };
            judge(&committable(), &fenced, Some(&described))
        };
        judged("CompleteCommit", 7).unwrap();
        for (state, epoch) in [("CompleteAbort", 8), ("Empty", 8), ("Ongoing", 9), ("CompleteAbort", 7)] {
            let error = judged(state, epoch).unwrap_err();
            assert!(!error.retryable && error.message.contains(state), "{error:?}");
            assert!(error.message.contains("shop-orders-1-0") && error.message.contains("transaction.timeout.ms"));
        }
        assert!(judge(&committable(), &fenced, None).unwrap_err().message.contains("expiration"));
    }

    const LIST: &str = "millrace.sink-committables";

    fn pending() -> PendingCommittable<KafkaCommittable> {
        PendingCommittable { checkpoint: CheckpointId(7), committable: committable() }
    }

    fn encoded() -> Vec<u8> {
        let mut store = OperatorStateStore::default();
        store.union_list(LIST).unwrap().add(pending());
        codec::encode(&store.snapshot().unwrap()).unwrap()
    }

    /// These bytes are in every checkpoint of a sink that delivers exactly once: they must be read for ever.
    #[test]
    fn committables_in_checkpoints_are_frozen() {
        let golden = include_bytes!("golden/committables-v1.bin");
        assert_eq!(encoded(), golden);
        let lists: Vec<OperatorListSnapshot> = codec::decode(golden).unwrap();
        let mut store = OperatorStateStore::restored(lists);
        assert_eq!(store.union_list::<PendingCommittable<KafkaCommittable>>(LIST).unwrap().get(), [pending()]);
    }

    // The fuzz targets lack them: librdkafka does not build beside the sanitizers.
    proptest::proptest! {
        #[test]
        fn damaged_committables_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            flips in proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 1..4),
        ) {
            let _ = codec::decode::<PendingCommittable<KafkaCommittable>>(&bytes);
            let golden = crate::kafka::with_flipped_bits(include_bytes!("golden/committables-v1.bin"), &flips);
            if let Ok(list) = codec::decode::<Vec<OperatorListSnapshot>>(&golden) {
                for item in list.iter().flat_map(|list| &list.items) {
                    let _ = codec::decode::<PendingCommittable<KafkaCommittable>>(item);
                }
            }
        }
    }

    #[test]
    #[ignore = "writes the golden file: only for a new version of the committable"]
    fn write_golden_file() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/sink/golden/committables-v1.bin");
        std::fs::write(file, encoded()).unwrap();
    }
}
