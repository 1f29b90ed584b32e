//! Two sources feed one counter, and one of them is slow: it sends a checkpoint's barrier late. What the counter does
//! with the other's records meanwhile is the difference between the two modes.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use millrace_testkit::{
    cluster::{JobCluster, PATIENCE, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::{
    checkpoint_example,
    printed::{Line, lines},
    restart_always, unique,
};

use crate::cancel;

const KILLS: usize = 3;
/// Subtask 0, which reads partition 0, takes this long for each record.
const SLOW: Duration = Duration::from_millis(450);
/// Long: the checkpoint that a kill goes back to is the one that was waited for. And no multiple of the above, so that
/// checkpoints begin at ever other moments of a slow record.
const INTERVAL: Duration = Duration::from_millis(1700);
/// Time between two records of a partition: the slow subtask always has one.
const SLOW_PACE: Duration = Duration::from_millis(400);
const FAST_PACE: Duration = Duration::from_millis(4);
/// A checkpoint for which the slow barrier came so much later than the other: dozens of fast records.
const LATE_BARRIER_MS: u64 = 150;

/// While the slow barrier is on its way, the fast records behind the other barrier are counted, so they are in the
/// checkpointed state; but the checkpointed position of their source is before them, so they are read again.
#[test]
fn at_least_once_loses_nothing_and_counts_records_twice() -> Result<()> {
    let counted = count_through_kills("at-least-once")?;
    assert!(counted.last > counted.written, "duplicates are in state: {counted:?}");
    Ok(())
}

/// The same with alignment: fast records behind the barrier wait for the slow one.
#[test]
fn exactly_once_counts_each_record_once_over_two_channels() -> Result<()> {
    let counted = count_through_kills("exactly-once")?;
    assert_eq!(counted.last, counted.written, "each record is in state once: {counted:?}");
    Ok(())
}

/// What the counter says at the end.
#[derive(Debug)]
struct Counted {
    last: u64,
    written: u64,
}

fn count_through_kills(mode: &str) -> Result<Counted> {
    let (kafka, topic) = (KafkaBroker::shared(), unique(mode));
    kafka.create_topic(&topic, 2)?;
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let spec = checkpoint_example(kafka, &topic)?
        .taskmanagers(2)
        .args(["--start", "earliest", "--parallelism", "2", "--throttle-subtask"])
        .args([format!("0={}ms", SLOW.as_millis())])
        .args(["--checkpoints", "--mode", mode, "--state-backend", "filesystem"])
        .args(["--interval".to_owned(), format!("{}ms", INTERVAL.as_millis())])
        .args(["--checkpoint-dir".to_owned(), format!("file://{}", checkpoints.path().display())]);
    let mut cluster = JobCluster::start(restart_always(spec))?;

    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let feed = |partition, name, pace| {
            let (topic, stop) = (&topic, &stop);
            scope.spawn(move || feed(kafka, topic, partition, name, pace, stop))
        };
        let feeds = [feed(0, "slow", SLOW_PACE), feed(1, "fast", FAST_PACE)];
        let stopped = StopFeeds(&stop);
        let killed = kill_after_late_barriers(&mut cluster);
        drop(stopped);
        let written = feeds.map(|feed| feed.join().expect("all records were written"));
        killed.map(|()| written.concat())
    })?;
    let ends = ["slow-end", "fast-end"].map(str::to_owned);
    for (partition, end) in (0..).zip(&ends) {
        kafka.produce_to(&topic, partition, [end])?;
    }
    // Each is the last of its partition: behind both, all is counted.
    let all = cluster.wait_for("last records of both partitions", PATIENCE, |cluster| {
        let all = all_lines(cluster);
        let printed: BTreeSet<_> = all.iter().map(|line| &line.record).collect();
        let last = format!("{} lines, the last {:?}", all.len(), all.last());
        (ends.iter().all(|end| printed.contains(end)).then(|| all.clone()), last)
    })?;
    cancel(&mut cluster)?;

    let printed: BTreeSet<_> = all.iter().map(|line| &line.record).collect();
    let lost: Vec<_> = written.iter().chain(&ends).filter(|record| !printed.contains(record)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let last = all.iter().filter(|line| ends.contains(&line.record)).map(|line| line.count).max().unwrap_or(0);
    Ok(Counted { last, written: (written.len() + ends.len()) as u64 })
}

/// Ends the feeds, also when a test fails: its threads are waited for.
struct StopFeeds<'a>(&'a AtomicBool);

impl Drop for StopFeeds<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes numbered records at a pace until it is told to stop. Returns them.
fn feed(
    kafka: &KafkaBroker,
    topic: &str,
    partition: i32,
    name: &str,
    pace: Duration,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut written = Vec::new();
    let records = (0..).map_while(|number| {
        // The pace of the input, not a wait for something to happen.
        thread::sleep(pace);
        (!stop.load(Ordering::Relaxed)).then(|| format!("{name}-{number}"))
    });
    let kept = records.inspect(|record| written.push(record.clone()));
    kafka.produce_to(topic, partition, kept).expect("all records are acknowledged");
    written
}

/// Kills a taskmanager as soon as a checkpoint is complete whose slow barrier came late, again and again.
fn kill_after_late_barriers(cluster: &mut JobCluster) -> Result<()> {
    let mut alive = [0, 1];
    let mut restored = 0;
    for kill in 0..KILLS {
        let seen = restored;
        let state = cluster.wait_until("checkpoint with a late barrier", |state| {
            let late = |id, duration| id > seen && duration >= LATE_BARRIER_MS;
            let restarts = state.job.restarts == kill as u64;
            restarts && state.completed().is_some_and(|newest| late(newest.id, newest.end_to_end_duration))
        })?;
        let newest = state.completed().map_or(0, |newest| newest.id);
        cluster.kill_taskmanager(alive[kill % alive.len()])?;
        alive[kill % alive.len()] = cluster.start_taskmanager()?;
        let state = cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts > kill as u64)?;
        assert_eq!(state.job.restarts, kill as u64 + 1, "one restart for each kill: {state}");
        restored = state.recovered_from().expect("a checkpoint is restored");
        assert_eq!(restored, newest, "{state}");
    }
    Ok(())
}

/// What all taskmanagers have printed, by time.
fn all_lines(cluster: &JobCluster) -> Vec<Line> {
    let mut all: Vec<_> = (0..cluster.taskmanagers_started()).flat_map(|index| lines(&cluster.stdout(index))).collect();
    all.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
    all
}
