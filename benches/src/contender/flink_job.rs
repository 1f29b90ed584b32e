//! A job on Flink: a program of `benches/flink`.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::Result;
use millrace_testkit::services::ports::free_port;
use tempfile::TempDir;

use super::{Counter, Running};

/// What Flink's own scripts open to it of a JVM of version 17.
const OPEN: &[&str] =
    &["lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent", "util.concurrent.atomic"];

/// A job that is about to be started as one process.
pub struct FlinkJob {
    command: Command,
    directory: TempDir,
    metrics: u16,
    checkpoints: bool,
}

impl FlinkJob {
    /// A job of `benches/flink`, by its class.
    pub fn new(home: &Path, class: &str) -> Result<Self> {
        let mut command = Command::new("java");
        // Ample, as its documentation advises; only what is touched is resident.
        command.args(["-Xms6g", "-Xmx6g"]);
        for package in OPEN {
            command.arg(format!("--add-opens=java.base/java.{package}=ALL-UNNAMED"));
        }
        command.arg("-cp").arg(home.join("lib/*")).arg(format!("millrace.bench.{class}"));
        let metrics = free_port();
        command.args(["--metrics-port", &metrics.to_string()]);
        Ok(Self { command, directory: tempfile::tempdir()?, metrics, checkpoints: false })
    }

    /// Adds arguments of the job.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Where state lives, `heap` or `rocksdb`, and the time between two checkpoints, or `off`.
    pub fn state(mut self, backend: &str, checkpoint: &str) -> Self {
        let directory = self.directory.path().join("checkpoints");
        self.checkpoints = checkpoint != "off";
        self.command.args(["--backend", backend, "--checkpoint", checkpoint]);
        self.command.args(["--checkpoint-dir", &format!("file://{}", directory.display())]);
        self
    }

    /// Records that the operator whose name begins so has taken.
    pub fn taken_by(&self, operator: &str) -> Counter {
        let name = "flink_taskmanager_job_task_operator_numRecordsIn{";
        Counter::Page { port: self.metrics, name, label: format!("operator_name=\"{operator}") }
    }

    /// Starts it.
    pub fn start(self, records: Counter) -> Result<Running> {
        let name = "flink_jobmanager_job_numberOfCompletedCheckpoints";
        let completed = Counter::Page { port: self.metrics, name, label: String::new() };
        Running::start(self.command, self.directory, records, self.checkpoints.then_some(completed))
    }
}
