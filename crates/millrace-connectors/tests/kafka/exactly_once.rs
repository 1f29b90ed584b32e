//! The sink in transactions: what readers see, whenever a writer dies.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU32, Ordering},
};

use millrace_connectors::kafka::{KafkaCommittable, KafkaSink, KafkaSinkBuilder, MessageHeader, Serializer};
use millrace_core::{
    FunctionResult,
    ids::{Attempt, OperatorUid},
    operator_state::{OperatorListSnapshot, OperatorStateStore},
    sink::{Committer, CommitterContext, DeliveryGuarantee, Sink, SinkWriter, WriterContext},
};
use millrace_testkit::services::kafka::Isolation;

use super::*;

type Writer = Box<dyn SinkWriter<String, KafkaCommittable>>;

fn builder(kafka: &KafkaBroker, topic: &str) -> KafkaSinkBuilder<String> {
    KafkaSink::strings()
        .bootstrap_servers(kafka.bootstrap())
        .topic(topic)
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .transactional_id_prefix(format!("prefix-of-{topic}"))
}

/// A topic with one partition, and a sink to it.
fn sink(kafka: &KafkaBroker, topic: &str) -> KafkaSink<String> {
    kafka.create_topic(topic, 1).unwrap();
    builder(kafka, topic).build().unwrap()
}

/// A start of a subtask, from what a checkpoint held.
struct Start {
    restored: Vec<KafkaCommittable>,
    lists: Vec<OperatorListSnapshot>,
    subtask: u32,
    parallelism: u32,
    attempt: u32,
}

/// Each is a later attempt than those before.
impl Default for Start {
    fn default() -> Self {
        static ATTEMPTS: AtomicU32 = AtomicU32::new(1);
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        Self { restored: vec![], lists: vec![], subtask: 0, parallelism: 1, attempt }
    }
}

impl Start {
    fn restored(committables: &[KafkaCommittable]) -> Self {
        Self { restored: committables.to_vec(), ..Self::default() }
    }

    fn writer(self, sink: &KafkaSink<String>) -> Writer {
        self.with_state(sink).0
    }

    fn with_state(self, sink: &KafkaSink<String>) -> (Writer, Vec<OperatorListSnapshot>) {
        let mut context = WriterContext::new(OperatorUid("uid".into()), self.subtask, self.parallelism);
        context.operator_state = OperatorStateStore::restored(self.lists);
        context.restored = self.restored;
        context.attempt.attempt = Attempt(self.attempt);
        let writer = sink.create_writer(&mut context).unwrap();
        (writer, context.operator_state.snapshot().unwrap())
    }
}

fn committer(sink: &KafkaSink<String>) -> Box<dyn Committer<KafkaCommittable>> {
    let context = CommitterContext { uid: OperatorUid("uid".into()), subtask: 0, parallelism: 1 };
    sink.create_committer(&context).unwrap()
}

/// A process that dies does not clean up.
fn die(writer: Writer) {
    std::mem::forget(writer);
}

fn committed(kafka: &KafkaBroker, topic: &str) -> Vec<String> {
    let messages = kafka.consume_all(topic, Isolation::ReadCommitted).unwrap();
    messages.iter().map(|message| message.text().to_owned()).collect()
}

/// Nothing that is open stands between a reader and the end of the topic.
fn has_no_open_transaction(kafka: &KafkaBroker, topic: &str) -> bool {
    let mut marker = kafka.follow(topic, Isolation::ReadCommitted).unwrap();
    kafka.produce::<String, _>(topic, [(None, "marker")]).unwrap();
    let give_up = Instant::now() + Duration::from_secs(20);
    while Instant::now() < give_up {
        if marker.read_on(Duration::from_millis(100)).unwrap().iter().any(|message| message.text() == "marker") {
            return true;
        }
    }
    false
}

