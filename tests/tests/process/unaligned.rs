//! A job that counts far more slowly than it reads, with unaligned checkpoints: all its processes are killed, and it
//! goes on at another parallelism from a checkpoint that data was in flight in. Every record counts once.

use std::{collections::BTreeMap, fs, process::Command};

use millrace_core::rest::{CheckpointStatistics, CheckpointStatus};
use millrace_state::storage::{StorageOptions, open_checkpoint};
use millrace_testkit::cluster::{ClusterSpec, JobCluster, PATIENCE, Result, program};
use millrace_tests::process::{
    printed::{Outputs, differences},
    restart_always,
};
use tempfile::TempDir;

use crate::cancel;

const FILES: u64 = 3;
const LINES: u64 = 1200;
const KEYS: u64 = 30;

struct Job {
    directory: TempDir,
    backend: &'static str,
    runtime: tokio::runtime::Runtime,
}

impl Job {
    fn new(backend: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        fs::create_dir(directory.path().join("in")).expect("a directory can be made");
        for file in 0..FILES {
            let lines: String = (0..LINES).map(|line| format!("key-{}\n", (line * 7 + file) % KEYS)).collect();
            fs::write(directory.path().join(format!("in/{file}.txt")), lines).expect("a file can be written");
        }
        Self { directory, backend, runtime: tokio::runtime::Runtime::new().expect("a runtime") }
    }

    fn expected() -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (file, line) in (0..FILES).flat_map(|file| (0..LINES).map(move |line| (file, line))) {
            *counts.entry(format!("key-{}", (line * 7 + file) % KEYS)).or_default() += 1;
        }
        counts
    }

    fn start(&self, parallelism: usize, from: Option<&str>) -> Result<JobCluster> {
        let spec = self.spec(parallelism, "2ms", "250ms")?;
        JobCluster::start(restart_always(match from {
            Some(path) => spec.set("execution.state-recovery.path", path),
            None => spec,
        }))
    }

    fn spec(&self, parallelism: usize, throttle: &str, interval: &str) -> Result<ClusterSpec> {
        let path = |name| self.directory.path().join(name).display().to_string();
        Ok(ClusterSpec::new(program("checkpoint_example")?)
            .args(["--files".to_owned(), path("in")])
            .args(["--key-by", "record", "--throttle-count", throttle, "--checkpoints", "--interval", interval])
            .args(["--state-backend", self.backend, "--parallelism", &parallelism.to_string()])
            .args(["--checkpoint-dir".to_owned(), format!("file://{}", path("checkpoints"))])
            .set("execution.checkpointing.unaligned.enabled", "true")
            .set("execution.checkpointing.data-inline-threshold", "0")
            .taskmanagers(parallelism.min(2))
            .slots(parallelism.div_ceil(2) as u32))
    }

    /// Waits for a checkpoint that holds data that was in flight, and returns where it lies.
    fn overtaken(&self, cluster: &mut JobCluster) -> Result<String> {
        let options = StorageOptions::default();
        cluster.wait_for("checkpoint with data in flight", PATIENCE, |cluster| {
            let completed = cluster.state().ok().and_then(|state| state.completed().cloned());
            let Some((path, told)) = completed.and_then(|of| Some((of.external_path?, of.persisted_data))) else {
                return (None, "there is none yet".to_string());
            };
            let metadata = self.runtime.block_on(open_checkpoint(&path, &options));
            match metadata.map(|metadata| metadata.in_flight_size()) {
                Ok(bytes @ 1..) => {
                    assert_eq!(told, bytes, "what REST shows of {path}");
                    (Some(path), String::new())
                }
                other => (None, format!("{path}: {other:?}")),
            }
        })
    }

    fn survives_kills_and_new_parallelisms(&self) -> Result<()> {
        let (mut from, mut highest) = (None::<String>, BTreeMap::<String, u64>::new());
        for parallelism in [2, 3] {
            let mut cluster = self.start(parallelism, from.as_deref())?;
            cluster.wait_until_running()?;
            let path = self.overtaken(&mut cluster)?;
            for index in 0..cluster.taskmanagers_started() {
                cluster.kill_taskmanager(index)?;
            }
            cluster.kill_jobmanager()?;
            let mut outputs = Outputs::default();
            outputs.read(&cluster);
            assert!(outputs.total() < FILES * LINES, "it was killed with records before it");
            for (record, count) in outputs.highest {
                let highest = highest.entry(record).or_default();
                *highest = count.max(*highest);
            }
            is_shown(&path);
            from = Some(path);
        }
        let mut cluster = self.start(1, from.as_deref())?;
        let mut outputs = Outputs::default();
        outputs.highest = highest;
        cluster.wait_for("count of all records", PATIENCE, |cluster| {
            outputs.read(cluster);
            ((outputs.total() >= FILES * LINES).then_some(()), format!("{} records", outputs.total()))
        })?;
        // Behind its barrier everything that was in flight is printed.
        cluster.wait_for_new_checkpoint()?;
        cluster.wait_for_new_checkpoint()?;
        outputs.read(&cluster);
        let wrong = differences(&Self::expected(), &outputs.highest);
        assert!(wrong.is_empty(), "{}: {wrong:?}", self.backend);
        let restored = cluster.state()?.checkpoints.latest.restored.and_then(|restored| restored.external_path);
        println!("{}: restored {restored:?} from {from:?}", self.backend);
        cancel(&mut cluster)
    }
}

