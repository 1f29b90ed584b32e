//! Checkpoints and logs of the job's own that are damaged when a new jobmanager looks at them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use millrace_core::rest::JobStatus;
use millrace_state::log::{LogEntry, entry::position_of};
use millrace_testkit::cluster::{JobCluster, Result};
use tempfile::TempDir;

use crate::{Words, assert_calm, assert_says, cancel, counts, job_over, restarting, stores::files, wait_for_count};

/// A job with checkpoints in a directory.
struct Job {
    words: Words,
    checkpoints: TempDir,
    cluster: JobCluster,
}

impl Job {
    /// Runs until it has counted some words and completed two checkpoints at least, and kills all its processes.
    fn crashed() -> Result<Self> {
        let mut words = Words::new();
        let checkpoints = tempfile::tempdir().expect("a directory can be made");
        let spec = restarting(job_over(&words), "0 ms")
            .args(["--checkpoints", "100"])
            .set("state.checkpoints.dir", format!("file://{}", checkpoints.path().display()))
            .set("execution.checkpointing.data-inline-threshold", "0 b");
        let mut cluster = JobCluster::start(spec)?;
        words.write_many(20, 1);
        wait_for_count(&mut cluster, 20)?;
        cluster.wait_for_new_checkpoint()?;
        words.write_many(20, 1);
        wait_for_count(&mut cluster, 40)?;
        cluster.wait_for_new_checkpoint()?;
        cluster.kill_jobmanager()?;
        cluster.kill_taskmanager(0)?;
        Ok(Self { words, checkpoints, cluster })
    }

    fn directory(&self) -> PathBuf {
        self.checkpoints.path().join(self.cluster.job().to_string())
    }

    /// The completed checkpoints that the log names, the newest last.
    fn completed(&self) -> Vec<u64> {
        let mut entries: Vec<_> = files(&self.directory().join("log"));
        entries.sort();
        let read = |path: &PathBuf| {
            let position = position_of(path.file_name()?.to_str()?)?;
            let entry = LogEntry::decode(self.cluster.job(), position, &fs::read(path).ok()?).ok()?;
            entry.checkpoint().map(|checkpoint| checkpoint.id.0)
        };
        entries.iter().filter_map(read).collect()
    }

    fn checkpoint(&self, id: u64) -> PathBuf {
        self.directory().join(format!("chk-{id}"))
    }

    /// Starts all processes again and waits until all words are counted, also new ones. Returns the checkpoint that was
    /// restored.
    fn recovers(&mut self) -> Result<u64> {
        self.cluster.restart_jobmanager()?;
        let second = self.cluster.start_taskmanager()?;
        self.words.write_many(10, 1);
        wait_for_count(&mut self.cluster, self.words.written)?;
        let state = self.cluster.wait_until_running()?;
        let restored = state.checkpoints.latest.restored.as_ref().expect("a checkpoint is restored").id;
        let printed = counts(&self.cluster.stdout(second));
        assert!(printed.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{printed:?}");
        assert_calm(&self.cluster);
        Ok(restored)
    }
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("the file can be written");
}

fn state_files(checkpoint: &Path) -> Vec<PathBuf> {
    files(checkpoint)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "state"))
        .collect()
}

#[test]
fn behind_a_newest_checkpoint_with_damaged_metadata_the_one_before_is_taken() -> Result<()> {
    let mut job = Job::crashed()?;
    let completed = job.completed();
    let [.., before, newest] = completed[..] else { panic!("two checkpoints are completed: {completed:?}") };
    flip_a_bit(&job.checkpoint(newest).join("_metadata"));
    assert_eq!(job.recovers()?, before);
    assert_says(
        &job.cluster.jobmanager_log(),
        &[&format!("chk-{newest}"), "damaged", &format!("going back to checkpoint {before}")],
    );
    cancel(&mut job.cluster)
}

#[test]
fn behind_a_newest_checkpoint_with_a_damaged_state_file_the_one_before_is_taken() -> Result<()> {
    let mut job = Job::crashed()?;
    let completed = job.completed();
    let [.., before, newest] = completed[..] else { panic!("two checkpoints are completed: {completed:?}") };
    let states = state_files(&job.checkpoint(newest));
    assert!(!states.is_empty(), "the counter's state is in a file");
    states.iter().for_each(|path| flip_a_bit(path));
    assert_eq!(job.recovers()?, before);
    cancel(&mut job.cluster)
}

/// Nothing of the job has run, so it has not failed for good: once the files are back, it goes on.
#[test]
fn a_job_all_of_whose_checkpoints_are_damaged_starts_from_none_and_goes_on_once_one_is_back() -> Result<()> {
    let mut job = Job::crashed()?;
    let completed = job.completed();
    let newest = job.checkpoint(*completed.last().expect("a checkpoint is completed"));
    let whole = fs::read(newest.join("_metadata")).expect("the file can be read");
    for id in &completed {
        let metadata = job.checkpoint(*id).join("_metadata");
        if metadata.exists() {
            flip_a_bit(&metadata);
        }
    }
    job.cluster.restart_jobmanager()?;
    let taskmanager = job.cluster.start_taskmanager()?;
    let end = job.cluster.wait_end()?;
    assert_eq!(end.state, JobStatus::Failed, "{end:?}");
    assert_says(&end.error.expect("it says why"), &["chk-", "_metadata", "damaged"]);
    assert!(counts(&job.cluster.stdout(taskmanager)).is_empty(), "nothing was started from nothing");
    assert_calm(&job.cluster);

    fs::write(newest.join("_metadata"), whole).expect("the file can be written");
    assert_eq!(Some(&job.recovers()?), completed.last());
    cancel(&mut job.cluster)
}

#[test]
fn a_damaged_log_is_refused_by_name() -> Result<()> {
    let mut job = Job::crashed()?;
    let mut entries = files(&job.directory().join("log"));
    entries.sort();
    let newest = entries.last().expect("the log has entries");
    flip_a_bit(newest);
    let error = match job.cluster.restart_jobmanager() {
        // It announces itself before it reads the log.
        Ok(()) => job.cluster.wait_jobmanager_end()?.1,
        Err(error) => error.to_string(),
    };
    let name = newest.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_says(&error, &["log entry", name, "--from-checkpoint"]);
    assert!(!error.contains("panicked"), "{error}");
    Ok(())
}
