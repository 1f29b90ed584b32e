//! The keyed count that speed is measured with: strings `key-<n>` are generated, keyed by themselves and counted in a
//! `ValueState`; the results are discarded. The last line is `records=N seconds=S rate=R`.

use std::time::{Duration, Instant};

use clap::Parser;
use millrace::prelude::*;

/// Counts generated keys and says how fast.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many records to generate.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// How many different keys they have.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Where state lives: memory, filesystem, or a registered backend.
    #[arg(long, value_name = "NAME")]
    state_backend: Option<String>,
    /// How many subtasks each operator has.
    #[arg(long, default_value_t = 1)]
    parallelism: u32,
    /// Time between two checkpoints, or `off`.
    #[arg(long, default_value = "off", value_parser = interval)]
    checkpoint_interval: Interval,
    /// Where checkpoints go: file:///… or s3://….
    #[arg(long, value_name = "URI")]
    checkpoint_dir: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Interval {
    Off,
    Every(Duration),
}

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval::Off);
    }
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}: write 1s, or off"))?;
    if duration.is_zero() { Err("0 is no interval: write off".to_string()) } else { Ok(Interval::Every(duration)) }
}

/// Counts the records of its key.
#[derive(Clone, Default)]
struct Count {
    count: ValueState<i64>,
}

impl KeyedFlatMapFunction<String, i64> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, _key: String, out: &mut Collector<i64>) -> FunctionResult {
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        out.collect(count);
        Ok(())
    }
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut env = StreamExecutionEnvironment::new();
    env.set_parallelism(arguments.parallelism);
    if let Interval::Every(interval) = arguments.checkpoint_interval {
        env.enable_checkpointing(interval);
    }
    if let Some(name) = &arguments.state_backend {
        env.configure("state.backend", name);
    }
    if let Some(uri) = &arguments.checkpoint_dir {
        env.configure("state.checkpoints.dir", uri);
    }
    let keys = arguments.keys;
    env.from_source(GeneratorSource::new(move |index| key(mix(index) % keys)).count(arguments.records), "keys")
        .uid("keys")
        .key_by_ref(|key| key)
        .flat_map(Count::default())
        .uid("count")
        .sink_to(DiscardingSink::new())
        .uid("discard");
    let started = Instant::now();
    env.execute("keyed-count")?;
    let seconds = started.elapsed().as_secs_f64();
    println!("records={} seconds={seconds:.3} rate={:.0}", arguments.records, arguments.records as f64 / seconds);
    Ok(())
}

fn key(number: u64) -> String {
    let mut key = String::with_capacity(16);
    key.push_str("key-");
    key.push_str(itoa::Buffer::new().format(number));
    key
}

/// SplitMix64 (Steele, Lea and Flood, 2014): spreads the keys over the records.
fn mix(index: u64) -> u64 {
    let z = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
