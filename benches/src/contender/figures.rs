//! What is known of a process from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::services::kafka::KafkaClient;
use reqwest::blocking::Client;

/// Where a count is found.
#[derive(Clone, Debug)]
pub enum Counter {
    /// On a page for Prometheus: the sum of all lines that begin so and have these labels.
    Page {
        /// The port with the page.
        port: u16,
        /// The beginning of the metric's name.
        name: &'static str,
        /// A part of its labels.
        label: String,
    },
    /// The records of a topic, those of open transactions too.
    Topic(KafkaClient, String),
}

impl Counter {
    /// The count now.
    pub fn read(&self, client: &Client) -> Result<u64> {
        let (port, name, label) = match self {
            Self::Page { port, name, label } => (port, name, label),
            Self::Topic(kafka, topic) => return Ok(kafka.end_offsets(topic)?.values().sum::<i64>() as u64),
        };
        let page = client.get(format!("http://127.0.0.1:{port}/metrics")).send()?.error_for_status()?.text()?;
        let values = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(!values.is_empty(), "no {name} with {label} on port {port}");
        Ok(values.iter().sum::<f64>() as u64)
    }
}

/// CPU time that a process has used.
pub fn cpu(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // SAFETY: asks for a constant of the system.
    #[allow(unsafe_code)]
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second))
}

/// The most bytes that a process has had resident.
pub fn peak_memory(process: u32) -> Result<u64> {
    status(process, "VmHWM:")
}

/// Bytes that a process has resident.
pub fn resident_memory(process: u32) -> Result<u64> {
    status(process, "VmRSS:")
}

fn status(process: u32, line: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)).with_context(|| format!("no {line}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
