//! A job's process, and what it says of itself.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::blocking::Client;
use tempfile::TempDir;

/// Where a counter is found: the beginning of its name, and a label that must be there.
#[derive(Clone, Debug)]
pub struct Counter {
    /// The port with the page.
    pub port: u16,
    /// The metric's name.
    pub name: &'static str,
    /// A part of its labels.
    pub label: &'static str,
}

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

    /// An error if it has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the job ended ({status})\n{}", self.log()),
        }
    }

    /// Waits until it ends, and returns what it has printed.
    pub fn finish(mut self) -> Result<String> {
        let status = self.process.wait()?;
        ensure!(status.success(), "the job failed ({status})\n{}", self.log());
        Ok(self.log())
    }

    /// What it has printed, the last lines of it.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Records that the counting operator has taken.
    pub fn records(&self) -> Result<u64> {
        self.read(&self.records)
    }

    /// Completed checkpoints.
    pub fn checkpoints(&self) -> Result<u64> {
        self.checkpoints.as_ref().map_or(Ok(0), |counter| self.read(counter))
    }

    fn read(&self, counter: &Counter) -> Result<u64> {
        let Counter { port, name, label } = counter;
        let page = self.client.get(format!("http://127.0.0.1:{port}/metrics")).send()?.error_for_status()?.text()?;
        let values = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(!values.is_empty(), "no {name} with {label} on port {port}");
        Ok(values.iter().sum::<f64>() as u64)
    }

    /// CPU time of the whole process.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // SAFETY: asks for a constant of the system.
        #[allow(unsafe_code)]
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second))
    }

    /// The most bytes that were resident.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody uses at the moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `java` with a job of `benches/flink`.
pub fn flink(home: &Path, class: &str) -> Command {
    const OPEN: &[&str] = &[
        "lang",
        "net",
        "io",
        "nio",
        "lang.reflect",
        "text",
        "time",
        "util",
        "util.concurrent",
        "util.concurrent.atomic",
    ];
    let mut command = Command::new("java");
    // Ample, as its documentation advises; only what is touched is resident.
    command.args(["-Xms6g", "-Xmx6g"]);
    for package in OPEN {
        command.arg(format!("--add-opens=java.base/java.{package}=ALL-UNNAMED"));
    }
    command.arg("-cp").arg(home.join("lib/*")).arg(format!("millrace.bench.{class}"));
    command
}