#[test]
fn records_are_seen_when_they_are_committed_and_not_before() {
    let kafka = KafkaBroker::shared();
    let sink = sink(kafka, "transactions-of-checkpoints");
    let (mut writer, mut committer) = (Start::default().writer(&sink), committer(&sink));
    for checkpoint in 0..5 {
        writer.write(texts(checkpoint * 10..checkpoint * 10 + 10)).unwrap();
        let committables = writer.prepare_commit().unwrap();
        assert_eq!(committables.len(), 1);
        assert_eq!(committed(kafka, "transactions-of-checkpoints"), texts(0..checkpoint * 10));
        committer.commit(&committables).unwrap();
        eventually("it is committed", || {
            committed(kafka, "transactions-of-checkpoints") == texts(0..checkpoint * 10 + 10)
        });
        committer.commit(&committables).unwrap();
        assert!(writer.prepare_commit().unwrap().is_empty(), "a checkpoint without records has no transaction");
    }
}

#[test]
fn what_was_prepared_is_committed_whatever_became_of_its_writer() {
    let kafka = KafkaBroker::shared();
    for (topic, end) in [("dropped", drop as fn(Writer)), ("died", die)] {
        let sink = sink(kafka, topic);
        let mut writer = Start::default().writer(&sink);
        writer.write(texts(0..100)).unwrap();
        let committables = writer.prepare_commit().unwrap();
        writer.write(texts(900..1000)).unwrap();
        end(writer);
        // Two starts that commit and die before a checkpoint of their own, and one that gets there.
        for _ in 0..2 {
            committer(&sink).commit(&committables).unwrap();
            let mut again = Start::restored(&committables).writer(&sink);
            again.write(texts(800..900)).unwrap();
            die(again);
        }
        committer(&sink).commit(&committables).unwrap();
        let mut writer = Start::restored(&committables).writer(&sink);
        writer.write(texts(100..200)).unwrap();
        let next = writer.prepare_commit().unwrap();
        committer(&sink).commit(&next).unwrap();
        assert!(has_no_open_transaction(kafka, topic), "{topic}");
        let expected: Vec<_> = texts(0..200).into_iter().chain(["marker".to_string()]).collect();
        assert_eq!(committed(kafka, topic), expected, "{topic}");
    }
}

/// Another subtask may be the one to commit it, and later.
#[test]
fn a_start_leaves_alone_what_its_checkpoint_holds() {
    let kafka = KafkaBroker::shared();
    let sink = sink(kafka, "left-alone");
    let mut writer = Start::default().writer(&sink);
    let mut committables = Vec::new();
    for part in 0..3 {
        writer.write(texts(part * 10..part * 10 + 10)).unwrap();
        committables.extend(writer.prepare_commit().unwrap());
    }
    die(writer);
    let mut writer = Start::restored(&committables).writer(&sink);
    writer.write(texts(30..40)).unwrap();
    committables.extend(writer.prepare_commit().unwrap());
    committer(&sink).commit(&committables).unwrap();
    eventually("all is committed", || committed(kafka, "left-alone") == texts(0..40));
}

#[test]
fn what_dead_starts_left_open_is_aborted_also_of_subtasks_and_prefixes_that_are_no_more() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("orphans", 1).unwrap();
    let old = builder(kafka, "orphans").transactional_id_prefix("old").build().unwrap();
    let mut lists = Vec::new();
    for subtask in 0..3 {
        let (mut writer, state) = Start { subtask, parallelism: 3, ..Start::default() }.with_state(&old);
        writer.write(texts(0..10)).unwrap();
        // In the topic, and nobody will ever commit it.
        writer.prepare_commit().unwrap();
        die(writer);
        lists = state;
    }
    let new = builder(kafka, "orphans").transactional_id_prefix("new").build().unwrap();
    let mut writer = Start { lists, ..Start::default() }.writer(&new);
    assert!(has_no_open_transaction(kafka, "orphans"));
    writer.write(texts(7..8)).unwrap();
    committer(&new).commit(&writer.prepare_commit().unwrap()).unwrap();
    eventually("it is committed", || committed(kafka, "orphans") == ["marker", "value-7"]);
}

