//! One measurement: a job is started, runs warm, and is watched for a while through its own metrics.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::contender::{cpu, peak_memory};

/// A job that can be watched.
pub trait Watched {
    /// An error if it has ended.
    fn still_runs(&mut self) -> Result<()>;
    /// Records so far.
    fn records(&self) -> Result<u64>;
    /// Completed checkpoints.
    fn checkpoints(&self) -> Result<u64>;
    /// Its processes.
    fn processes(&self) -> Vec<u32>;
    /// What it has printed, the last lines of it.
    fn log(&self) -> String;
}

/// What a job did while it was watched.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Records a second.
    pub rate: f64,
    /// CPU seconds of its processes per million records.
    pub cpu_per_million: f64,
    /// The most memory that its processes have had resident, in MiB.
    pub peak_mib: f64,
    /// Checkpoints that were completed meanwhile.
    pub checkpoints: u64,
}

/// How long a job may take until its first record is counted.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// CPU time that a job has used.
fn used(job: &impl Watched) -> Result<Duration> {
    job.processes().into_iter().map(cpu).sum()
}

/// Waits until a job has taken its first record.
pub fn wait_for_first_record(job: &mut impl Watched, poll: Duration) -> Result<()> {
    let deadline = Instant::now() + START;
    while job.records().unwrap_or(0) == 0 {
        job.still_runs()?;
        if Instant::now() > deadline {
            bail!("no record within {START:?}\n{}", job.log());
        }
        thread::sleep(poll);
    }
    Ok(())
}

/// Watches a job for `time`, after it has run for `warm_up`.
pub fn watch(job: &mut impl Watched, warm_up: Duration, time: Duration) -> Result<Measurement> {
    wait_for_first_record(job, POLL)?;
    thread::sleep(warm_up);
    let (records, before, checkpoints, since) = (job.records()?, used(job)?, job.checkpoints()?, Instant::now());
    thread::sleep(time);
    let (records, took) = (job.records()? - records, since.elapsed());
    let (cpu, checkpoints) = (used(job)? - before, job.checkpoints()? - checkpoints);
    let peak = job.processes().into_iter().map(peak_memory).sum::<Result<u64>>()?;
    job.still_runs()?;
    Ok(Measurement {
        rate: records as f64 / took.as_secs_f64(),
        cpu_per_million: cpu.as_secs_f64() / (records as f64 / 1e6),
        peak_mib: peak as f64 / f64::from(1 << 20),
        checkpoints,
    })
}
