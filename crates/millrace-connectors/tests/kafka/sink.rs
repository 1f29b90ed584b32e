//! The sink: everything arrives, or flush says what did not.

use std::borrow::Cow;

use millrace_connectors::kafka::{KafkaCommittable, KafkaSink, Serializer};
use millrace_core::{
    FunctionResult,
    ids::OperatorUid,
    sink::{DeliveryGuarantee, Sink, SinkWriter, WriterContext},
};
use millrace_testkit::services::{kafka::Isolation, ports::ReservedPort};

use super::*;

fn try_writer<T: millrace_core::Record>(sink: &KafkaSink<T>) -> Result<Box<dyn SinkWriter<T, KafkaCommittable>>> {
    sink.create_writer(&mut WriterContext::new(OperatorUid("sink".into()), 0, 1))
}

fn sink(kafka: &KafkaBroker, topic: &str) -> KafkaSink<String> {
    KafkaSink::strings().bootstrap_servers(kafka.bootstrap()).topic(topic).build().unwrap()
}

fn arrived(kafka: &KafkaBroker, topic: &str) -> Vec<String> {
    let messages = kafka.consume_all(topic, Isolation::ReadCommitted).unwrap();
    messages.iter().map(|message| message.text().to_owned()).collect()
}

#[test]
fn what_was_flushed_has_arrived_in_order() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("sink", 1).unwrap();
    let mut writer = try_writer(&sink(kafka, "sink")).unwrap();
    for batch in texts(0..5000).chunks(700) {
        writer.write(batch.to_vec()).unwrap();
    }
    writer.prepare_commit().unwrap();
    assert_eq!(arrived(kafka, "sink"), texts(0..5000));
    writer.prepare_commit().unwrap();
    writer.write(texts(5000..5001)).unwrap();
    writer.prepare_commit().unwrap();
    assert_eq!(arrived(kafka, "sink").len(), 5001);
}

struct Keyed;

impl Serializer<(String, u32)> for Keyed {
    fn value<'a>(&self, record: &'a (String, u32)) -> FunctionResult<Cow<'a, [u8]>> {
        Ok(Cow::Owned(record.1.to_string().into_bytes()))
    }

    fn key<'a>(&self, record: &'a (String, u32)) -> FunctionResult<Option<Cow<'a, [u8]>>> {
        Ok(Some(Cow::Borrowed(record.0.as_bytes())))
    }
}

#[test]
fn keys_choose_partitions_as_java_clients_do() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("keyed", 4).unwrap();
    let sink = KafkaSink::builder().bootstrap_servers(kafka.bootstrap()).topic("keyed").serializer(Keyed).build();
    let mut writer = try_writer(&sink.unwrap()).unwrap();
    // The hashes in the Java client's own tests, modulo 4: 1173551340, 1357151166, 479470107.
    let expected = [("21", 0), ("foobar", 2), ("abc", 3)];
    writer.write(expected.map(|(key, _)| (key.to_owned(), 7)).to_vec()).unwrap();
    writer.prepare_commit().unwrap();
    let messages = kafka.consume_all("keyed", Isolation::ReadCommitted).unwrap();
    for (key, partition) in expected {
        let message = messages.iter().find(|message| message.key.as_deref() == Some(key.as_bytes())).unwrap();
        assert_eq!((message.partition, message.text()), (partition, "7"), "{key}");
    }
}

#[test]
fn an_unknown_topic_is_named_before_anything_is_written() {
    let kafka = KafkaBroker::shared();
    let error = try_writer(&sink(kafka, "no-such-sink")).err().unwrap();
    assert!(error.message.contains("topic no-such-sink does not exist"), "{error}");
}

#[test]
fn an_unreachable_broker_is_named() {
    let servers = format!("127.0.0.1:{}", ReservedPort::new().release());
    let sink = KafkaSink::strings().bootstrap_servers(&servers).topic("t").build().unwrap();
    let error = try_writer(&sink).err().unwrap();
    assert!(error.retryable && error.message.contains(&servers), "{error:?}");
}

#[test]
fn a_flush_reports_what_was_not_delivered() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("failing", 1).unwrap();
    let sink = KafkaSink::strings().bootstrap_servers(kafka.bootstrap()).topic("failing");
    let sink = sink.property("message.timeout.ms", "4000").build().unwrap();
    let mut writer = try_writer(&sink).unwrap();
    writer.write(texts(0..10)).unwrap();
    writer.prepare_commit().unwrap();
    kafka.kill().unwrap();
    writer.write(texts(10..20)).unwrap();
    let error = writer.prepare_commit().unwrap_err();
    assert!(error.retryable, "{error:?}");
    for part in ["topic failing", "not delivered", &kafka.bootstrap()] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    let start = Instant::now();
    writer.write(texts(20..30)).unwrap();
    drop(writer);
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
}

/// It delivers while nothing fails; its barriers wait for nothing, and it makes no transactions: a marker of one would take
/// an offset.
#[test]
fn without_a_guarantee_all_is_sent_and_nothing_is_waited_for() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("careless", 1).unwrap();
    let sink = KafkaSink::strings().bootstrap_servers(kafka.bootstrap()).topic("careless");
    let sink = sink.delivery_guarantee(DeliveryGuarantee::None).property("message.timeout.ms", "120000");
    let mut writer = try_writer(&sink.build().unwrap()).unwrap();
    for numbers in [0..10, 10..20] {
        writer.write(texts(numbers.clone())).unwrap();
        assert!(writer.prepare_commit().unwrap().is_empty());
        let end = Instant::now() + Duration::from_secs(60);
        while arrived(&kafka, "careless").len() < numbers.end as usize {
            assert!(Instant::now() < end, "{:?} of {numbers:?}", arrived(&kafka, "careless"));
        }
    }
    assert_eq!(arrived(&kafka, "careless"), texts(0..20));
    let messages = kafka.consume_all("careless", Isolation::ReadCommitted).unwrap();
    assert_eq!(messages.iter().map(|message| message.offset).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    kafka.kill().unwrap();
    writer.write(texts(20..30)).unwrap();
    let start = Instant::now();
    assert!(writer.prepare_commit().unwrap().is_empty());
    assert!(start.elapsed() < Duration::from_secs(10), "a barrier waited for {:?}", start.elapsed());
    // The end waits for what is under way.
    kafka.restart().unwrap();
    drop(writer);
    assert_eq!(arrived(&kafka, "careless"), texts(0..30));
}

#[test]
fn a_brokers_restart_is_waited_for() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("patient", 1).unwrap();
    let sink = KafkaSink::strings().bootstrap_servers(kafka.bootstrap()).topic("patient");
    let sink = sink.property("message.timeout.ms", "120000").build().unwrap();
    let mut writer = try_writer(&sink).unwrap();
    writer.write(texts(0..10)).unwrap();
    writer.prepare_commit().unwrap();
    kafka.kill().unwrap();
    writer.write(texts(10..20)).unwrap();
    kafka.restart().unwrap();
    writer.prepare_commit().unwrap();
    assert_eq!(arrived(&kafka, "patient"), texts(0..20));
}
