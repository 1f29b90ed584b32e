//! Recoveries, measured by phase: a spare slot is used at once, and the output is that of a run without a fault.

use std::collections::BTreeMap;

use millrace_core::{ids::Generation, rest::RecoveryDetails};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, JobState, PATIENCE, Result},
    services::{kafka::KafkaBroker, minio::Minio, process::Signal},
};
use millrace_tests::process::{
    checkpoint_example,
    feed::{Feed, PARTITIONS, Target},
    printed::{Outputs, differences},
    restart_always, unique,
};

/// The exit code of a process that a SIGTERM ended.
const BY_SIGTERM: i32 = 143;

/// Two subtasks that count records from Kafka by their text, on taskmanagers with one slot each; one is spare.
pub struct Counting {
    topic: String,
    /// Of checkpoints.
    interval: &'static str,
    directory: tempfile::TempDir,
}

impl Counting {
    pub fn new(name: &str) -> Result<Self> {
        let topic = unique(name);
        KafkaBroker::shared().create_topic(&topic, PARTITIONS)?;
        Ok(Self { topic, interval: "300ms", directory: tempfile::tempdir().expect("a directory can be made") })
    }

    pub fn job(&self) -> Result<ClusterSpec> {
        let directory = format!("file://{}", self.directory.path().display());
        Ok(self.job_without_directory()?.args(["--checkpoint-dir".to_owned(), directory]))
    }

    /// The job with its checkpoints in an object store, each state in a file of its own, and local copies.
    fn job_on_s3(&self) -> Result<ClusterSpec> {
        let copies = self.directory.path().display().to_string();
        Ok(self.job_with_bucket()?.set("taskmanager.state.local.root-dirs", copies))
    }

    fn job_with_bucket(&self) -> Result<ClusterSpec> {
        let minio = Minio::shared();
        minio.create_bucket(&self.topic)?;
        let spec =
            self.job_without_directory()?.args(["--checkpoint-dir".to_owned(), format!("s3://{}/c", self.topic)]);
        Ok(spec
            .set("execution.checkpointing.data-inline-threshold", "0")
            .set("s3.endpoint", minio.endpoint())
            .set("s3.access-key", minio.access_key())
            .set("s3.secret-key", minio.secret_key()))
    }

    fn job_without_directory(&self) -> Result<ClusterSpec> {
        let spec = checkpoint_example(KafkaBroker::shared(), &self.topic)?
            .args(["--key-by", "record", "--parallelism", "2", "--start", "earliest"])
            .args(["--checkpoints", "--interval", self.interval, "--state-backend", "filesystem"]);
        Ok(restart_always(spec).taskmanagers(3))
    }

    pub fn feed(&self, seed: u64) -> Feed {
        Feed::start(Target::Kafka(KafkaBroker::shared(), &self.topic), seed)
    }
}

/// Waits until every record is counted, and compares the counts with what was written.
pub fn wait_for_all(cluster: &mut JobCluster, written: &BTreeMap<String, u64>) -> Result<Outputs> {
    let mut outputs = Outputs::default();
    let all = written.values().sum();
    cluster.wait_for("count of every record", PATIENCE, |cluster| {
        outputs.read(cluster);
        ((outputs.total() >= all).then_some(()), format!("{} of {all}", outputs.total()))
    })?;
    let wrong = differences(written, &outputs.highest);
    assert!(wrong.is_empty(), "counts differ from what was written: {wrong:?}\n{}", cluster.tails());
    Ok(outputs)
}

/// The last recovery, once something new was put out.
pub fn recovered(state: &JobState) -> Option<&RecoveryDetails> {
    let is_over = |recovery: &&RecoveryDetails| recovery.phases.iter().any(|phase| phase.name == "first-output");
    state.job.last_recovery.as_ref().filter(is_over)
}

