//! One measurement: a job is started, runs warm, and is watched for a while through its own metrics.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::contender::Running;

/// What a job did while it was watched.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Records a second.
    pub rate: f64,
    /// CPU seconds of the whole process per million records.
    pub cpu_per_million: f64,
    /// The most memory that the process has had resident, in MiB.
    pub peak_mib: f64,
    /// Checkpoints that were completed meanwhile.
    pub checkpoints: u64,
}

/// How long a job may take until its first record is counted.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Watches a job for `time`, after it has run for `warm_up`.
pub fn watch(job: &mut Running, warm_up: Duration, time: Duration) -> Result<Measurement> {
    let deadline = Instant::now() + START;
    while job.records().unwrap_or(0) == 0 {
        job.still_runs()?;
        if Instant::now() > deadline {
            bail!("no record within {START:?}\n{}", job.log());
        }
        thread::sleep(POLL);
    }
    thread::sleep(warm_up);
    let (records, cpu, checkpoints, since) = (job.records()?, job.cpu()?, job.checkpoints()?, Instant::now());
    thread::sleep(time);
    let (records, took) = (job.records()? - records, since.elapsed());
    let (cpu, checkpoints) = (job.cpu()? - cpu, job.checkpoints()? - checkpoints);
    job.still_runs()?;
    Ok(Measurement {
        rate: records as f64 / took.as_secs_f64(),
        cpu_per_million: cpu.as_secs_f64() / (records as f64 / 1e6),
        peak_mib: job.peak_memory()? as f64 / f64::from(1 << 20),
        checkpoints,
    })
}
