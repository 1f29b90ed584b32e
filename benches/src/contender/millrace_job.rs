//! A job on Millrace.

use std::{
    env,
    ffi::OsStr,
    fmt::{Display, Write},
    process::Command,
};

use anyhow::Result;
use millrace_testkit::services::ports::free_port;
use tempfile::TempDir;

use super::{Counter, Running};

/// A job that is about to be started as one process, with ports and a directory of its own.
pub struct MillraceJob {
    command: Command,
    directory: TempDir,
    settings: String,
    metrics: u16,
    rest: u16,
    checkpoints: bool,
}

impl MillraceJob {
    /// A program that was built with this one.
    pub fn new(program: &str) -> Result<Self> {
        let command = Command::new(env::current_exe()?.with_file_name(program));
        let (metrics, rest) = (free_port(), free_port());
        let job = Self {
            command,
            directory: tempfile::tempdir()?,
            settings: String::new(),
            metrics,
            rest,
            checkpoints: false,
        };
        let local = job.directory.path().join("rocksdb");
        Ok(job
            .set("metrics.port", metrics)
            .set("rest.port", rest)
            .set("state.backend.rocksdb.localdir", local.display())
            // As much as Flink's managed memory, see Settings.java.
            .set("state.backend.rocksdb.memory.size", "2gb"))
    }

    /// Adds arguments of the program.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a configuration key.
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        let _ = writeln!(self.settings, "{key}={value}");
        self
    }

    /// Where state lives, `heap` or `rocksdb`, and the time between two checkpoints, or `off`.
    pub fn state(mut self, backend: &str, checkpoint: &str) -> Self {
        let directory = self.directory.path().join("checkpoints");
        self = self
            .set("state.backend", if backend == "heap" { "filesystem" } else { backend })
            .set("state.checkpoints.dir", format_args!("file://{}", directory.display()))
            .set("execution.checkpointing.incremental", "true");
        self.checkpoints = checkpoint != "off";
        if self.checkpoints { self.set("execution.checkpointing.interval", checkpoint) } else { self }
    }

    /// Records that the task whose name begins so has taken.
    pub fn taken_by(&self, task: &str) -> Counter {
        let name = "millrace_taskmanager_job_task_numRecordsIn{";
        Counter::Page { port: self.metrics, name, label: format!("task_name=\"{task}") }
    }

    /// Where REST is served.
    pub fn rest(&self) -> u16 {
        self.rest
    }

    /// Starts it.
    pub fn start(mut self, records: Counter) -> Result<Running> {
        self.command.env("MILLRACE_OVERRIDES", self.settings);
        let name = "millrace_jobmanager_job_numberOfCompletedCheckpoints";
        let completed = Counter::Page { port: self.rest, name, label: String::new() };
        Running::start(self.command, self.directory, records, self.checkpoints.then_some(completed))
    }
}