/// A taskmanager that was given up goes on: what its successor has prepared is in a checkpoint, and must not be aborted.
#[test]
fn a_zombie_takes_nothing_from_its_successor() {
    let kafka = KafkaBroker::shared();
    let sink = sink(kafka, "zombies");
    let sleeping = Start::default();
    let mut zombie = Start::default().writer(&sink);
    zombie.write(texts(0..10)).unwrap();
    let mut committables = zombie.prepare_commit().unwrap();
    let mut successor = Start::restored(&committables).writer(&sink);
    for part in 1..4 {
        successor.write(texts(part * 10..part * 10 + 10)).unwrap();
        committables.extend(successor.prepare_commit().unwrap());
    }
    // One begins its next transaction and the one after it; another one was still about to start.
    let _ = zombie.write(texts(900..910)).and_then(|()| zombie.prepare_commit().map(drop));
    let mut started_late = sleeping.writer(&sink);
    let _ = started_late.write(texts(910..920)).and_then(|()| started_late.prepare_commit().map(drop));
    let written = kafka.consume_all("zombies", Isolation::ReadUncommitted).unwrap();
    assert!(written.iter().any(|message| message.text() == "value-910"), "it has begun a transaction");
    committer(&sink).commit(&committables).unwrap();
    die(zombie);
    die(started_late);
    // What they have left open is aborted while the successor runs.
    assert!(has_no_open_transaction(kafka, "zombies"));
    let expected: Vec<_> = texts(0..40).into_iter().chain(["marker".to_string()]).collect();
    assert_eq!(committed(kafka, "zombies"), expected);
}

#[test]
fn a_writer_that_ends_lets_readers_go_on_at_once() {
    let kafka = KafkaBroker::shared();
    let sink = sink(kafka, "ended");
    let mut writer = Start::default().writer(&sink);
    writer.write(texts(0..10)).unwrap();
    drop(writer);
    assert!(has_no_open_transaction(kafka, "ended"));
    assert_eq!(committed(kafka, "ended"), ["marker"]);
}

#[test]
fn settled_transactions_give_their_ids_back() {
    let kafka = KafkaBroker::shared();
    let sink = sink(kafka, "settled");
    let (mut writer, mut committer) = (Start::default().writer(&sink), committer(&sink));
    let mut ids = BTreeSet::new();
    for part in 0..12 {
        writer.write(texts(part..part + 1)).unwrap();
        let committables = writer.prepare_commit().unwrap();
        committer.commit(&committables).unwrap();
        writer.settled(&committables).unwrap();
        ids.extend(committables.into_iter().map(|committable| committable.transactional_id));
    }
    assert!(ids.len() <= 5, "one is open, and four are begun ahead at most: {ids:?}");
    eventually("all is committed", || committed(kafka, "settled") == texts(0..12));
    let held: Vec<_> = (12..15)
        .flat_map(|part| {
            writer.write(texts(part..part + 1)).unwrap();
            writer.prepare_commit().unwrap()
        })
        .map(|committable| committable.transactional_id)
        .collect();
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), 3, "each that is not settled has its own: {held:?}");
}

#[test]
fn a_transaction_that_kafka_has_aborted_is_lost_and_says_so() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("timed-out", 1).unwrap();
    let sink = builder(kafka, "timed-out").property("message.timeout.ms", "1000");
    let sink = sink.property("transaction.timeout.ms", "1000").build().unwrap();
    let mut writer = Start::default().writer(&sink);
    writer.write(texts(0..10)).unwrap();
    let committables = writer.prepare_commit().unwrap();
    eventually("the broker aborts it", || has_no_open_transaction(kafka, "timed-out"));
    let error = committer(&sink).commit(&committables).unwrap_err();
    assert!(!error.retryable, "{error:?}");
    for part in ["prefix-of-timed-out-uid-0-0-", "CompleteAbort", "transaction.timeout.ms"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_longer_timeout_than_the_broker_allows_is_refused_with_both() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("too-long", 1).unwrap();
    let sink = builder(kafka, "too-long").property("transaction.timeout.ms", "3600000").build().unwrap();
    let error = sink.create_writer(&mut WriterContext::new(OperatorUid("uid".into()), 0, 1)).err().unwrap();
    for part in ["3600000", "900000", "transaction.max.timeout.ms"] {
        assert!(!error.retryable && error.message.contains(part), "{error:?}");
    }
}

