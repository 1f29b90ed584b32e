//! What goes wrong, and how the source says so.

use futures::executor::block_on;
use millrace_connectors::{Undecodable, kafka::StartingOffsets};
use millrace_testkit::services::ports::ReservedPort;
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    config::ClientConfig,
};

use super::*;

fn earliest(kafka: &KafkaBroker, topic: &str) -> KafkaSource<String> {
    builder(kafka, topic).starting_offsets(StartingOffsets::Earliest).build().unwrap()
}

#[test]
fn a_restored_offset_outside_the_range_is_an_error_that_names_everything() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("lost", 2).unwrap();
    kafka.produce("lost", values(0..10)).unwrap();
    let source = earliest(kafka, "lost");
    let mut splits = initial(&source);
    splits[1].offset = 1000;
    let mut reader = reader(&source, splits);
    let error = read_error(&mut reader);
    assert!(!error.retryable, "{error:?}");
    let end = kafka.end_offsets("lost").unwrap()[&1];
    for part in ["offset 1000", "partition 1", "topic lost", &format!("0..{end}"), &kafka.bootstrap()] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn an_unknown_topic_is_named_at_the_start_and_is_not_tried_again() {
    let kafka = KafkaBroker::shared();
    let error = discover(&earliest(kafka, "unknown"), &[], Discovery::Initial).unwrap_err();
    assert!(!error.retryable, "{error:?}");
    assert!(error.message.contains("topic unknown does not exist"), "{error}");
    assert!(error.message.contains(&kafka.bootstrap()), "{error}");
    let later = discover(&earliest(kafka, "unknown"), &[], Discovery::Later).unwrap_err();
    assert!(later.retryable, "{later:?}");
    assert!(kafka.end_offsets("unknown").is_err(), "asking for it has created it");
}

/// How discovery fails at an address where no broker is.
fn unreachable(servers: &str) -> Error {
    let source = KafkaSource::strings().bootstrap_servers(servers).topics(["t"]).build().unwrap();
    let start = Instant::now();
    let error = discover(&source, &[], Discovery::Initial).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(12), "took {:?}", start.elapsed());
    assert!(error.retryable, "{error:?}");
    for part in [servers, "topic t"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    error
}

#[test]
fn an_unreachable_broker_is_named_within_ten_seconds() {
    let error = unreachable(&format!("127.0.0.1:{}", ReservedPort::new().release()));
    assert!(error.message.contains("refused"), "{error}");
}

#[test]
fn a_port_that_never_answers_is_named_within_ten_seconds() {
    let silent = ReservedPort::new();
    unreachable(&format!("127.0.0.1:{}", silent.port()));
}

#[test]
fn undecodable_messages_fail_or_are_skipped() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("undecodable", 1).unwrap();
    let messages: [&[u8]; 3] = [b"value-0", b"\xff\xfe", b"value-2"];
    kafka.produce("undecodable", messages.map(|value| (None::<&str>, value))).unwrap();

    let source = earliest(kafka, "undecodable");
    let error = read_error(&mut reader(&source, initial(&source)));
    assert!(!error.retryable && error.message.contains("undecodable-0@1"), "{error:?}");

    let skipping = builder(kafka, "undecodable").on_undecodable(Undecodable::SkipAndCount);
    let source = skipping.starting_offsets(StartingOffsets::Earliest).build().unwrap();
    let mut reader = reader(&source, initial(&source));
    assert_eq!(read(&mut reader, 2), ["value-0", "value-2"]);
    assert_eq!(snapshot(&mut reader, 1)[0].offset, 3);
    let counted = prometheus::gather().into_iter().find(|family| family.name().ends_with("num_records_in_errors"));
    let counted = counted.unwrap();
    let of_source = counted.get_metric().iter().find(|metric| metric.get_label()[0].value() == "kafka undecodable");
    assert_eq!(of_source.unwrap().get_counter().get_value(), 1.0);
}

fn admin(kafka: &KafkaBroker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap()
}

fn delete_topic(kafka: &KafkaBroker, topic: &str) {
    block_on(admin(kafka).delete_topics(&[topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
}

#[test]
fn a_topic_that_is_deleted_under_a_reader_is_an_error() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("deleted", 1).unwrap();
    kafka.produce("deleted", values(0..10)).unwrap();
    let source = earliest(kafka, "deleted");
    let mut reader = reader(&source, initial(&source));
    read(&mut reader, 10);
    delete_topic(kafka, "deleted");
    let error = read_error(&mut reader);
    for part in ["topic deleted", "no longer exists", "offset 10"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_topic_that_is_created_anew_under_a_reader_is_an_error_and_is_not_read_on() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("anew", 1).unwrap();
    kafka.produce("anew", values(0..10)).unwrap();
    let source = earliest(kafka, "anew");
    let mut reader = reader(&source, initial(&source));
    read(&mut reader, 10);
    // The watch has seen the end.
    eventually("the lag is known", || {
        reader.read(1, WAIT, &mut Vec::new()).unwrap();
        reader.pending_records() == Some(0)
    });
    delete_topic(kafka, "anew");
    eventually("the topic is gone", || kafka.create_topic("anew", 1).is_ok());
    kafka.produce("anew", values(0..3)).unwrap();
    let error = read_error(&mut reader);
    assert!(!error.retryable, "{error:?}");
    for part in ["topic anew", "created anew", "without its checkpoint"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_lag_is_what_was_written_and_not_read() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("lag", 2).unwrap();
    kafka.produce("lag", values(0..100)).unwrap();
    let source = earliest(kafka, "lag");
    let mut reader = reader(&source, initial(&source));
    assert_eq!(reader.pending_records(), None, "nobody has told yet");
    let got = read(&mut reader, 30).len() as u64;
    eventually("the lag is known", || reader.pending_records() == Some(100 - got));
    read(&mut reader, 70);
    assert_eq!(reader.pending_records(), Some(0));
}

#[test]
fn a_reader_survives_its_brokers_kill_and_restart() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("survivor", 2).unwrap();
    kafka.produce("survivor", values(0..100)).unwrap();
    let source = earliest(&kafka, "survivor");
    let mut reader = reader(&source, initial(&source));
    assert_eq!(read_sorted(&mut reader, 100), texts(0..100));

    kafka.kill().unwrap();
    // Reading goes on without an error while there is no broker.
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(3) {
        let status = reader.read(100, WAIT, &mut Vec::new()).unwrap();
        assert_eq!(status, ReadStatus::Idle);
    }
    kafka.restart().unwrap();
    kafka.produce("survivor", values(100..200)).unwrap();
    let back = Instant::now();
    assert_eq!(read_sorted(&mut reader, 100), texts(100..200));
    println!("read on {:?} after the broker was back", back.elapsed());
}

#[test]
fn a_reader_can_be_dropped_while_its_broker_is_gone() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("orphan", 1).unwrap();
    kafka.produce("orphan", values(0..10)).unwrap();
    let source = earliest(&kafka, "orphan");
    let mut reader = reader(&source, initial(&source));
    read(&mut reader, 5);
    snapshot(&mut reader, 1);
    kafka.kill().unwrap();
    // With a commit under way, that would be waited for.
    reader.notify_checkpoint_complete(CheckpointId(1)).unwrap();
    let start = Instant::now();
    drop(reader);
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}
