//! A new job from a retained checkpoint, and from what is none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, PATIENCE, Result, program},
    services::process::{ManagedProcess, Signal},
};
use tempfile::TempDir;

use crate::{
    Words, assert_calm, assert_says, cancel, counts, failed, job, job_over, restarting, stores::files, wait_for_count,
};

const RESTORE: &str = "execution.state-recovery.path";
/// How many words the retained checkpoint has counted.
const COUNTED: u64 = 25;

/// A job that was stopped with a final checkpoint, which is kept, and its input.
struct Retained {
    words: Words,
    directory: TempDir,
    checkpoint: PathBuf,
}

impl Retained {
    fn new() -> Result<Self> {
        let mut words = Words::new();
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mut cluster = JobCluster::start(checkpointed(&words, directory.path()))?;
        words.write_many(COUNTED, 1);
        wait_for_count(&mut cluster, COUNTED)?;
        cluster.stop()?;
        let end = cluster.wait_end()?;
        assert_eq!(end.state, JobStatus::Finished, "{end:?}");
        let uri = end.retained_checkpoint.expect("a stopped job keeps its checkpoint");
        let checkpoint = PathBuf::from(uri.strip_prefix("file://").expect("it is in a directory"));
        assert!(checkpoint.join("_metadata").is_file(), "{}", checkpoint.display());
        Ok(Self { words, directory, checkpoint })
    }

    fn state_file(&self) -> PathBuf {
        let is_state = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "state");
        files(&self.checkpoint).into_iter().find(is_state).expect("the counter's state is in a file")
    }

    /// A new job that starts from the checkpoint, with checkpoints of its own elsewhere.
    fn restored(&self, own: &TempDir) -> ClusterSpec {
        restarting(checkpointed(&self.words, own.path()), "0 ms").set(RESTORE, uri(&self.checkpoint))
    }

    /// Starts a new job that can't; why.
    fn refusal(&self, change: impl FnOnce(ClusterSpec) -> ClusterSpec) -> Result<String> {
        let own = tempfile::tempdir().expect("a directory can be made");
        let mut cluster = JobCluster::start(change(self.restored(&own)))?;
        let error = failed(&mut cluster)?;
        assert_says(&error, &["a restart can't cure it"]);
        assert_calm(&cluster);
        Ok(error)
    }
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// All state in files, a checkpoint ten times a second.
fn checkpointed(words: &Words, directory: &Path) -> ClusterSpec {
    job_over(words)
        .args(["--checkpoints".to_owned(), "100".to_owned()])
        .set("state.checkpoints.dir", uri(directory))
        .set("execution.checkpointing.data-inline-threshold", "0 b")
}

