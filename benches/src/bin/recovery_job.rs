//! The job of `bench-recovery`: counts keys from Kafka, each with a payload in its state, and writes the counts of a
//! part of them to Kafka. `benches/flink` has the same for Flink.

use std::process::ExitCode;

use clap::Parser;
use millrace::{connectors::kafka::StartingOffsets, prelude::*};
use millrace_testkit::cluster::exit_code;
use serde::{Deserialize, Serialize};

#[derive(Clone, Parser)]
struct Args {
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    /// Bytes of state for each key, beside its count.
    #[arg(long)]
    payload: usize,
    /// The counts of one in so many keys are written.
    #[arg(long)]
    sample: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counted {
    count: u64,
    /// Read and written as a whole, as Flink does with a `byte[]`.
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
}

#[derive(Clone)]
struct Count {
    payload: usize,
    sample: u64,
    state: ValueState<Counted>,
}

impl KeyedFlatMapFunction<String, String> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.state = context.value_state("counted", Counted::default())?;
        Ok(())
    }

    fn flat_map(&mut self, key: String, out: &mut Collector<String>) -> FunctionResult {
        let size = self.payload;
        let count = self.state.modify(|counted| {
            counted.count += 1;
            if counted.payload.is_empty() {
                counted.payload = payload(&key, size);
            }
            counted.count
        })?;
        if number(&key).is_multiple_of(self.sample) {
            out.collect(format!("{key},{count}"));
        }
        Ok(())
    }
}

/// The number in `key-<number>`.
fn number(key: &str) -> u64 {
    key.strip_prefix("key-").and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Bytes that differ from key to key, and do not compress to nothing.
fn payload(key: &str, size: usize) -> Vec<u8> {
    let mut seed = number(key).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn run(args: &Args) -> Result<(), Error> {
    let env = StreamExecutionEnvironment::new();
    let source = KafkaSource::strings()
        .bootstrap_servers(&args.kafka)
        .topics([&args.input])
        .group_id(&args.output)
        .starting_offsets(StartingOffsets::Earliest)
        .build()?;
    let sink = KafkaSink::strings().bootstrap_servers(&args.kafka).topic(&args.output).build()?;
    env.from_source(source, "records")
        .uid("records")
        .key_by_ref(|key| key)
        .flat_map(Count { payload: args.payload, sample: args.sample, state: ValueState::default() })
        .name("Count")
        .uid("count")
        .sink_to(sink)
        .name("Output")
        .uid("output");
    env.execute("recovery")?;
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}
