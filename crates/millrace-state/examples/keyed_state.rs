//! Measures keyed state on the heap: changes a second, the pause of a snapshot, and the rate while one is written. Rates
//! and the time of writing are by the thread's own processor time where the system tells it (Linux), so that a busy
//! machine does not falsify them.
//!
//! `cargo run --release -p millrace-state --example keyed_state [-- KEYS...]`

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use millrace_core::{
    Result,
    key::{DEFAULT_MAX_PARALLELISM, KeyColumn},
};
use millrace_state::{FsStateBackend, KeyedBackendContext, KeyedStateStore, ValueState};

const BATCH: usize = 1024;
/// Batches that are prepared before the clock runs, and then used in turn.
const BATCHES: u64 = 4096;
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let keys: Vec<u64> = std::env::args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let keys = if keys.is_empty() { vec![100_000, 1_000_000, 10_000_000] } else { keys };
    keys.into_iter().try_for_each(measure)
}

fn measure(keys: u64) -> Result<()> {
    let context = KeyedBackendContext::alone("bench", DEFAULT_MAX_PARALLELISM);
    let store = KeyedStateStore::open(&FsStateBackend::configured(), context)?;
    let count = store.value("count", 0i64)?;
    fill(&store, &count, keys)?;
    let mut batches = (0..BATCHES).map(|batch| random_keys(batch, keys)).collect::<Result<Vec<_>>>()?;
    let alone = rate(&store, &count, &mut batches, |elapsed| elapsed >= MEASURED)?;
    let started = Instant::now();
    let snapshot = store.snapshot()?;
    let pause = started.elapsed();
    let done = AtomicBool::new(false);
    let (during, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let started = clock();
            let summary = snapshot.write(&mut std::io::sink());
            done.store(true, Ordering::Release);
            summary.map(|summary| (summary.size, started()))
        });
        let during = rate(&store, &count, &mut batches, |_| done.load(Ordering::Acquire));
        (during, writer.join().expect("the writer"))
    });
    let (size, time) = written?;
    println!(
        "keys={keys} modify={:.1}M/s sync-pause={pause:?} during-snapshot={:.1}M/s write={time:.2?} size={} MiB",
        alone / 1e6,
        during? / 1e6,
        size >> 20
    );
    Ok(())
}

fn fill(store: &KeyedStateStore, count: &ValueState<i64>, keys: u64) -> Result<()> {
    for start in (0..keys).step_by(BATCH) {
        let mut column = KeyColumn::with_capacity(BATCH);
        for number in start..(start + BATCH as u64).min(keys) {
            column.push(&format!("key-{number}"))?;
        }
        process(store, count, column)?;
    }
    Ok(())
}

fn random_keys(batch: u64, keys: u64) -> Result<KeyColumn> {
    let mut column = KeyColumn::with_capacity(BATCH);
    for index in 0..BATCH as u64 {
        column.push(&format!("key-{}", mix(batch * BATCH as u64 + index) % keys))?;
    }
    Ok(column)
}

/// SplitMix64.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn process(store: &KeyedStateStore, count: &ValueState<i64>, keys: KeyColumn) -> Result<KeyColumn> {
    let len = keys.len();
    store.begin_batch(keys);
    for index in 0..len {
        store.select(index);
        count.modify(|count| *count += 1)?;
    }
    Ok(store.end_batch())
}

/// Changes a second until `enough`.
fn rate(
    store: &KeyedStateStore,
    count: &ValueState<i64>,
    batches: &mut [KeyColumn],
    enough: impl Fn(Duration) -> bool,
) -> Result<f64> {
    let (started, used, mut done) = (Instant::now(), clock(), 0);
    while !enough(started.elapsed()) {
        let place = done % batches.len();
        batches[place] = process(store, count, std::mem::take(&mut batches[place]))?;
        done += 1;
    }
    Ok((done * BATCH) as f64 / used().as_secs_f64())
}

/// Tells how much of a processor this thread has used since, or how much time has passed where that is not known.
fn clock() -> impl Fn() -> Duration {
    let (started, before) = (Instant::now(), processor_time());
    move || match (before, processor_time()) {
        (Some(before), Some(now)) => now - before,
        _ => started.elapsed(),
    }
}

fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