#[test]
fn a_recovery_is_told_phase_by_phase_to_the_first_new_output() -> Result<()> {
    let counting = Counting::new("recovery-phases")?;
    let mut cluster = JobCluster::start(counting.job()?)?;
    let feed = counting.feed(7);
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let victim = cluster.busy_taskmanagers(&before)[0];
    let (victim_pid, newest) = (cluster.taskmanager_pid(victim), before.completed().map(|checkpoint| checkpoint.id));
    let resource_id = before.taskmanagers.iter().find(|tm| tm.pid == Some(victim_pid)).map(|tm| tm.resource_id.clone());
    cluster.kill_taskmanager(victim)?;
    let state = cluster.wait_until("recovery", |state| recovered(state).is_some() && state.is_running())?;
    let recovery = recovered(&state).expect("it was waited for");
    let phases: Vec<_> = recovery.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, ["detect", "cancel", "allocate", "fetch", "restore", "replay", "first-output"]);
    assert_eq!(recovery.phases.iter().map(|phase| phase.duration).sum::<u64>(), recovery.duration, "{recovery:?}");
    assert_eq!(recovery.taskmanager, resource_id, "the fault that fired is the one that is told: {recovery:?}");
    assert!(recovery.restored_checkpoint >= newest && newest.is_some(), "{recovery:?}");
    assert_eq!((state.job.restarts, state.taskmanagers.len()), (1, 2), "{state}");
    // And once in the log.
    let log = cluster.jobmanager_log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("recovered") && line.contains("first-output")).collect();
    assert_eq!(told.len(), 1, "{log}");

    wait_for_all(&mut cluster, &feed.finish())?;
    println!("{recovery:?}");
    Ok(())
}

#[test]
fn tasks_go_on_without_their_jobmanager_and_the_next_one_adopts_them() -> Result<()> {
    let counting = Counting::new("adoption")?;
    let mut cluster = JobCluster::start(counting.job()?)?;
    let feed = counting.feed(11);
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    cluster.kill_jobmanager()?;
    let mut outputs = Outputs::default();
    outputs.read(&cluster);
    let counted = outputs.total();
    // Without a jobmanager: whatever is counted now, tasks count that nobody watches.
    let limit = std::time::Instant::now() + PATIENCE;
    while outputs.total() < counted + 100 {
        assert!(std::time::Instant::now() < limit, "the tasks stand still: {}", cluster.tails());
        std::thread::yield_now();
        outputs.read(&cluster);
    }
    cluster.restart_jobmanager()?;
    let state = cluster.wait_until("adopted job", |state| state.is_running() && state.job.last_recovery.is_some())?;
    assert_eq!((state.job.generation, state.job.attempt), (Generation(2), before.job.attempt), "{state}");
    assert_eq!((state.job.restarts, state.recovered_from()), (0, None), "{state}");
    let recovery = state.job.last_recovery.clone().expect("it was waited for");
    let phases: Vec<_> = recovery.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, ["take-over", "adopt"], "{recovery:?}");
    let after = cluster.wait_until("checkpoint of its own", |state| state.checkpoints.counts.completed > 0)?;
    let newest = |state: &JobState| state.completed().map(|checkpoint| checkpoint.id);
    assert!(newest(&after) > newest(&before), "{after}");

    // The next failure goes back to a checkpoint of the second jobmanager, of the tasks that it adopted.
    let victim = cluster.busy_taskmanagers(&after)[0];
    cluster.kill_taskmanager(victim)?;
    let state = cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts == 1)?;
    assert!(state.recovered_from() >= newest(&after), "{state}");
    // And a third jobmanager adopts what the second has started.
    cluster.kill_jobmanager()?;
    cluster.restart_jobmanager()?;
    let state = cluster.wait_until("adopted job", |state| state.is_running() && state.job.last_recovery.is_some())?;
    assert_eq!((state.job.generation, state.job.restarts), (Generation(3), 0), "{state}");
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}

