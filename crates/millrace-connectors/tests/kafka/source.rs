//! What the source reads, and where it goes on.

use millrace_connectors::kafka::{KafkaMessage, OffsetReset, StartingOffsets};
use millrace_core::source::Boundedness;
use rdkafka::{
    config::ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::*;

#[test]
fn latest_is_resolved_once_and_reads_what_comes_after() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("latest", 3).unwrap();
    kafka.produce("latest", values(0..100)).unwrap();
    let source = builder(kafka, "latest").build().unwrap();
    let splits = initial(&source);
    assert_eq!(splits.iter().map(|split| split.offset).sum::<i64>(), 100);
    assert!(splits.iter().all(|split| split.offset >= 0 && split.stop.is_none()), "{splits:?}");
    // What comes between the resolution and the first read is read.
    kafka.produce("latest", values(100..200)).unwrap();
    assert_eq!(read_sorted(&mut reader(&source, splits), 100), texts(100..200));
}

#[test]
fn earliest_reads_everything() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("earliest", 3).unwrap();
    kafka.produce("earliest", values(0..100)).unwrap();
    let source = builder(kafka, "earliest").starting_offsets(StartingOffsets::Earliest).build().unwrap();
    let mut reader = reader(&source, initial(&source));
    assert_eq!(read_sorted(&mut reader, 100), texts(0..100));
    kafka.produce("earliest", values(100..110)).unwrap();
    assert_eq!(read_sorted(&mut reader, 10), texts(100..110));
}

#[test]
fn a_timestamp_begins_at_the_first_message_of_that_time_or_behind_the_last() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("timestamp", 2).unwrap();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    for (partition, timestamp) in [(0, 1000), (0, 2000), (0, 3000), (1, 1000)] {
        let record = BaseRecord::<(), str>::to("timestamp").partition(partition).timestamp(timestamp).payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
    let source = builder(kafka, "timestamp").starting_offsets(StartingOffsets::Timestamp(1500)).build().unwrap();
    assert_eq!(initial(&source).iter().map(|split| split.offset).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_reader_goes_on_from_every_kind_of_snapshot() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("restart", 1).unwrap();
    kafka.produce("restart", values(0..30)).unwrap();
    let source = builder(kafka, "restart").starting_offsets(StartingOffsets::Earliest).build().unwrap();
    for position in [0, 1, 7, 30] {
        let mut first = reader(&source, initial(&source));
        let mut out = read(&mut first, position);
        let splits = snapshot(&mut first, 1);
        // What the first reader has read beyond its snapshot is read again.
        read(&mut first, (30 - position).min(5));
        drop(first);
        out.extend(read(&mut reader(&source, splits), 30 - position));
        assert_eq!(out, texts(0..30), "stopped after {position}");
    }
}

#[test]
fn positions_name_partition_and_offsets() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("position", 1).unwrap();
    kafka.produce("position", values(0..10)).unwrap();
    let source = builder(kafka, "position").starting_offsets(StartingOffsets::Earliest).build().unwrap();
    let mut reader = reader(&source, initial(&source));
    read(&mut reader, 10);
    assert!(
        reader.position().starts_with("position-0@") && reader.position().ends_with("..10"),
        "{}",
        reader.position()
    );
}

#[test]
fn offsets_are_committed_for_completed_checkpoints_only_and_exactly_theirs() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("committed", 1).unwrap();
    kafka.produce("committed", values(0..30)).unwrap();
    let committed = || kafka.committed_offsets("group-of-committed", "committed").unwrap();
    let source = builder(kafka, "committed").starting_offsets(StartingOffsets::Earliest).build().unwrap();
    let mut reader = reader(&source, initial(&source));
    for (checkpoint, count) in [(1, 5), (2, 5), (3, 10)] {
        read(&mut reader, count);
        snapshot(&mut reader, checkpoint);
    }
    read(&mut reader, 5);
    assert!(committed().is_empty(), "committed before any checkpoint was complete");

    reader.notify_checkpoint_complete(CheckpointId(2)).unwrap();
    eventually("checkpoint 2 is committed", || committed().get(&0) == Some(&10));
    // One that was never taken here, or is complete a second time, changes nothing; 3 comes after them.
    for checkpoint in [1, 2, 3] {
        reader.notify_checkpoint_complete(CheckpointId(checkpoint)).unwrap();
    }
    // Dropped at once: what was asked for is still done.
    drop(reader);
    assert_eq!(committed()[&0], 20);

    let behind = StartingOffsets::Committed(OffsetReset::Latest);
    let source = builder(kafka, "committed").starting_offsets(behind).build().unwrap();
    assert_eq!(initial(&source)[0].offset, 20);
}

#[test]
fn where_nothing_was_committed_the_reset_decides() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("uncommitted", 1).unwrap();
    kafka.produce("uncommitted", values(0..10)).unwrap();
    for (reset, offset) in [(OffsetReset::Earliest, 0), (OffsetReset::Latest, 10)] {
        let start = StartingOffsets::Committed(reset);
        let source = builder(kafka, "uncommitted").starting_offsets(start).build().unwrap();
        assert_eq!(initial(&source)[0].offset, offset);
    }
}