#[test]
fn the_counter_goes_on_and_nothing_of_the_old_job_is_needed_after_the_first_checkpoint() -> Result<()> {
    let mut retained = Retained::new()?;
    let own = tempfile::tempdir().expect("a directory can be made");
    retained.words.write_many(10, 1);
    let mut cluster = JobCluster::start(retained.restored(&own))?;
    wait_for_count(&mut cluster, COUNTED + 10)?;
    let state = cluster.wait_for_new_checkpoint()?;
    assert_eq!(state.checkpoints.counts.restored, 1, "{state}");

    fs::remove_dir_all(retained.directory.path()).expect("the old job's checkpoints can be removed");
    cluster.kill_taskmanager(0)?;
    let second = cluster.start_taskmanager()?;
    retained.words.write_many(10, 1);
    wait_for_count(&mut cluster, COUNTED + 20)?;
    let state = cluster.state()?;
    assert_eq!(state.job.restarts, 1, "its own checkpoints were enough: {state}");
    // To a new jobmanager too, whose settings still name the old one.
    cluster.wait_for_new_checkpoint()?;
    cluster.restart_jobmanager()?;
    retained.words.write_many(5, 1);
    wait_for_count(&mut cluster, COUNTED + 25)?;
    // The tasks have counted on without it. Whether it knows them already makes no difference.
    cluster.wait_until_led()?;
    cancel(&mut cluster)?;
    assert_eq!(counts(&cluster.stdout(0)), (COUNTED + 1..=COUNTED + 10).collect::<Vec<_>>());
    let printed = counts(&cluster.stdout(second));
    assert_eq!(printed.last(), Some(&(COUNTED + 25)));
    assert!(printed.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{printed:?}");
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn the_command_starts_a_job_from_a_checkpoint() -> Result<()> {
    let mut retained = Retained::new()?;
    retained.words.write_many(5, 1);
    let place = tempfile::tempdir().expect("a directory can be made");
    let mut command = Command::new(program("millrace")?);
    command
        .args(["run", env!("CARGO_BIN_EXE_misbehaving_job")])
        .args(["--from-checkpoint", &uri(&retained.checkpoint)])
        .args(["-D", &format!("cluster.directory={}", place.path().join("cluster").display())])
        .args(["-D", &format!("env.log.dir={}", place.path().join("log").display())])
        .args(["--", "--files", &retained.words.path().display().to_string(), "--checkpoints", "100"]);
    let mut process = ManagedProcess::spawn("millrace", &command, place.path())?;
    let printed = || {
        let outputs =
            files(&place.path().join("log")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "out"));
        counts(&outputs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect::<String>())
    };
    process.wait_until("count", PATIENCE, |_| printed().last() == Some(&(COUNTED + 5)))?;
    assert_eq!(printed(), (COUNTED + 1..=COUNTED + 5).collect::<Vec<_>>());
    process.signal(Signal::INT)?;
    assert_eq!(process.wait_timeout(PATIENCE)?.and_then(|status| status.code()), Some(130), "{}", process.stderr());
    Ok(())
}

#[test]
fn damaged_files_are_refused_by_name() -> Result<()> {
    let retained = Retained::new()?;
    let metadata = retained.checkpoint.join("_metadata");
    for file in [metadata.clone(), retained.state_file()] {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let whole = fs::read(&file).expect("the file can be read");
        fs::write(&file, &whole[..whole.len() / 2]).expect("the file can be written");
        let error = retained.refusal(|spec| spec)?;
        assert_says(&error, &[&name, if file == metadata { "torn" } else { "damaged" }]);

        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&file, flipped).expect("the file can be written");
        let error = retained.refusal(|spec| spec)?;
        assert_says(&error, &[&name, "damaged", "checksum"]);

        fs::remove_file(&file).expect("the file can be removed");
        let error = retained.refusal(|spec| spec)?;
        assert_says(&error, &[&name, if file == metadata { "is no checkpoint" } else { "missing" }]);
        fs::write(&file, whole).expect("the file can be written");
    }
    fs::write(&metadata, "a letter to the editor, long enough to be taken for more").expect("the file can be written");
    assert_says(&retained.refusal(|spec| spec)?, &["_metadata", "not the metadata of a checkpoint"]);
    Ok(())
}

#[test]
fn what_does_not_fit_the_job_is_refused_by_name() -> Result<()> {
    let mut retained = Retained::new()?;
    let empty = tempfile::tempdir().expect("a directory can be made");
    let error = retained.refusal(|spec| spec.set(RESTORE, uri(empty.path())))?;
    assert_says(&error, &[&uri(empty.path()), "_metadata"]);
    let nowhere = uri(&empty.path().join("nowhere"));
    let error = retained.refusal(|spec| spec.set(RESTORE, nowhere.clone()))?;
    assert_says(&error, &[&nowhere]);

    let error = retained.refusal(|spec| spec.args(["--max-parallelism", "64"]))?;
    assert_says(&error, &["maximum parallelism", "128", "64"]);
    let error = retained.refusal(|spec| spec.args(["--counting", "another-type"]))?;
    assert_says(&error, &["\"count\"", "i64", "string"]);
    let directory = tempfile::tempdir().expect("a directory can be made");
    let error = retained.refusal(|_| {
        // Nobody listens there, and nobody is asked.
        let of_kafka = job().args(["--kafka", "127.0.0.1:9", "--checkpoints", "100"]);
        let spec = restarting(of_kafka, "0 ms").set("state.checkpoints.dir", uri(directory.path()));
        spec.set(RESTORE, uri(&retained.checkpoint))
    })?;
    assert_says(&error, &["source \"words\"", "of type FileSplit where", "of type KafkaSplit where", "another uid"]);
    let another_counter = ["--counter-uid", "another-counter"];
    let error = retained.refusal(|spec| spec.args(another_counter))?;
    assert_says(&error, &["\"counter\" (Count)", "\"another-counter\"", "allow-non-restored-state"]);

    // Dropped where that is wanted: another counter begins at 0, behind the words that were read.
    retained.words.write_many(3, 1);
    let own = tempfile::tempdir().expect("a directory can be made");
    let spec = retained.restored(&own).args(another_counter);
    let mut cluster = JobCluster::start(spec.set("allow-non-restored-state", "true"))?;
    wait_for_count(&mut cluster, 3)?;
    cancel(&mut cluster)?;
    assert_eq!(counts(&cluster.stdout(0)), [1, 2, 3]);
    assert_calm(&cluster);
    Ok(())
}
