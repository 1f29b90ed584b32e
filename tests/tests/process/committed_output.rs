//! Output in Kafka transactions, while taskmanagers and jobmanagers are killed: a reader that runs all the time sees each
//! record once, the records of a key in their order, and is never held up for long.

use std::{
    thread,
    time::{Duration, Instant},
};

use millrace_testkit::{
    cluster::{JobCluster, PATIENCE, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::{
    committed::CommittedReader,
    committing_example,
    feed::{Feed, PARTITIONS, Target},
    printed::differences,
    restart_always, unique,
};

use crate::cancel;

const KILLS: u32 = 10;
/// One in so many hits the jobmanager.
const JOBMANAGER_EACH: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(300);
/// What is silent is lost after this.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Starting a process and the job on a busy machine; what a dead attempt has left open is aborted in it, long before
/// Kafka would do so by itself (15 minutes).
const RECOVERY: Duration = Duration::from_secs(30);
/// Readers wait no longer than this after a kill: it is noticed, the job goes on, and its next checkpoint commits.
const LONGEST_WAIT: Duration = HEARTBEAT_TIMEOUT.saturating_add(RECOVERY).saturating_add(INTERVAL);

#[test]
fn committed_output_is_seen_once_and_in_order_through_kills() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let (input, output) = (unique("to-be-counted"), unique("counted"));
    kafka.create_topic(&input, PARTITIONS)?;
    // One partition: its order is what is checked, and lines have no keys.
    kafka.create_topic(&output, 1)?;
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let spec = committing_example(kafka, &input, &output, INTERVAL, checkpoints.path())?
        .set("heartbeat.timeout", format!("{} s", HEARTBEAT_TIMEOUT.as_secs()));
    let mut cluster = JobCluster::start(restart_always(spec))?;
    let reader = CommittedReader::start(kafka, &output)?;
    cluster.wait_until_running()?;
    let feed = Feed::start(Target::Kafka(kafka, &input), 7);
    let mut alive = [0, 1];
    let mut longest = Duration::ZERO;
    for kill in 1..=KILLS {
        wait_for_output(&mut cluster, &reader, reader.total() + 1)?;
        // Where within a checkpoint's life the kill comes differs from kill to kill.
        thread::sleep(INTERVAL * (kill % 7) / 7);
        if kill % JOBMANAGER_EACH == 0 {
            cluster.kill_jobmanager()?;
            cluster.restart_jobmanager()?;
        } else {
            let victim = &mut alive[(kill % 2) as usize];
            cluster.kill_taskmanager(*victim)?;
            *victim = cluster.start_taskmanager()?;
        }
        let (killed, at_kill) = (Instant::now(), reader.total());
        // What was already under way to the reader may still come: what follows a new checkpoint is of the next attempt.
        cluster.wait_for_new_checkpoint()?;
        wait_for_output(&mut cluster, &reader, at_kill + 1)?;
        longest = longest.max(killed.elapsed());
    }
    assert!(longest < LONGEST_WAIT, "readers waited for {longest:.1?}, longer than {LONGEST_WAIT:?}");
    let written = feed.finish();
    wait_for_output(&mut cluster, &reader, written.values().sum())?;
    let state = cluster.state()?;
    assert_eq!(state.job.generation.0, u64::from(KILLS / JOBMANAGER_EACH) + 1, "the jobmanagers were killed: {state}");
    cancel(&mut cluster)?;
    let mut seen = reader.end();
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    assert_eq!(seen.counts, written, "{:?}", differences(&written, &seen.counts));
    seen.latencies.sort_unstable();
    let at = |share: usize| seen.latencies[(seen.latencies.len() - 1) * share / 100];
    println!(
        "{KILLS} kills, {} records, each seen once and in order; checkpoints every {INTERVAL:?}; from processing to a \
         reader: median {} ms, 90 % {} ms, 99 % {} ms, longest {} ms; the longest wait for output after a kill \
         {longest:.1?}",
        seen.latencies.len(),
        at(50),
        at(90),
        at(99),
        at(100),
    );
    Ok(())
}

fn wait_for_output(cluster: &mut JobCluster, reader: &CommittedReader, at_least: u64) -> Result<()> {
    cluster.wait_for("committed output", PATIENCE, |cluster| {
        let seen = reader.total();
        let state = cluster.state().map_or_else(|error| error.to_string(), |state| state.to_string());
        ((seen >= at_least).then_some(()), format!("{seen} of {at_least} records; {state}"))
    })
}