#[test]
fn without_a_group_records_are_read_and_nothing_is_committed() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("no-group", 1).unwrap();
    kafka.produce("no-group", values(0..10)).unwrap();
    let source = KafkaSource::strings()
        .bootstrap_servers(kafka.bootstrap())
        .topics(["no-group"])
        .starting_offsets(StartingOffsets::Earliest)
        .build()
        .unwrap();
    let mut reader = reader(&source, initial(&source));
    assert_eq!(read(&mut reader, 10), texts(0..10));
    snapshot(&mut reader, 1);
    reader.notify_checkpoint_complete(CheckpointId(1)).unwrap();
    drop(reader);
    assert!(kafka.committed_offsets("millrace", "no-group").unwrap().is_empty());
}

#[test]
fn new_partitions_are_found_and_read_from_their_beginning_by_a_running_reader() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("growing", 1).unwrap();
    kafka.produce("growing", values(0..10)).unwrap();
    let source = builder(kafka, "growing").build().unwrap();
    let known = initial(&source);
    let mut reader = reader(&source, known.clone());
    kafka.grow_topic("growing", 3).unwrap();
    kafka.produce("growing", values(10..110)).unwrap();
    assert!(*kafka.end_offsets("growing").unwrap().get(&1).unwrap() > 0, "nothing in a new partition");

    let mut new = Vec::new();
    eventually("new partitions are found", || {
        new = discover(&source, &known, Discovery::Later).unwrap();
        new.len() == 2
    });
    assert!(new.iter().all(|split| split.offset == 0), "{new:?}");
    reader.add_splits(new).unwrap();
    assert_eq!(read_sorted(&mut reader, 100), texts(10..110));
    assert_eq!(snapshot(&mut reader, 1).len(), 3);
}

#[test]
fn bounded_reads_to_the_end_found_at_the_start() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("bounded", 3).unwrap();
    kafka.produce("bounded", values(0..1000)).unwrap();
    let source = builder(kafka, "bounded").starting_offsets(StartingOffsets::Earliest).bounded().build().unwrap();
    assert_eq!(source.boundedness(), Boundedness::Bounded);
    let splits = initial(&source);
    kafka.produce("bounded", values(1000..2000)).unwrap();
    assert_eq!(discover(&source, &[], Discovery::Later).unwrap(), []);

    let mut reader = reader(&source, splits);
    reader.no_more_splits();
    let mut out = Vec::new();
    while reader.read(100, WAIT, &mut out).unwrap() != ReadStatus::Finished {}
    assert_eq!(out.len(), 1000);
    out.sort_by_key(|text| text.trim_start_matches("value-").parse::<u32>().unwrap());
    assert_eq!(out, texts(0..1000));

    // Restored at its end it ends again, with nothing read.
    let splits = snapshot(&mut reader, 1);
    let mut restored = super::reader(&source, splits);
    restored.no_more_splits();
    assert_eq!(restored.read(100, WAIT, &mut out).unwrap(), ReadStatus::Finished);
    assert_eq!(out.len(), 1000);
}

#[test]
fn a_bounded_source_of_an_empty_topic_ends_at_once() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("empty", 2).unwrap();
    let source = builder(kafka, "empty").starting_offsets(StartingOffsets::Earliest).bounded().build().unwrap();
    assert_eq!(read_all(&source), [""; 0]);
}

#[test]
fn a_bounded_source_ends_behind_transactions_and_shows_no_aborted_message() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("transactions", 1).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "connectors")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    for (value, commit) in [("value-0", true), ("value-1", false)] {
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<(), str>::to("transactions").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
        if commit { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) }.unwrap();
    }
    // The partition now ends with an aborted message and a mark, which no reader ever gets.
    let source = builder(kafka, "transactions").starting_offsets(StartingOffsets::Earliest).bounded().build().unwrap();
    assert_eq!(read_all(&source), ["value-0"]);
}

#[test]
fn a_deserializer_sees_the_whole_message_and_may_leave_it_out() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("whole", 1).unwrap();
    kafka.produce("whole", values(0..4)).unwrap();
    let source = KafkaSource::<String>::builder()
        .bootstrap_servers(kafka.bootstrap())
        .topics(["whole"])
        .starting_offsets(StartingOffsets::Earliest)
        .deserializer(|message: &KafkaMessage<'_>| {
            let key = std::str::from_utf8(message.key.unwrap_or_default())?;
            let text = format!("{}-{}@{} {key}", message.topic, message.partition, message.offset);
            Ok((message.offset % 2 == 1 && message.timestamp.is_some()).then_some(text))
        })
        .bounded()
        .build()
        .unwrap();
    assert_eq!(read_all(&source), ["whole-0@1 key-1", "whole-0@3 key-3"]);
}

#[test]
fn several_topics_are_read() {
    let kafka = KafkaBroker::shared();
    for (topic, range) in [("several-a", 0..10), ("several-b", 10..20)] {
        kafka.create_topic(topic, 2).unwrap();
        kafka.produce(topic, values(range)).unwrap();
    }
    let source =
        builder(kafka, "several-a").topics(["several-b"]).starting_offsets(StartingOffsets::Earliest).bounded();
    assert_eq!(read_all(&source.build().unwrap()), texts(0..20));
}
