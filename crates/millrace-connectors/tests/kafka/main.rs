//! The Kafka source and sink against a real broker.

mod conformance;
mod exactly_once;
mod sink;
mod source;
mod source_failures;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use millrace_connectors::kafka::{KafkaSource, KafkaSourceBuilder, KafkaSplit};
use millrace_core::{
    Error, Result,
    ids::CheckpointId,
    source::{Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader, SourceSplit},
};
use millrace_testkit::services::kafka::KafkaBroker;

/// Longer than anything here takes, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_millis(50);

type Reader = Box<dyn SourceReader<String, KafkaSplit>>;

fn values(range: std::ops::Range<u32>) -> impl Iterator<Item = (Option<String>, String)> {
    range.map(|number| (Some(format!("key-{number}")), format!("value-{number}")))
}

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("value-{number}")).collect()
}

fn builder(kafka: &KafkaBroker, topic: &str) -> KafkaSourceBuilder<String> {
    KafkaSource::strings().bootstrap_servers(kafka.bootstrap()).topics([topic]).group_id(format!("group-of-{topic}"))
}

fn discover(source: &KafkaSource<String>, known: &[KafkaSplit], discovery: Discovery) -> Result<Vec<KafkaSplit>> {
    let known: BTreeSet<_> = known.iter().map(SourceSplit::split_id).collect();
    source.create_enumerator(&EnumeratorContext { parallelism: 1 })?.discover(&known, discovery)
}

fn initial(source: &KafkaSource<String>) -> Vec<KafkaSplit> {
    discover(source, &[], Discovery::Initial).unwrap()
}

fn reader(source: &KafkaSource<String>, splits: Vec<KafkaSplit>) -> Reader {
    let mut context = ReaderContext { subtask: 0, parallelism: 1, operator_state: Default::default() };
    let mut reader = source.create_reader(&mut context).unwrap();
    reader.add_splits(splits).unwrap();
    reader
}

/// Reads until there are so many records.
fn read(reader: &mut Reader, count: usize) -> Vec<String> {
    let (mut out, give_up) = (Vec::new(), Instant::now() + LIMIT);
    while out.len() < count {
        assert!(Instant::now() < give_up, "{} of {count} records", out.len());
        reader.read(count - out.len(), WAIT, &mut out).unwrap();
    }
    out
}

fn read_sorted(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut out = read(reader, count);
    out.sort_by_key(|text| text.split('-').next_back().and_then(|number| number.parse::<u32>().ok()));
    out
}

/// Reads until an error.
fn read_error(reader: &mut Reader) -> Error {
    let give_up = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < give_up, "no error");
        if let Err(error) = reader.read(100, WAIT, &mut Vec::new()) {
            return error;
        }
    }
}

/// Reads a bounded source to its end.
fn read_all(source: &KafkaSource<String>) -> Vec<String> {
    let mut reader = reader(source, initial(source));
    reader.no_more_splits();
    let (mut out, give_up) = (Vec::new(), Instant::now() + LIMIT);
    while reader.read(1000, WAIT, &mut out).unwrap() != ReadStatus::Finished {
        assert!(Instant::now() < give_up, "no end after {} records", out.len());
    }
    out.sort_by_key(|text| text.split('-').next_back().and_then(|number| number.parse::<u32>().ok()));
    out
}

fn snapshot(reader: &mut Reader, checkpoint: u64) -> Vec<KafkaSplit> {
    reader.snapshot(CheckpointId(checkpoint)).unwrap()
}

/// Waits until a condition holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < give_up, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
