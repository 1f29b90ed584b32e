//! A job's process, and what it says of itself.

mod figures;
mod flink_job;
mod millrace_job;

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::blocking::Client;
use tempfile::TempDir;

use crate::measure::Watched;

pub use figures::{Counter, cpu, peak_memory, resident_memory};
pub use flink_job::FlinkJob;
pub use millrace_job::MillraceJob;

/// A job that runs; ended when it is dropped.
pub struct Running {
    process: Child,
    directory: TempDir,
    client: Client,
    records: Counter,
    checkpoints: Option<Counter>,
}

impl Running {
    /// Starts a job whose checkpoints and log go to a directory of its own.
    pub fn start(
        mut command: Command,
        directory: TempDir,
        records: Counter,
        checkpoints: Option<Counter>,
    ) -> Result<Self> {
        let log = File::create(directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { process, directory, client: Client::new(), records, checkpoints })
    }

    /// Waits until it ends, and returns what it has printed.
    pub fn finish(mut self) -> Result<String> {
        let status = self.process.wait()?;
        ensure!(status.success(), "the job failed ({status})\n{}", self.log());
        Ok(self.log())
    }
}

impl Watched for Running {
    fn still_runs(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the job ended ({status})\n{}", self.log()),
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn records(&self) -> Result<u64> {
        self.records.read(&self.client)
    }

    fn checkpoints(&self) -> Result<u64> {
        self.checkpoints.as_ref().map_or(Ok(0), |counter| counter.read(&self.client))
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.process.id()]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
