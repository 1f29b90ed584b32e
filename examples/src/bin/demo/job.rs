//! The job's processes, started and looked at as a user would: by the `millrace` command and by REST.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{Result, input::Input};

/// A running job. Dropping it ends its processes.
pub struct Job {
    /// Its id.
    pub id: String,
    /// Where its jobmanager answers.
    pub rest: String,
    /// Where its processes' output goes.
    pub logs: PathBuf,
    millrace: PathBuf,
    cluster: PathBuf,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    ended: std::cell::Cell<bool>,
}

impl Job {
    /// Starts `checkpoint_example` with a jobmanager and two taskmanagers.
    pub fn start(input: &Input, directory: &Path) -> Result<Self> {
        let binaries = std::env::current_exe()?.parent().ok_or("the demo has no directory")?.to_path_buf();
        let (millrace, cluster) = (binaries.join("millrace"), directory.join("cluster"));
        let logs = directory.join("log");
        let output = Command::new(&millrace)
            .args(["run", "--taskmanagers", "2", "--detached", "--log-dir"])
            .arg(&logs)
            .arg(binaries.join("checkpoint_example"))
            .arg("--")
            .args(input.arguments())
            .args(["--checkpoints", "--interval", "1000ms", "--mode", "exactly-once"])
            .args(["--state-backend", "filesystem", "--checkpoint-dir"])
            .arg(format!("file://{}", directory.join("checkpoints").display()))
            .env("MILLRACE_CLUSTER_DIRECTORY", &cluster)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{} can't be run: {error}", millrace.display()))?;
        let id = String::from_utf8(output.stdout)?.trim().to_string();
        if !output.status.success() || id.is_empty() {
            return Err("the job did not start".into());
        }
        let announcement = std::fs::read(cluster.join(format!("{id}.json")))?;
        let announcement: Value = serde_json::from_slice(&announcement)?;
        let address = announcement["rest_address"].as_str().ok_or("the jobmanager announced no address")?;
        Ok(Self {
            rest: format!("http://{address}"),
            id,
            logs,
            millrace,
            cluster,
            client: reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            ended: std::cell::Cell::new(false),
        })
    }

    fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.rest);
        Ok(self.runtime.block_on(async { self.client.get(url).send().await?.error_for_status()?.json().await })?)
    }

    /// How many checkpoints are complete.
    pub fn completed_checkpoints(&self) -> Result<u64> {
        let checkpoints = self.get(&format!("/jobs/{}/checkpoints", self.id))?;
        Ok(checkpoints["counts"]["completed"].as_u64().unwrap_or(0))
    }

    /// How often the job was started again.
    pub fn restarts(&self) -> Result<u64> {
        Ok(self.get(&format!("/jobs/{}", self.id))?["restarts"].as_u64().unwrap_or(0))
    }

    /// The process of the taskmanager whose slot is in use.
    pub fn taskmanager_with_the_counter(&self) -> Result<u64> {
        let all = self.get("/taskmanagers")?;
        let busy = all["taskmanagers"].as_array().into_iter().flatten().find(|tm| tm["freeSlots"] == 0);
        busy.and_then(|tm| tm["pid"].as_u64()).ok_or_else(|| "no taskmanager holds the counter".into())
    }

    /// Ends a process as `kill -9` does.
    pub fn kill(&self, pid: u64) -> Result<()> {
        let status = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("process {pid} can't be killed").into()) }
    }

    /// Cancels the job, which ends its processes.
    pub fn cancel(&self) -> Result<()> {
        self.ended.set(true);
        let status = Command::new(&self.millrace)
            .args(["cancel", &self.id])
            .env("MILLRACE_CLUSTER_DIRECTORY", &self.cluster)
            .stdout(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err("the job can't be cancelled".into()) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended.get()
            && let Err(error) = self.cancel()
        {
            eprintln!("demo: {error}");
        }
    }
}

/// Whether a process has ended, reaped or not.
pub fn is_gone(pid: u64) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}
