//! Measures a restore of keyed state on the heap from a snapshot in memory: how many bytes of it a second one thread
//! takes in. By the thread's own processor time where the system tells it (Linux), so that a busy machine does not
//! falsify it.
//!
//! `cargo run --release -p millrace-state --example restore [-- ROUNDS]`

use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_core::{
    Result,
    clock::Clock,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange},
};
use millrace_state::{FsStateBackend, KeyedBackendContext, KeyedStateStore};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const KEYS: u64 = 51_200;

/// Bytes that serde hands over one by one.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Sequence {
    payload: Vec<u8>,
}

/// Bytes that it hands over as a whole.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Whole {
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    measure("counts", rounds, |key| key)?;
    measure("1 KiB in a Vec<u8>", rounds, |key| Sequence { payload: payload(key) })?;
    measure("1 KiB in a Vec<u8> with serde_bytes", rounds, |key| Whole { payload: payload(key) })?;
    measure("1 KiB in a String", rounds, |key| {
        payload(key).iter().map(|byte| char::from(byte % 128)).collect::<String>()
    })
}

fn measure<V>(what: &str, rounds: u32, value: impl Fn(u64) -> V) -> Result<()>
where
    V: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let written = written(&value)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let time = clock();
        let store = open()?;
        store.restore("a snapshot", written.clone())?;
        store.value("state", V::default())?;
        times.push(time());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    let rate = written.len() as f64 / median.as_secs_f64() / f64::from(1 << 20);
    println!("{what}: {KEYS} keys, {} KiB in {median:.2?}, {rate:.0} MiB/s", written.len() >> 10);
    Ok(())
}

fn written<V>(value: impl Fn(u64) -> V) -> Result<Bytes>
where
    V: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let store = open()?;
    let state = store.value("state", V::default())?;
    let mut column = KeyColumn::with_capacity(KEYS as usize);
    for key in 0..KEYS {
        column.push(&format!("key-{key}"))?;
    }
    store.begin_batch(column);
    for key in 0..KEYS {
        store.select(key as usize);
        state.set(value(key))?;
    }
    store.end_batch();
    let mut written = Vec::new();
    store.snapshot()?.write(&mut written)?;
    Ok(written.into())
}

fn open() -> Result<KeyedStateStore> {
    let context = KeyedBackendContext {
        uid: OperatorUid("bench".to_string()),
        operator: "bench".to_string(),
        subtask: 0,
        max_parallelism: 128,
        range: KeyGroupRange::all(128),
        key_schema: None,
        clock: Clock::system(),
    };
    KeyedStateStore::open(&FsStateBackend::configured(), context)
}

fn payload(key: u64) -> Vec<u8> {
    let mut seed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(next).take(1024).collect()
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
