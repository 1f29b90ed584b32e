//! What takes long: `make soak`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use millrace_testkit::cluster::Result;
use millrace_tests::{
    process::kills::{Campaign, Input},
    sim::{Counters, Mutation, REQUIRED, report, run},
};

/// Runs a million schedules of the simulation; `SCHEDULES` changes how many.
#[test]
fn simulation_million() {
    let schedules: u64 = match std::env::var("SCHEDULES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SCHEDULES={text} is no number")),
        Err(_) => 1_000_000,
    };
    let start = Instant::now();
    let (next, total) = (AtomicU64::new(0), Mutex::new(Counters::default()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut counters = Counters::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= schedules {
                        break;
                    }
                    let verdict = run(seed, Mutation::None, false);
                    assert!(verdict.violation.is_none(), "{}", report(seed, Mutation::None));
                    counters.add(&verdict.counters);
                }
                total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&counters);
            });
        }
    });
    let counters = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!("{schedules} schedules in {:?}:\n{counters}", start.elapsed());
    for seen in REQUIRED {
        assert!(counters.get(seen) >= schedules.min(1000), "{seen:?} was seen {} times", counters.get(seen));
    }
}

/// Kills 500 taskmanagers under a keyed job; `KILLS` and `SEED` change how many, and which when.
#[test]
fn counts_survive_500_kills_of_taskmanagers() -> Result<()> {
    Campaign::from_env(500, 0, Input::Files).run().map(drop)
}

/// The same on Kafka, with every third kill at the jobmanager.
#[test]
fn counts_survive_500_kills_of_jobmanagers_and_taskmanagers() -> Result<()> {
    Campaign::from_env(500, 3, Input::Kafka).run().map(drop)
}
