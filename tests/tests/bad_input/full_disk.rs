//! Disks that are full: under checkpoints, under the job's log, under RocksDB. They are small file systems in memory.

use std::{fs, path::Path};

use millrace_core::rest::{CheckpointStatus, JobStatus};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, Result},
    faults::SmallDisk,
};

use crate::{Words, another_goes_on, job_over, stores::files, wait_for_count};

fn small_disk(megabytes: usize) -> SmallDisk {
    SmallDisk::mount(megabytes).expect("this test mounts a small file system: run it as root")
}

fn with_directory(words: &Words, path: &Path) -> ClusterSpec {
    job_over(words)
        .args(["--checkpoints", "100", "--checkpoint-dir", &format!("file://{}", path.display())])
        .set("execution.checkpointing.data-inline-threshold", "0 b")
}

/// The job goes on while its disk is full, and once it is free again a checkpoint is completed that another taskmanager
/// goes on from.
fn full_and_free_again(mut cluster: JobCluster, words: &mut Words, disk: &SmallDisk) -> Result<()> {
    let completed = cluster.wait_for_new_checkpoint()?.completed().map(|newest| newest.id);
    disk.fill()?;
    words.write_many(20, 1);
    wait_for_count(&mut cluster, words.written)?;
    // None is completed any more: the last that was under way may have been.
    let mut still = None;
    cluster.wait_until("failure that names the full disk", |state| {
        let failed = state.checkpoints.latest.failed.as_ref().and_then(|failed| failed.failure_message.as_deref());
        let waits = state.checkpoints.history.first().is_some_and(|newest| {
            let began = newest.trigger_timestamp as i64;
            newest.status == CheckpointStatus::InProgress && state.job.now - began > 1000
        });
        disk.fill().expect("it can be filled");
        still = state.completed().map(|newest| newest.id);
        failed.is_some_and(|why| why.contains("No space left")) || waits
    })?;
    assert!(still >= completed);
    words.write_many(20, 1);
    wait_for_count(&mut cluster, words.written)?;
    disk.free()?;
    let state = cluster.wait_for_new_checkpoint()?;
    assert_eq!((state.job.restarts, state.job.state), (0, JobStatus::Running), "{state}");
    assert!(state.completed().map(|newest| newest.id) > still, "{state}");
    another_goes_on(cluster, words)
}

#[test]
fn a_full_disk_under_checkpoints_costs_checkpoints_and_nothing_else() -> Result<()> {
    let (mut words, disk) = (Words::new(), small_disk(8));
    let cluster = JobCluster::start(with_directory(&words, disk.path()))?;
    words.write_many(20, 1);
    full_and_free_again(cluster, &mut words, &disk)
}

#[test]
fn a_full_disk_under_the_log_costs_checkpoints_and_nothing_else() -> Result<()> {
    let mut words = Words::new();
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = JobCluster::start(with_directory(&words, checkpoints.path()))?;
    words.write_many(20, 1);
    cluster.wait_for_new_checkpoint()?;
    // The log moves to a disk of its own while nobody writes it.
    cluster.pause_jobmanager()?;
    let log = checkpoints.path().join(cluster.job().to_string()).join("log");
    let entries = files(&log).into_iter().map(|path| (fs::read(&path).expect("an entry can be read"), path));
    let entries: Vec<_> = entries.collect();
    let disk = SmallDisk::mount_at(log, 1)?;
    entries.into_iter().for_each(|(entry, path)| fs::write(path, entry).expect("an entry can be written"));
    cluster.resume_jobmanager()?;
    full_and_free_again(cluster, &mut words, &disk)
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_full_disk_under_rocksdb_fails_the_task_with_its_setting() -> Result<()> {
    use crate::{assert_calm, assert_says, failed};
    let (mut words, disk) = (Words::new(), small_disk(24));
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let local = disk.path().join("local");
    let spec = job_over(&words)
        .args(["--hoards", "100000"])
        .set("state.backend", "rocksdb")
        .set("state.checkpoints.dir", format!("file://{}", checkpoints.path().display()))
        .set("state.backend.rocksdb.memory.size", "8mb")
        .set("state.backend.rocksdb.localdir", local.display().to_string());
    let mut cluster = JobCluster::start(spec)?;
    cluster.wait_until_running()?;
    // Four times the disk.
    words.write_many(1000, 1);
    let error = failed(&mut cluster)?;
    assert_says(&error, &["the disk of", &local.display().to_string(), "is full", "state.backend.rocksdb.localdir"]);
    assert_calm(&cluster);
    Ok(())
}
