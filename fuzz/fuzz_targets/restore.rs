//! Any bytes as a snapshot that a job of today restores, with the checksums made right: each kind of state is read by its
//! type, which is the writer's or has changed since.

#![no_main]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millrace_core::{Result, clock::Clock, ids::OperatorUid, key::KeyGroupRange};
use millrace_fuzz::with_checksums;
use millrace_state::{AggregateFunction, FsStateBackend, KeyedBackendContext, KeyedStateStore, StateTtlConfig};
use serde::{Deserialize, Serialize};

/// When the golden files were written, which are the seeds, and how long their state lives.
const WRITTEN: u64 = 1_800_000_000_000;
const TTL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Status {
    Named(String, [u8; 2]),
    New,
    Seen { times: u64, last: Option<i64> },
    Later,
}

/// It has lost fields and gained one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Session {
    #[serde(default)]
    more: Vec<u8>,
    flags: BTreeMap<String, bool>,
}

#[derive(Clone)]
struct Average;

impl AggregateFunction for Average {
    type In = i32;
    type Accumulator = (i64, u64);
    type Out = i64;

    fn create_accumulator(&self) -> (i64, u64) {
        (0, 0)
    }

    fn add(&self, value: i32, (sum, count): &mut (i64, u64)) {
        *sum += i64::from(value);
        *count += 1;
    }

    fn get_result(&self, (sum, _): &(i64, u64)) -> i64 {
        *sum
    }
}

fuzz_target!(|data: &[u8]| {
    let snapshot = Bytes::from(with_checksums(data).unwrap_or_else(|| data.to_vec()));
    let _ = restore(snapshot);
});

fn restore(snapshot: Bytes) -> Result<()> {
    let (clock, _) = Clock::manual(WRITTEN);
    let context = KeyedBackendContext {
        uid: OperatorUid("golden".to_string()),
        operator: "Golden".to_string(),
        subtask: 0,
        max_parallelism: 16,
        range: KeyGroupRange { start: 0, end: 11 },
        key_schema: None,
        clock,
    };
    let store = KeyedStateStore::open(&FsStateBackend::configured(), context)?;
    store.restore("golden", snapshot)?;
    let _ = store.enable_timers();
    let _ = store.value("session", Session::default());
    let _ = store.list::<(u16, String)>("history");
    let _ = store.map::<i64, Status>("totals");
    let _ = store.reducing("sum", |a: i64, b: i64| a.wrapping_add(b));
    let _ = store.aggregating("average", Average);
    let expiring = store.with_ttl(StateTtlConfig::new(TTL));
    let _ = expiring.value("expiring value", 0u64);
    let _ = expiring.list::<String>("expiring list");
    let _ = expiring.map::<u8, Status>("expiring map");
    let _ = expiring.reducing("expiring longest", |a: String, _| a);
    let _ = expiring.aggregating("expiring mean", Average);
    let _ = store.due_timers(u64::MAX, 100);
    // What was read can be written.
    store.snapshot()?.write(&mut Vec::new()).map(drop)
}
