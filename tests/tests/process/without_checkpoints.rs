//! Checkpoints off: after a failure the source begins at `latest` again and the state is gone.

use millrace_testkit::{
    cluster::{JobCluster, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::{checkpoint_example, printed::lines, restart_always, unique};

use crate::{cancel, kill_the_only_taskmanager, wait_for_record, write};

/// What "the counts are right for what was seen" means: the counts that an incarnation of the counter prints number
/// the records that it has read, in their order, from 1 on and without a gap or a repetition. Records that were written
/// between two incarnations are read by none.
#[test]
fn what_is_written_during_the_failure_is_never_seen_and_each_incarnation_counts_from_1() -> Result<()> {
    let (kafka, topic) = (KafkaBroker::shared(), unique("off"));
    kafka.create_topic(&topic, 1)?;
    let mut cluster = JobCluster::start(restart_always(checkpoint_example(kafka, &topic)?))?;
    cluster.wait_until_running()?;
    write(kafka, &topic, "before", 0..100)?;
    wait_for_record(&mut cluster, 0, "before-99")?;

    kill_the_only_taskmanager(&mut cluster)?;
    write(kafka, &topic, "meanwhile", 0..50)?;

    let second = cluster.start_taskmanager()?;
    let state = cluster.wait_until_running()?;
    assert_eq!((state.job.restarts, state.job.attempt.0), (1, 2), "{state}");
    assert!(state.job.last_recovery.is_some(), "the job recovered");
    assert_eq!((state.recovered_from(), state.checkpoints.counts.total), (None, 0), "from nothing");
    write(kafka, &topic, "after", 0..70)?;
    // The topic has one partition: what comes before this record can't come any more behind it.
    wait_for_record(&mut cluster, second, "after-69")?;
    cancel(&mut cluster)?;

    let expected = |name: &str, count: u64| (0..count).map(|i| (format!("{name}-{i}"), i + 1)).collect::<Vec<_>>();
    let printed = |index| {
        let printed = lines(&cluster.stdout(index));
        printed.into_iter().map(|line| (line.record, line.count)).collect::<Vec<_>>()
    };
    assert_eq!(printed(0), expected("before", 100));
    assert_eq!(printed(second), expected("after", 70), "no record from the time of the failure, and counts from 1");
    Ok(())
}
