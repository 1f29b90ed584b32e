//! Bad input, where a user meets it: settings, services, records, connections and checkpoints that are not as they should
//! be, given to jobs that run as real processes.
//!
//! In each case the message says what is wrong, nothing panics that was not meant to, and it does not take for ever.

mod checkpoints;
mod from_checkpoint;
mod full_disk;
mod functions;
#[cfg(feature = "rocksdb")]
mod local_state;
mod memory;
mod ports;
mod settings;
mod sources;
mod stores;
mod strangers;

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_core::rest::JobStatus;
use millrace_testkit::cluster::{ClusterSpec, Error, JobCluster, JobEnd, PATIENCE, Result};
use serde_json::Value;

/// How long an answer over HTTP may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The misbehaving job, as a jobmanager and one taskmanager.
fn job() -> ClusterSpec {
    ClusterSpec::new(PathBuf::from(env!("CARGO_BIN_EXE_misbehaving_job")))
}

/// The misbehaving job over a directory.
fn job_over(words: &Words) -> ClusterSpec {
    job().args(["--files".to_owned(), words.path().display().to_string()])
}

/// Restarts without a limit, after this time.
fn restarting(spec: ClusterSpec, delay: &str) -> ClusterSpec {
    spec.set("restart-strategy.type", "fixed-delay")
        .set("restart-strategy.fixed-delay.attempts", "1000000")
        .set("restart-strategy.fixed-delay.delay", delay)
}

/// A directory of growing files: the input of a job. The job prints each word with the number of words so far.
struct Words {
    directory: tempfile::TempDir,
    written: u64,
}

impl Words {
    fn new() -> Self {
        let words = Self { directory: tempfile::tempdir().expect("a directory can be made"), written: 0 };
        words.append(0, b"");
        words
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Appends words to the first file.
    fn write<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        for word in words {
            self.append(0, format!("{word}\n").as_bytes());
            self.written += 1;
        }
    }

    /// Appends so many words to the first file, or alternately to the first two.
    fn write_many(&mut self, count: u64, files: u64) {
        for _ in 0..count {
            self.append(self.written % files, format!("word-{}\n", self.written).as_bytes());
            self.written += 1;
        }
    }

    fn append(&self, file: u64, bytes: &[u8]) {
        let path = self.path().join(format!("part-{file}.txt"));
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file can be written");
        file.write_all(bytes).expect("the file can be written");
    }
}

/// The counts that a job has printed, in order.
fn counts(printed: &str) -> Vec<u64> {
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse().ok());
    // With several subtasks a line begins with its subtask; the last one may not be complete yet.
    printed
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter_map(|line| count(line.trim_end()))
        .collect()
}

/// Waits until some taskmanager has printed this count.
fn wait_for_count(cluster: &mut JobCluster, count: u64) -> Result<()> {
    cluster.wait_for(&format!("count {count}"), PATIENCE, |cluster| {
        let printed = (0..cluster.taskmanagers_started()).flat_map(|index| counts(&cluster.stdout(index)));
        let highest = printed.max().unwrap_or(0);
        ((highest >= count).then_some(()), format!("counted to {highest}"))
    })
}

/// The newest checkpoint is whole: another taskmanager goes on from it, and each word has been counted once.
fn another_goes_on(mut cluster: JobCluster, words: &mut Words) -> Result<()> {
    cluster.kill_taskmanager(0)?;
    cluster.start_taskmanager()?;
    words.write_many(10, 1);
    wait_for_count(&mut cluster, words.written)?;
    cancel(&mut cluster)?;
    let mut all: Vec<_> = [0, 1].iter().flat_map(|index| counts(&cluster.stdout(*index))).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=words.written).collect::<Vec<_>>());
    assert_calm(&cluster);
    Ok(())
}

/// Starts a job that is refused at its start; what its user reads.
fn refused(spec: ClusterSpec) -> String {
    match JobCluster::start(spec.taskmanagers(0)) {
        // What needs the store is found out when the jobmanager can be asked already.
        Ok(mut cluster) => {
            let (status, text) = cluster.wait_jobmanager_end().expect("it ends by itself");
            assert!(!status.success() && !text.contains("panicked"), "{status}: {text}");
            text
        }
        Err(Error::Process(error @ millrace_testkit::services::Error::Ended { .. })) => {
            let text = error.to_string();
            assert!(!text.contains("panicked"), "{text}");
            text
        }
        Err(error) => panic!("it did not end by itself: {error}"),
    }
}

/// Waits until the job has failed; why.
fn failed(cluster: &mut JobCluster) -> Result<String> {
    let JobEnd { state, error, .. } = cluster.wait_end()?;
    assert_eq!(state, JobStatus::Failed, "{error:?}");
    Ok(error.expect("a job that failed says why"))
}

/// Waits for a failure that REST shows; its text and position.
fn wait_for_exception(cluster: &mut JobCluster, part: &str) -> Result<millrace_core::rest::ExceptionEntry> {
    cluster.wait_for(&format!("exception with {part:?}"), PATIENCE, |cluster| {
        let shown = cluster.exceptions();
        let last = format!("{shown:?}");
        let entries = shown.map(|shown| shown.exception_history.entries).unwrap_or_default();
        (entries.into_iter().find(|entry| entry.stacktrace.contains(part)), last)
    })
}

/// Cancels the job and waits until all processes have ended.
fn cancel(cluster: &mut JobCluster) -> Result<()> {
    cluster.cancel()?;
    assert_eq!(cluster.wait_end()?.state, JobStatus::Canceled);
    Ok(())
}

/// No process has panicked.
fn assert_calm(cluster: &JobCluster) {
    let logs = (0..cluster.taskmanagers_started()).map(|index| cluster.log(index));
    for log in logs.chain([cluster.jobmanager_log()]) {
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// Something of the jobmanager's announcement: `rpc_address` or `rest_address`.
fn announced(cluster: &JobCluster, field: &str) -> String {
    let path = cluster.directory().join(format!("cluster/{}.json", cluster.job()));
    let announcement = fs::read(path).expect("the jobmanager has announced itself");
    let announcement: Value = serde_json::from_slice(&announcement).expect("an announcement is JSON");
    announcement[field].as_str().expect("an address").to_owned()
}

/// What a server answers to `GET`.
fn http_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
