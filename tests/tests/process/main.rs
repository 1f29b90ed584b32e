//! Jobs as real processes, with a real Kafka broker and a real object store, killed with SIGKILL.
//!
//! The programs are those that cargo has built for the workspace: `cargo build -p millrace-examples -p millrace-worker`.

mod adaptive;
mod attack;
mod committed_output;
mod demonstration;
mod exactly_once;
mod in_flight;
mod kills;
mod orchestrated;
mod recovery;
mod regions;
mod rest_document;
mod state_command;
mod store_first;
mod two_channels;
mod unaligned;
mod without_checkpoints;

use std::ops::Range;

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{JobCluster, JobState, PATIENCE, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::printed::{Line, lines};

/// Writes `<name>-<number>` for each number.
fn write(kafka: &KafkaBroker, topic: &str, name: &str, numbers: Range<u64>) -> Result<()> {
    let records = numbers.map(|number| (None::<&[u8]>, format!("{name}-{number}")));
    Ok(kafka.produce(topic, records)?)
}

/// Waits until a taskmanager has printed a line that is looked for.
fn wait_for_line(
    cluster: &mut JobCluster,
    taskmanager: usize,
    what: &str,
    found: impl Fn(&Line) -> bool,
) -> Result<()> {
    cluster.wait_for(&format!("line {what}"), PATIENCE, |cluster| {
        let printed = lines(&cluster.stdout(taskmanager));
        (printed.iter().any(&found).then_some(()), format!("{} lines, the last {:?}", printed.len(), printed.last()))
    })
}

/// Waits until a taskmanager has printed this record.
fn wait_for_record(cluster: &mut JobCluster, taskmanager: usize, record: &str) -> Result<()> {
    wait_for_line(cluster, taskmanager, record, |line| line.record == record)
}

/// Kills the job's only taskmanager and waits until the jobmanager has seen it and waits for another one.
fn kill_the_only_taskmanager(cluster: &mut JobCluster) -> Result<JobState> {
    cluster.kill_taskmanager(0)?;
    let state = cluster.wait_until("job that waits for a taskmanager", |state| {
        state.job.state == JobStatus::Restarting && state.job.waiting_for.is_some()
    })?;
    assert!(state.taskmanagers.is_empty() && state.job.restarts == 1, "the kill was noticed: {state}");
    Ok(state)
}

/// Cancels the job and waits until all processes that were left have ended.
fn cancel(cluster: &mut JobCluster) -> Result<()> {
    cluster.cancel()?;
    assert_eq!(cluster.wait_end()?.state, JobStatus::Canceled);
    Ok(())
}