#[test]
fn tasks_of_which_one_is_gone_are_not_adopted() -> Result<()> {
    let counting = Counting::new("no-adoption")?;
    let mut cluster = JobCluster::start(counting.job()?)?;
    let feed = counting.feed(13);
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let victim = cluster.busy_taskmanagers(&before)[0];
    cluster.kill_jobmanager()?;
    cluster.kill_taskmanager(victim)?;
    cluster.restart_jobmanager()?;
    let state = cluster.wait_until("job that was started anew", |state| {
        state.is_running() && state.job.last_recovery.is_some() && state.recovered_from().is_some()
    })?;
    assert_eq!(state.job.generation, Generation(2));
    assert_eq!(state.taskmanagers.len(), 2, "the survivor and the spare one: {state}");
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}

/// All taskmanagers are cut off and live on, the job starts again on others, and these and the jobmanager are lost before
/// the next checkpoint: to the log, the old tasks are as good as those that came after them.
#[test]
fn tasks_of_an_attempt_before_the_newest_are_not_adopted() -> Result<()> {
    let counting = Counting { interval: "10s", ..Counting::new("zombies")? };
    let spec = counting.job()?.taskmanagers(2).set("heartbeat.interval", "200 ms").set("heartbeat.timeout", "1 s");
    let mut cluster = JobCluster::start(spec)?;
    let feed = counting.feed(19);
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let zombies = cluster.busy_taskmanagers(&before);
    assert_eq!(zombies.len(), 2, "{before}");
    zombies.iter().try_for_each(|zombie| cluster.pause_taskmanager(*zombie))?;
    let others = [cluster.start_taskmanager()?, cluster.start_taskmanager()?];
    let state = cluster.wait_until("start elsewhere", |state| state.is_running() && state.job.restarts > 0)?;
    assert_eq!(state.newest_checkpoint(), before.newest_checkpoint(), "{state}");
    cluster.kill_jobmanager()?;
    others.iter().try_for_each(|other| cluster.kill_taskmanager(*other))?;
    zombies.iter().try_for_each(|zombie| cluster.resume_taskmanager(*zombie))?;
    cluster.restart_jobmanager()?;
    let state = cluster.wait_until("job that was started anew", |state| {
        state.is_running() && state.job.last_recovery.is_some() && state.recovered_from().is_some()
    })?;
    assert_eq!(state.recovered_from(), Some(before.newest_checkpoint()), "{state}");
    let log = cluster.jobmanager_log();
    assert!(log.contains("has begun since"), "they were refused for that: {log}");
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}

#[test]
fn a_taskmanager_that_is_told_to_end_hands_over_and_nothing_is_read_twice() -> Result<()> {
    let counting = Counting::new("drain")?;
    let mut cluster = JobCluster::start(counting.job()?)?;
    let feed = counting.feed(17);
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let victim = cluster.busy_taskmanagers(&before)[0];
    let (status, _) = cluster.end_taskmanager(victim, Signal::TERM)?;
    assert_eq!(status.code(), Some(BY_SIGTERM), "{}", cluster.log(victim));
    let state = cluster.wait_until("recovery", |state| recovered(state).is_some() && state.is_running())?;
    let recovery = recovered(&state).expect("it was waited for");
    assert!(recovery.cause.contains("was told to end"), "{recovery:?}");
    assert_eq!((recovery.replayed_records, state.job.restarts), (0, 1), "{recovery:?}");
    let outputs = wait_for_all(&mut cluster, &feed.finish())?;
    assert_eq!(outputs.lines, outputs.total(), "a record was printed twice");
    Ok(())
}

