//! Starts a cluster's processes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use millrace_core::ids::JobId;
use serde::Deserialize;

use super::{ClusterSpec, Error, JobEnd, PATIENCE, Result};
use crate::services::{ports::free_port, process::ManagedProcess, workdir::WorkDir};

/// What a jobmanager says of itself in the cluster directory.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Announcement {
    /// Its process.
    pub(super) pid: u32,
    /// Where its REST server is.
    pub(super) rest_address: String,
    /// How the job ended, once it has.
    pub(super) end: Option<JobEnd>,
}

/// Starts processes.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) spec: ClusterSpec,
    pub(super) job: JobId,
    pub(super) dir: WorkDir,
    rpc_port: u16,
    jobmanagers: usize,
}

impl Launcher {
    /// Has a directory and an address for the job's jobmanagers.
    pub(super) fn new(spec: ClusterSpec) -> Result<Self> {
        let dir = WorkDir::new("cluster")?;
        // Not 0: taskmanagers look for a jobmanager that comes back where it was.
        let rpc_port = free_port();
        Ok(Self { spec, job: JobId(uuid::Uuid::new_v4().as_u128()), rpc_port, jobmanagers: 0, dir })
    }

    /// Starts a jobmanager and waits until it has announced itself.
    pub(super) fn jobmanager(&mut self) -> Result<(ManagedProcess, Announcement)> {
        self.jobmanagers += 1;
        let name = format!("jobmanager-{}", self.jobmanagers);
        let mut process = ManagedProcess::spawn(&name, &self.command("jobmanager", &self.spec), self.dir.path())?;
        let pid = process.pid();
        let mut announcement = None;
        process.wait_until("announcement", PATIENCE, |_| {
            announcement = self.announcement().ok().flatten().filter(|announcement| announcement.pid == pid);
            announcement.is_some()
        })?;
        Ok((process, announcement.expect("it was waited for")))
    }

    /// Starts a taskmanager.
    pub(super) fn taskmanager(&self, index: usize, spec: &ClusterSpec) -> Result<ManagedProcess> {
        Ok(ManagedProcess::spawn(&taskmanager_name(index), &self.command("taskmanager", spec), self.dir.path())?)
    }

    /// Where the jobmanagers listen for taskmanagers.
    pub(super) fn jobmanager_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.rpc_port))
    }

    /// The file that the newest jobmanager logs to.
    pub(super) fn jobmanager_log_file(&self) -> PathBuf {
        self.dir.path().join(format!("jobmanager-{}.err", self.jobmanagers))
    }

    fn command(&self, role: &str, spec: &ClusterSpec) -> Command {
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).current_dir(self.dir.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MILLRACE_") {
                command.env_remove(name);
            }
        }
        let cluster = self.cluster_directory();
        let own = [
            ("job.id", self.job.to_string()),
            ("cluster.directory", cluster.display().to_string()),
            ("jobmanager.rpc.port", self.rpc_port.to_string()),
            ("rest.port", "0".to_owned()),
            ("taskmanager.numberOfTaskSlots", spec.slots.to_string()),
        ];
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let given = spec.config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // A later line for the same key wins.
        let lines: String = own.chain(given).map(|(key, value)| format!("{key}={value}\n")).collect();
        command.envs(spec.env.iter().map(|(name, value)| (name, value)));
        command.env("MILLRACE_ROLE", role).env("MILLRACE_OVERRIDES", lines);
        command
    }

    fn cluster_directory(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// What the last jobmanager that has announced itself says.
    pub(super) fn announcement(&self) -> Result<Option<Announcement>> {
        let path = self.cluster_directory().join(format!("{}.json", self.job));
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text,
        };
        let read = text.and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.map(Some).map_err(|source| Error::File { path, source })
    }
}

/// What a taskmanager's files are called.
pub(super) fn taskmanager_name(index: usize) -> String {
    format!("taskmanager-{index}")
}
