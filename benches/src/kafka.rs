//! A broker with records that every contender reads from the beginning.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use millrace_testkit::services::kafka::{Isolation, KafkaBroker, KafkaClient};

use crate::{
    Arguments,
    contender::{Counter, Running},
    measure::{Measurement, Watched, watch},
};

/// So many records are read, by all, when their results are compared.
pub const CHECKED: u64 = 200_000;

const TOPIC: &str = "records";
const CHECKED_TOPIC: &str = "first-records";

/// A broker with two topics of the same records: many, and the first of them. One partition each, so that there is
/// only one order.
pub struct Input {
    broker: KafkaBroker,
    records: u64,
    outputs: Cell<u32>,
}

/// What a contender is told.
#[derive(Clone, Debug)]
pub struct Topics {
    /// The broker.
    pub kafka: KafkaClient,
    /// Where to read.
    pub input: &'static str,
    /// Where to write: a topic of its own.
    pub output: String,
}

impl Topics {
    /// As arguments.
    pub fn arguments(&self) -> [String; 6] {
        let [kafka, input, output] = ["--kafka", "--input", "--output"].map(str::to_owned);
        [kafka, self.kafka.bootstrap(), input, self.input.to_owned(), output, self.output.clone()]
    }

    /// The messages that the job has written.
    pub fn written(&self) -> Counter {
        Counter::Topic(self.kafka.clone(), self.output.clone())
    }
}

impl Input {
    /// Starts the broker and writes records: `per_second`, which is more than any contender reads, for each second of a
    /// measurement.
    pub fn new(arguments: &Arguments, per_second: u64, mut records: impl Iterator<Item = String>) -> Result<Self> {
        let broker = KafkaBroker::start()?;
        let wanted = (per_second * (arguments.warm_up + arguments.time).as_secs()).max(CHECKED);
        let first: Vec<_> = records.by_ref().take(CHECKED as usize).collect();
        let more = records.take((wanted - CHECKED) as usize);
        for topic in [CHECKED_TOPIC, TOPIC] {
            broker.create_topic(topic, 1)?;
        }
        broker.produce_to(CHECKED_TOPIC, 0, &first)?;
        broker.produce_to(TOPIC, 0, first.into_iter().chain(more))?;
        Ok(Self { broker, records: wanted, outputs: Cell::new(0) })
    }

    fn topics(&self, input: &'static str) -> Result<Topics> {
        self.outputs.set(self.outputs.get() + 1);
        let output = format!("output-{}", self.outputs.get());
        self.broker.create_topic(&output, 1)?;
        Ok(Topics { kafka: self.broker.client(), input, output })
    }

    /// What a job that is told to end makes of the first records: the committed messages.
    pub fn check(&self, start: impl FnOnce(&Topics) -> Result<Running>) -> Result<Vec<String>> {
        let topics = self.topics(CHECKED_TOPIC)?;
        start(&topics)?.finish()?;
        let messages = self.broker.consume_all(&topics.output, Isolation::ReadCommitted)?;
        messages.into_iter().map(|message| Ok(String::from_utf8(message.value)?)).collect()
    }

    /// Measures a job that reads without an end.
    pub fn measure(
        &self,
        arguments: &Arguments,
        start: impl FnOnce(&Topics) -> Result<Running>,
    ) -> Result<Measurement> {
        let topics = self.topics(TOPIC)?;
        let mut job = start(&topics)?;
        let measured = watch(&mut job, arguments.warm_up, arguments.time)?;
        let left = self.records.saturating_sub(job.records()?);
        ensure!(left > 0, "all {} records were read before the measurement was over\n{}", self.records, job.log());
        drop(job);
        self.broker.delete_topic(&topics.output).context("deleting what was written")?;
        Ok(measured)
    }
}

/// Where two lists of messages begin to differ.
pub fn first_difference(ours: &[String], theirs: &[String]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let (mine, other) = (ours.get(at), theirs.get(at));
    format!("{} messages, not {}; number {at} is {mine:?}, not {other:?}", ours.len(), theirs.len())
}