/// A jobmanager that stands still lets nobody go.
#[test]
fn a_taskmanager_that_nobody_lets_go_ends_at_a_second_signal_or_after_its_limit() -> Result<()> {
    let counting = Counting::new("drain-limit")?;
    let spec = counting.job()?.set("taskmanager.drain-timeout", "3 s");
    let mut cluster = JobCluster::start(spec)?;
    let state = cluster.wait_until_running()?;
    let busy = cluster.busy_taskmanagers(&state);
    cluster.pause_jobmanager()?;
    cluster.signal_taskmanager(busy[0], Signal::TERM)?;
    cluster.wait_for_log(busy[0], "hands its tasks over")?;
    assert!(cluster.taskmanager_is_alive(busy[0]), "it waits to be let go");
    let (status, _) = cluster.end_taskmanager(busy[0], Signal::TERM)?;
    assert_eq!(status.code(), Some(BY_SIGTERM));
    assert!(cluster.log(busy[0]).contains("before its tasks were handed over"), "{}", cluster.log(busy[0]));
    let (status, _) = cluster.end_taskmanager(busy[1], Signal::TERM)?;
    assert_eq!(status.code(), Some(BY_SIGTERM));
    assert!(cluster.log(busy[1]).contains("were not handed over within"), "{}", cluster.log(busy[1]));
    cluster.resume_jobmanager()?;
    Ok(())
}

#[test]
fn what_stays_where_it_was_is_not_fetched() -> Result<()> {
    let counting = Counting::new("local-recovery")?;
    let mut cluster = JobCluster::start(counting.job_on_s3()?.taskmanagers(2))?;
    let feed = counting.feed(19);
    cluster.wait_until_running()?;
    cluster.wait_for_new_checkpoint()?;
    // A replacement that begins before the other dies finds nothing of it: its part of the state is fetched.
    let spare = cluster.start_taskmanager()?;
    cluster.wait_for("local directory of each taskmanager", PATIENCE, |_| {
        let directories = std::fs::read_dir(counting.directory.path()).expect("it can be listed").count();
        ((directories == 3).then_some(()), format!("{directories} directories"))
    })?;
    let before = cluster.wait_for_new_checkpoint()?;
    let busy = cluster.busy_taskmanagers(&before);
    cluster.kill_taskmanager(busy[0])?;
    let state = cluster.wait_until("recovery", |state| recovered(state).is_some() && state.job.restarts == 1)?;
    let recovery = recovered(&state).expect("it was waited for");
    assert!(recovery.local_bytes > 0 && recovery.fetched_bytes > 0, "{recovery:?}");
    let first = recovery.timestamp;

    // One that comes after the other has died takes over what that one has left.
    cluster.wait_for_new_checkpoint()?;
    cluster.kill_taskmanager(spare)?;
    cluster.start_taskmanager()?;
    let state = cluster.wait_until("second recovery", |state| {
        recovered(state).is_some_and(|recovery| recovery.timestamp > first) && state.job.restarts == 2
    })?;
    let recovery = recovered(&state).expect("it was waited for");
    assert!(recovery.local_bytes > 0 && recovery.fetched_bytes == 0, "{recovery:?}");
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}

/// RocksDB's files are linked where they are, and fetched where they are not.
#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_links_what_stays_where_it_was() -> Result<()> {
    let counting = Counting::new("rocksdb-linking")?;
    let spec = counting.job_with_bucket()?.set("state.backend", "rocksdb");
    let spec = spec.set("state.backend.rocksdb.memory.size", "16mb").set("execution.checkpointing.incremental", "true");
    let mut cluster = JobCluster::start(spec)?;
    let feed = counting.feed(23);
    cluster.wait_until_running()?;
    cluster.wait_for_new_checkpoint()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let busy = cluster.busy_taskmanagers(&before);
    let is_rocksdb = before.taskmanagers.iter().all(|taskmanager| taskmanager.memory.managed_total == 16 << 20);
    assert!(is_rocksdb, "{before}");
    cluster.kill_taskmanager(busy[0])?;
    let state = cluster.wait_until("recovery", |state| recovered(state).is_some() && state.job.restarts == 1)?;
    let recovery = recovered(&state).expect("it was waited for");
    assert!(recovery.local_bytes > 0 && recovery.fetched_bytes > 0, "{recovery:?}");
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}
