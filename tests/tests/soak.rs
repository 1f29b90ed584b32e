//! What takes long: `make soak`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_testkit::cluster::{ClusterSpec, JobCluster, PATIENCE, Result, program};
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

/// A job that takes every processor several times over, with snapshots of millions of keys, under heartbeats as they are
/// by default: nobody is taken for dead. `MINUTES` changes how long.
#[test]
fn a_busy_machine_is_no_failure() -> Result<()> {
    let minutes = std::env::var("MINUTES").map_or(10, |text| text.parse().expect("MINUTES is a whole number"));
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let processors = thread::available_parallelism().map_or(2, usize::from);
    let spec = ClusterSpec::new(program("keyed_count")?)
        .args(["--records", &u64::MAX.to_string(), "--keys", "3000000", "--checkpoint-interval", "2s"])
        .args(["--parallelism", &(2 * processors).to_string(), "--state-backend", "filesystem"])
        .args(["--checkpoint-dir".to_owned(), format!("file://{}", checkpoints.path().display())])
        .taskmanagers(2)
        .slots(processors as u32)
        .set("heartbeat.interval", "1 s")
        .set("heartbeat.timeout", "3 s");
    let mut cluster = JobCluster::start(spec)?;
    cluster.wait_until_running()?;
    let first = cluster.wait_for_new_checkpoint()?.checkpoints.counts.completed;
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let last = thread::scope(|scope| {
        for _ in 0..4 * processors {
            scope.spawn(|| {
                // A false alarm panics before it can stop them.
                while !stop.load(Ordering::Relaxed) && Instant::now() < end + PATIENCE {
                    std::hint::spin_loop();
                }
            });
        }
        // What is watched is that nothing happens for so long.
        let watched = (|| {
            while Instant::now() < end {
                thread::sleep(Duration::from_secs(1));
                let Ok(state) = cluster.state() else { continue };
                assert_eq!((state.job.restarts, state.taskmanagers.len()), (0, 2), "a false alarm: {state}");
            }
            cluster.wait_for_new_checkpoint()
        })();
        stop.store(true, Ordering::Relaxed);
        watched
    })?;
    let silent = |log: &str| log.lines().filter(|line| line.contains("silent")).map(str::to_owned).collect::<Vec<_>>();
    let logs = [cluster.jobmanager_log(), cluster.log(0), cluster.log(1)];
    assert_eq!(logs.iter().flat_map(|log| silent(log)).collect::<Vec<_>>(), Vec::<String>::new());
    let statistics = &last.checkpoints;
    println!(
        "{minutes} minutes: {} checkpoints of {} bytes, the longest {} ms; no false alarm",
        statistics.counts.completed - first,
        last.completed().map_or(0, |checkpoint| checkpoint.state_size),
        statistics.summary.end_to_end_duration.max,
    );
    Ok(())
}