#[test]
fn a_brokers_restart_between_the_phases_loses_nothing() {
    let mut kafka = KafkaBroker::start().unwrap();
    let sink = sink(&kafka, "restarted");
    let (mut writer, mut committer) = (Start::default().writer(&sink), committer(&sink));
    writer.write(texts(0..10)).unwrap();
    let committables = writer.prepare_commit().unwrap();
    kafka.kill().unwrap();
    let error = committer.commit(&committables).unwrap_err();
    assert!(error.retryable && error.message.contains(&kafka.bootstrap()), "{error:?}");
    kafka.restart().unwrap();
    committer.commit(&committables).unwrap();
    eventually("it is committed", || committed(&kafka, "restarted") == texts(0..10));
}

struct Orders;

impl Serializer<u32> for Orders {
    fn value<'a>(&self, order: &'a u32) -> FunctionResult<Cow<'a, [u8]>> {
        Ok(Cow::Owned(format!("order {order}").into_bytes()))
    }

    fn key<'a>(&self, order: &'a u32) -> FunctionResult<Option<Cow<'a, [u8]>>> {
        Ok(Some(Cow::Owned(order.to_string().into_bytes())))
    }

    fn headers<'a>(&self, order: &'a u32) -> FunctionResult<Vec<MessageHeader<'a>>> {
        Ok(vec![("kind".into(), Some(b"order"[..].into())), (format!("n{order}").into(), None)])
    }

    fn timestamp(&self, order: &u32) -> FunctionResult<Option<i64>> {
        Ok(Some(1_000_000 + i64::from(*order)))
    }
}

#[test]
fn a_record_chooses_its_topic_partition_key_headers_and_timestamp() {
    use rdkafka::{Message as _, consumer::Consumer as _, message::Headers as _};
    let kafka = KafkaBroker::shared();
    kafka.create_topic("orders-even", 3).unwrap();
    kafka.create_topic("orders-odd", 3).unwrap();
    let sink = KafkaSink::builder()
        .bootstrap_servers(kafka.bootstrap())
        .topic_selector(|order| if order % 2 == 0 { "orders-even".into() } else { "orders-odd".into() })
        .partitioner(|order, partitions| (*order as i32 / 10) % partitions)
        .serializer(Orders)
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .transactional_id_prefix("orders")
        .build()
        .unwrap();
    let mut context = WriterContext::new(OperatorUid("orders".into()), 0, 1);
    let mut writer = sink.create_writer(&mut context).unwrap();
    writer.write(vec![10, 21]).unwrap();
    let committables = writer.prepare_commit().unwrap();
    let context = CommitterContext { uid: OperatorUid("orders".into()), subtask: 0, parallelism: 1 };
    sink.create_committer(&context).unwrap().commit(&committables).unwrap();
    for (topic, partition, order) in [("orders-even", 1, 10), ("orders-odd", 2, 21)] {
        let consumer: rdkafka::consumer::BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", "orders")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let mut assignment = rdkafka::TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let message = consumer.poll(LIMIT).unwrap().unwrap().detach();
        assert_eq!(message.key(), Some(order.to_string().as_bytes()));
        assert_eq!(message.payload(), Some(format!("order {order}").as_bytes()));
        assert_eq!(message.timestamp().to_millis(), Some(1_000_000 + order));
        let headers = message.headers().unwrap();
        assert_eq!((headers.get(0).key, headers.get(0).value), ("kind", Some(&b"order"[..])));
        assert_eq!((headers.get(1).key, headers.get(1).value), (&*format!("n{order}"), None));
    }
    let wrong = KafkaSink::builder()
        .bootstrap_servers(kafka.bootstrap())
        .topic("orders-odd")
        .partitioner(|_, partitions| partitions)
        .serializer(Orders)
        .build()
        .unwrap();
    let mut writer = wrong.create_writer(&mut WriterContext::new(OperatorUid("wrong".into()), 0, 1)).unwrap();
    let error = writer.write(vec![1]).unwrap_err();
    assert!(error.message.contains("partition 3 of topic orders-odd"), "{error}");
}
