//! How long records take from when they are due to the end of the job: a keyed count at an even rate.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args as ClapArgs;
use millrace::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    count::{Count, Counted},
};

/// The rate, and for how long.
#[derive(ClapArgs, Clone)]
pub struct Args {
    /// Different keys.
    #[arg(long)]
    keys: u64,
    /// Records a second.
    #[arg(long)]
    rate: f64,
    /// How long the job runs before anything is measured.
    #[arg(long, value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How long is measured.
    #[arg(long, value_parser = humantime::parse_duration)]
    time: Duration,
}

/// One in so many records is looked at. Prime, so that it has no rhythm in common with batches.
const SAMPLE: u64 = 61;

/// What times are counted from, in nanoseconds.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// When record 0 was due. The source begins to count when it gets its splits, and no record is made before it is due: so
/// it is the earliest time that any record tells.
static BEGAN: AtomicI64 = AtomicI64::new(i64::MAX);
/// In microseconds.
static SAMPLES: Mutex<Vec<u64>> = Mutex::new(Vec::new());

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    index: u64,
}

impl Counted for Record {
    type Out = (String, i64, u64);

    fn counted(self, count: i64) -> Self::Out {
        (self.key, count, self.index)
    }
}

/// Nanoseconds.
fn now() -> i64 {
    EPOCH.elapsed().as_nanos() as i64
}

/// Nanoseconds from when record 0 is due.
fn due(index: u64, rate: f64) -> i64 {
    (index as f64 / rate * 1e9) as i64
}

fn record(index: u64, keys: u64, rate: f64) -> Record {
    if index.is_multiple_of(SAMPLE) {
        BEGAN.fetch_min(now() - due(index, rate), Ordering::Relaxed);
    }
    // SplitMix64 (Steele, Lea and Flood, 2014).
    let z = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    Record { key: format!("key-{}", (z ^ (z >> 31)) % keys), index }
}

/// Takes a sample at the end of a record's way. Against when it was due, not when it was made: a source that is held up
/// makes records late, and that is latency too.
fn sample(index: u64, rate: f64, first: u64) {
    if index < first || !index.is_multiple_of(SAMPLE) {
        return;
    }
    let late = now() - BEGAN.load(Ordering::Relaxed) - due(index, rate);
    SAMPLES.lock().unwrap_or_else(PoisonError::into_inner).push(late.max(0) as u64 / 1000);
}

/// Runs the job, and prints percentiles in microseconds.
pub fn run(args: &Args) -> Result<()> {
    let env = StreamExecutionEnvironment::new();
    let Args { keys, rate, warm_up, time } = *args;
    let first = (warm_up.as_secs_f64() * rate) as u64;
    let records = first + (time.as_secs_f64() * rate) as u64;
    env.from_source(GeneratorSource::new(move |index| record(index, keys, rate)).count(records).rate(rate), "records")
        .uid("records")
        .key_by_ref(|record| &record.key)
        .flat_map(Count::default())
        .name("Count")
        .uid("count")
        .map(move |(_, _, index)| sample(index, rate, first))
        .uid("sample")
        .sink_to(DiscardingSink::new());
    env.execute("latency")?;
    let mut samples = std::mem::take(&mut *SAMPLES.lock().unwrap_or_else(PoisonError::into_inner));
    samples.sort_unstable();
    let at = |share: f64| samples.get(((share * samples.len() as f64) as usize).min(samples.len().saturating_sub(1)));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        println!("{name}={}", at(share).ok_or("no samples")?);
    }
    Ok(())
}
