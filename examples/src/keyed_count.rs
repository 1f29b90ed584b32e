//! How fast a keyed count is: strings `key-<n>` are made, a counter for each goes up, and the results are thrown away.
//! The last line is `records=N seconds=S rate=R`, of the job from its start to its end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use millrace::prelude::*;

use crate::interval_or_off;

/// Counts generated keys, as fast as it can.
#[derive(Parser)]
pub struct Args {
    /// How many records.
    #[arg(long, default_value_t = 20_000_000)]
    records: u64,
    /// How many different keys.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// memory, filesystem, or another backend's name [default: as configured].
    #[arg(long, value_name = "NAME")]
    state_backend: Option<String>,
    /// How many subtasks each operator has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,
    /// Time between two checkpoints, such as 1s, or off.
    #[arg(long, value_name = "DURATION|off", default_value = "off", value_parser = interval_or_off, allow_hyphen_values = true)]
    checkpoint_interval: Interval,
    /// Where checkpoints go: file:///..., s3://...
    #[arg(long, value_name = "URI")]
    checkpoint_dir: Option<String>,
    /// What becomes of the results: thrown away, or added up to a number that another engine's job can be compared by.
    #[arg(long, value_enum, default_value_t = To::Discard)]
    sink: To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Discard,
    Checksum,
}

/// Named so that clap takes it for the value itself: `off` is one.
type Interval = std::option::Option<Duration>;

/// splitmix64 (Steele, Lea and Flood, 2014).
fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of a record.
fn key(index: u64, keys: u64) -> String {
    let mut key = String::with_capacity(24);
    key.push_str("key-");
    key.push_str(itoa::Buffer::new().format(mix(index) % keys));
    key
}

/// The sum of all results, in whatever order they come.
static CHECKSUM: AtomicU64 = AtomicU64::new(0);

/// FNV-1a of the key, mixed with the count.
fn checksum(key: &str, count: i64) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mix(key.bytes().fold(0xCBF2_9CE4_8422_2325, fnv).wrapping_add(count as u64))
}

/// Counts the records of each key.
#[derive(Clone, Default)]
struct Count {
    count: ValueState<i64>,
}

impl KeyedFlatMapFunction<String, (String, i64)> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, key: String, out: &mut Collector<(String, i64)>) -> FunctionResult {
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        out.collect((key, count));
        Ok(())
    }
}

/// Runs the job.
pub fn run(args: Args) -> Result<(), Error> {
    let Args { records, keys, state_backend, parallelism, checkpoint_interval, checkpoint_dir, sink } = args;
    let mut env = StreamExecutionEnvironment::new();
    env.set_parallelism(parallelism);
    if let Some(interval) = checkpoint_interval {
        env.enable_checkpointing(interval);
    }
    if let Some(backend) = state_backend {
        env.configure("state.backend", backend);
    }
    if let Some(directory) = checkpoint_dir {
        env.checkpoint_config().set_directory(directory);
    }
    let counts = env
        .from_source(GeneratorSource::new(move |index| key(index, keys)).count(records), "keys")
        .uid("keys")
        .key_by_ref(|key| key)
        .flat_map(Count::default())
        .name("Count")
        .uid("count");
    match sink {
        To::Discard => counts.sink_to(DiscardingSink::new()),
        To::Checksum => counts
            .map(|(key, count)| {
                CHECKSUM.fetch_add(checksum(&key, count), Ordering::Relaxed);
            })
            .uid("checksum")
            .sink_to(DiscardingSink::new()),
    };
    let start = Instant::now();
    env.execute("keyed count")?;
    let seconds = start.elapsed().as_secs_f64();
    if sink == To::Checksum {
        println!("checksum={}", CHECKSUM.load(Ordering::Relaxed));
    }
    println!("records={records} seconds={seconds:.3} rate={:.0}", records as f64 / seconds);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["keyed_count", "--checkpoint-interval", "off", "--records", "5"]);
        assert_eq!((args.checkpoint_interval, args.records), (None, 5));
        let args = Args::parse_from(["keyed_count", "--checkpoint-interval", "1s"]);
        assert_eq!(args.checkpoint_interval, Some(Duration::from_secs(1)));
        for wrong in [["--parallelism", "0"], ["--keys", "0"], ["--checkpoint-interval", "-1s"], ["--records", "-1"]] {
            assert!(Args::try_parse_from(["keyed_count"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn keys_are_those_of_the_measured_limit() {
        let keys: Vec<_> = (0..4).map(|index| key(index, 1_000_000)).collect();
        assert_eq!(keys, ["key-607535", "key-822465", "key-348110", "key-139053"]);
    }
}