/// `millrace state show` tells what was in flight and verifies its files.
fn is_shown(checkpoint: &str) {
    let mut command = Command::new(program("millrace").expect("the command is built"));
    let output = command.args(["state", "show", checkpoint]).output().expect("the command can be run");
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{said}");
    assert!(shown.contains("  in flight from operator source by key: ") && shown.contains(" of str, "), "{shown}");
    assert!(shown.lines().any(|line| line.contains("  verified  in flight to subtask ")), "{shown}");
}

#[test]
fn every_record_counts_once_in_memory() -> Result<()> {
    Job::new("memory").survives_kills_and_new_parallelisms()
}

#[test]
fn every_record_counts_once_on_the_filesystem() -> Result<()> {
    Job::new("filesystem").survives_kills_and_new_parallelisms()
}

#[cfg(feature = "rocksdb")]
#[test]
fn every_record_counts_once_in_rocksdb() -> Result<()> {
    Job::new("rocksdb").survives_kills_and_new_parallelisms()
}

/// The counter, and the sink that it is chained to, work off less than a tenth of what the source could bring.
#[test]
fn checkpoints_complete_within_twice_their_interval_before_a_sink_that_is_ten_times_too_slow() -> Result<()> {
    let job = Job::new("filesystem");
    let mut cluster = JobCluster::start(job.spec(2, "20ms", "1s")?)?;
    cluster.wait_until_running()?;
    let state = cluster.wait_until("checkpoints", |state| state.checkpoints.counts.completed >= 8)?;
    let source = &state.job.vertices[0].metrics;
    let waited = source.accumulated_backpressured_time;
    assert!(waited >= 10 * source.accumulated_busy_time && waited > 4000, "backpressure: {source:?}");
    let completed = |checkpoint: &&CheckpointStatistics| checkpoint.status == CheckpointStatus::Completed;
    let history = state.checkpoints.history.iter().filter(completed);
    let durations: Vec<_> = history.map(|checkpoint| checkpoint.end_to_end_duration).collect();
    println!("checkpoints every second took {durations:?} ms; the source waited {waited} ms, {source:?}");
    assert!(durations.len() >= 8 && durations.iter().all(|ms| *ms <= 2000), "{durations:?}");
    assert_eq!(state.checkpoints.counts.failed, 0, "{state}");
    cancel(&mut cluster)
}
