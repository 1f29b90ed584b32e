//! What a process takes of memory, idle and at work, and how long it takes from its start to its first record.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use millrace_testkit::cluster::{ClusterSpec, JobCluster, program};

use crate::{
    Arguments,
    case::{Case, Cell, Row, median},
    contender::{Running, resident_memory},
    keyed_count::KeyedCount,
    measure::wait_for_first_record,
};

const KEYS: u64 = 1_000_000;
/// How exactly the first record is seen.
const POLL: Duration = Duration::from_millis(1);

struct Process;

/// The only cell.
pub fn cases() -> Vec<Box<dyn Case>> {
    vec![Box::new(Process)]
}

impl Case for Process {
    fn name(&self) -> String {
        format!("process job=keyed-count backend=heap keys={KEYS}")
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let job = KeyedCount::on_heap(KEYS, 1, "off");
        let mut cells = memory(arguments, &job)?;
        let ours = (0..arguments.runs).map(|_| first_record(|| job.endless()));
        let ours = median(&ours.collect::<Result<Vec<_>>>()?);
        cells.push(Cell::number("first-record", ours, format!("{ours:.0}ms")));
        if let Some(home) = &arguments.flink {
            let flink = first_record(|| job.endless_on_flink(home))?;
            cells.push(Cell::number("flink-first-record", flink, format!("{flink:.0}ms")));
        }
        Ok(Row { name: self.name(), cells })
    }
}

/// A jobmanager, a taskmanager with the job, and one without.
fn memory(arguments: &Arguments, job: &KeyedCount) -> Result<Vec<Cell>> {
    let spec = ClusterSpec::new(program("keyed_count")?).args(job.endless_arguments());
    let mut cluster = JobCluster::start(spec.taskmanagers(2))?;
    let state = cluster
        .wait_until("a busy and an idle taskmanager", |state| state.is_running() && state.taskmanagers.len() == 2)?;
    let busy = *cluster.busy_taskmanagers(&state).first().context("no taskmanager has the job")?;
    thread::sleep(arguments.warm_up);
    let cell = |key, process| -> Result<Cell> {
        let mib = resident_memory(process)? as f64 / f64::from(1 << 20);
        Ok(Cell::number(key, mib, format!("{mib:.0}MiB")))
    };
    [
        cell("jobmanager", cluster.jobmanager_pid()),
        cell("idle-taskmanager", cluster.taskmanager_pid(1 - busy)),
        cell("loaded-taskmanager", cluster.taskmanager_pid(busy)),
    ]
    .into_iter()
    .collect()
}

/// Milliseconds from the start of a job's process to its first record.
fn first_record(start: impl FnOnce() -> Result<Running>) -> Result<f64> {
    let began = Instant::now();
    let mut job = start()?;
    wait_for_first_record(&mut job, POLL)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
