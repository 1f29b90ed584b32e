//! Disks that are full: under checkpoints, under the job's log, under RocksDB. They are small file systems in memory.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
};

use millrace_core::rest::{CheckpointStatus, JobStatus};
use millrace_testkit::cluster::{ClusterSpec, JobCluster, Result};

use crate::{Words, assert_calm, cancel, counts, job_over, stores::files, wait_for_count};

/// A small disk, until it is dropped.
struct SmallDisk {
    place: PathBuf,
    /// Where it is mounted goes with it, once it is not mounted any more.
    parent: Option<tempfile::TempDir>,
}

impl SmallDisk {
    fn new(mib: u32) -> Self {
        let parent = tempfile::tempdir().expect("a directory can be made");
        let mut disk = Self::at(parent.path().to_owned(), mib);
        disk.parent = Some(parent);
        disk
    }

    fn at(place: PathBuf, mib: u32) -> Self {
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).status();
        let mounted = mounted.expect("mount can be run").success();
        assert!(mounted, "this test needs to mount a small file system at {}: run it as root", place.display());
        Self { place, parent: None }
    }

    fn uri(&self) -> String {
        format!("file://{}", self.place.display())
    }

    /// Leaves no block free, as of now: what the job deletes is free again until the next call.
    fn fill(&self) {
        let filler = OpenOptions::new().create(true).append(true).open(self.filler());
        let mut filler = filler.expect("an empty file can be made");
        while filler.write_all(&[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("the file can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.place.join(".filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while a process that is about to end still has files there.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
        drop(self.parent.take());
    }
}

fn with_directory(words: &Words, uri: &str) -> ClusterSpec {
    job_over(words)
        .args(["--checkpoints", "100", "--checkpoint-dir", uri])
        .set("execution.checkpointing.data-inline-threshold", "0 b")
}

/// The job goes on while its disk is full, and once it is free again a checkpoint is completed that another taskmanager
/// goes on from.
fn full_and_free_again(mut cluster: JobCluster, words: &mut Words, disk: &SmallDisk) -> Result<()> {
    let completed = cluster.wait_for_new_checkpoint()?.completed().map(|newest| newest.id);
    disk.fill();
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
        disk.fill();
        still = state.completed().map(|newest| newest.id);
        failed.is_some_and(|why| why.contains("No space left")) || waits
    })?;
    assert!(still >= completed);
    words.write_many(20, 1);
    wait_for_count(&mut cluster, words.written)?;
    disk.free();
    let state = cluster.wait_for_new_checkpoint()?;
    assert_eq!((state.job.restarts, state.job.state), (0, JobStatus::Running), "{state}");
    assert!(state.completed().map(|newest| newest.id) > still, "{state}");

    cluster.kill_taskmanager(0)?;
    cluster.start_taskmanager()?;
    words.write_many(20, 1);
    wait_for_count(&mut cluster, words.written)?;
    cancel(&mut cluster)?;
    let mut all: Vec<_> = [0, 1].iter().flat_map(|index| counts(&cluster.stdout(*index))).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=words.written).collect::<Vec<_>>());
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_full_disk_under_checkpoints_costs_checkpoints_and_nothing_else() -> Result<()> {
    let (mut words, disk) = (Words::new(), SmallDisk::new(8));
    let cluster = JobCluster::start(with_directory(&words, &disk.uri()))?;
    words.write_many(20, 1);
    full_and_free_again(cluster, &mut words, &disk)
}

#[test]
fn a_full_disk_under_the_log_costs_checkpoints_and_nothing_else() -> Result<()> {
    let mut words = Words::new();
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let uri = format!("file://{}", checkpoints.path().display());
    let mut cluster = JobCluster::start(with_directory(&words, &uri))?;
    words.write_many(20, 1);
    cluster.wait_for_new_checkpoint()?;
    // The log moves to a disk of its own while nobody writes it.
    cluster.pause_jobmanager()?;
    let log = checkpoints.path().join(cluster.job().to_string()).join("log");
    let entries = files(&log).into_iter().map(|path| (fs::read(&path).expect("an entry can be read"), path));
    let entries: Vec<_> = entries.collect();
    let disk = SmallDisk::at(log, 1);
    entries.into_iter().for_each(|(entry, path)| fs::write(path, entry).expect("an entry can be written"));
    cluster.resume_jobmanager()?;
    full_and_free_again(cluster, &mut words, &disk)
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_full_disk_under_rocksdb_fails_the_task_with_its_setting() -> Result<()> {
    use crate::{assert_says, failed};
    let (mut words, disk) = (Words::new(), SmallDisk::new(24));
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let local = disk.place.join("local");
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
