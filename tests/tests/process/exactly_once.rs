//! Checkpoints on, exactly once: nothing is lost, and the counter goes on as if nothing had happened.

use std::collections::BTreeSet;

use millrace_testkit::{
    cluster::{JobCluster, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::{
    checkpoint_example,
    printed::{Line, lines},
    restart_always, unique,
};

use crate::{cancel, kill_the_only_taskmanager, wait_for_record, write};

/// The records that are in a checkpoint, that come after it, that are written during the failure, and after it.
const COVERED: u64 = 100;
const NEWER: u64 = COVERED + 30;
const MEANWHILE: u64 = NEWER + 50;
const ALL: u64 = MEANWHILE + 20;

/// The topic has one partition, so the records have one order, and the counter is right exactly if it numbers them in
/// it: record i is printed with number i + 1, whenever it is printed. What was printed after the last checkpoint is
/// printed again, with the same numbers: a print can't be taken back.
#[test]
fn no_record_is_lost_and_each_has_its_number_also_across_the_failure() -> Result<()> {
    let (kafka, topic) = (KafkaBroker::shared(), unique("exactly-once"));
    kafka.create_topic(&topic, 1)?;
    let spec = checkpoint_example(kafka, &topic)?.args(["--checkpoints", "--interval", "1000ms"]);
    let mut cluster = JobCluster::start(restart_always(spec.args(["--mode", "exactly-once"])))?;
    cluster.wait_until_running()?;
    write(kafka, &topic, "record", 0..COVERED)?;
    wait_for_record(&mut cluster, 0, &format!("record-{}", COVERED - 1))?;
    cluster.wait_for_new_checkpoint()?;
    write(kafka, &topic, "record", COVERED..NEWER)?;
    wait_for_record(&mut cluster, 0, &format!("record-{}", NEWER - 1))?;

    let state = kill_the_only_taskmanager(&mut cluster)?;
    let newest = state.completed().expect("a checkpoint was waited for").id;
    write(kafka, &topic, "record", NEWER..MEANWHILE)?;

    let second = cluster.start_taskmanager()?;
    let state = cluster.wait_until_running()?;
    assert_eq!(state.recovered_from(), Some(newest), "the newest checkpoint is restored: {state}");
    assert_eq!(state.job.restarts, 1, "{state}");
    write(kafka, &topic, "record", MEANWHILE..ALL)?;
    wait_for_record(&mut cluster, second, &format!("record-{}", ALL - 1))?;
    cancel(&mut cluster)?;

    let (first, second) = (lines(&cluster.stdout(0)), lines(&cluster.stdout(second)));
    for Line { record, count, .. } in first.iter().chain(&second) {
        assert_eq!(*record, format!("record-{}", count - 1), "a record has one number, and a number one record");
    }
    let counts = |lines: &[Line]| lines.iter().map(|line| line.count).collect::<Vec<_>>();
    assert_eq!(counts(&first), (1..=NEWER).collect::<Vec<_>>());
    let restored = counts(&second)[0] - 1;
    assert!(
        (COVERED..=NEWER).contains(&restored),
        "the state begins at {restored}, as in a checkpoint behind {COVERED}"
    );
    assert_eq!(counts(&second), (restored + 1..=ALL).collect::<Vec<_>>(), "and goes on without a gap or a repetition");
    let all: BTreeSet<_> = first.iter().chain(&second).map(|line| line.count).collect();
    assert_eq!(all, (1..=ALL).collect(), "no record is lost");
    Ok(())
}
