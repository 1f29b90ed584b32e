//! From Kafka to Kafka: JSON is read, counted by key on the heap, and written as JSON, exactly once with a checkpoint (or
//! a transaction) each second. `bin/bench_job/kafka_count.rs`, `bin/bench_job/bare_clients.rs` and Flink's
//! `KafkaCount.java` do the same.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    Arguments,
    case::{Case, Row},
    comparison::Comparison,
    contender::{FlinkJob, MillraceJob, Running},
    kafka::{Input, Topics, first_difference},
    pipeline::mix,
};

const KEYS: u64 = 1_000_000;
/// More records a second than any contender reads.
const PER_SECOND: u64 = 1_500_000;
const CHECKPOINT: &str = "1s";
/// The ratio to Flink has no goal.
const FLINK_RUNS: u32 = 1;

struct KafkaToKafka;

/// The only cell.
pub fn cases() -> Vec<Box<dyn Case>> {
    vec![Box::new(KafkaToKafka)]
}

/// Whether a job ends with the records that are there when it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    TheEnd,
    Ended,
}

impl Case for KafkaToKafka {
    fn name(&self) -> String {
        format!("kafka-to-kafka keys={KEYS} parallelism=1 checkpoint={CHECKPOINT}")
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let input = Input::new(arguments, PER_SECOND, (0..).map(record))?;
        check(arguments, &input)?;
        let (mut measured, mut bare) = (Comparison::default(), Vec::new());
        for run in 0..arguments.runs {
            measured.millrace.push(input.measure(arguments, |topics| millrace(topics, Until::Ended))?);
            bare.push(input.measure(arguments, |topics| bare_clients(topics, Until::Ended))?.rate);
            if let Some(home) = arguments.flink.as_ref().filter(|_| run < FLINK_RUNS) {
                measured.flink.push(input.measure(arguments, |topics| flink(home, topics, Until::Ended))?);
            }
        }
        measured.by_hand = bare;
        Ok(measured.row(self.name()))
    }
}

/// All must write the same.
fn check(arguments: &Arguments, input: &Input) -> Result<()> {
    let ours = input.check(|topics| millrace(topics, Until::TheEnd))?;
    let bare = input.check(|topics| bare_clients(topics, Until::TheEnd))?;
    ensure!(ours == bare, "Millrace writes {}", first_difference(&ours, &bare));
    if let Some(home) = &arguments.flink {
        let flink = input.check(|topics| flink(home, topics, Until::TheEnd))?;
        ensure!(ours == flink, "beside Flink, Millrace writes {}", first_difference(&ours, &flink));
    }
    Ok(())
}

/// A record: about a hundred bytes, three fields, of which the job needs one.
fn record(number: u64) -> String {
    let mixed = mix(number);
    format!(r#"{{"key":"key-{}","number":{number},"text":"{mixed:016x}{:016x}"}}"#, mixed % KEYS, mix(mixed))
}

fn millrace(topics: &Topics, until: Until) -> Result<Running> {
    let job = MillraceJob::new("bench_job")?.args(["kafka-count"]).args(topics.arguments()).state("heap", CHECKPOINT);
    let job = if until == Until::TheEnd { job.args(["--bounded"]) } else { job };
    job.start(topics.written())
}

fn bare_clients(topics: &Topics, until: Until) -> Result<Running> {
    let job = MillraceJob::new("bench_job")?.args(["bare-clients"]).args(topics.arguments());
    let job = if until == Until::TheEnd { job.args(["--bounded"]) } else { job };
    job.start(topics.written())
}

fn flink(home: &Path, topics: &Topics, until: Until) -> Result<Running> {
    let job = FlinkJob::new(home, "KafkaCount")?
        .args(topics.arguments())
        .args(["--parallelism", "1", "--bounded", if until == Until::TheEnd { "true" } else { "false" }])
        .state("heap", CHECKPOINT);
    job.start(topics.written())
}
