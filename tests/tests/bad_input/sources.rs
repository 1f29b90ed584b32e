//! Sources that can't be reached or read.

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, PATIENCE, Result},
    services::{kafka::KafkaBroker, ports::free_port},
};
use millrace_tests::process::unique;

use crate::{
    assert_calm, assert_says, cancel, counts, failed, http_get, job, restarting, wait_for_count, wait_for_exception,
};

fn job_of(broker: &str, topic: &str) -> ClusterSpec {
    job().args(["--kafka", broker, "--topic", topic])
}

#[test]
fn an_unreachable_broker_is_named_and_tried_again_as_the_strategy_says() -> Result<()> {
    let broker = format!("127.0.0.1:{}", free_port());
    let spec = restarting(job_of(&broker, "words").args(["--checkpoints", "100"]), "10 s");
    let mut cluster = JobCluster::start(spec)?;
    let exception = wait_for_exception(&mut cluster, &broker)?;
    assert_eq!((exception.exception_name.as_str(), exception.retryable), ("external", true), "{exception:?}");
    let state = cluster.wait_until("restart", |state| state.job.state == JobStatus::Restarting)?;
    assert_eq!(state.checkpoints.counts.total, 0, "{state}");
    cancel(&mut cluster)?;
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn an_unknown_topic_fails_the_job_without_a_restart() -> Result<()> {
    let (kafka, topic) = (KafkaBroker::shared(), unique("no-such-topic"));
    let spec = restarting(job_of(&kafka.bootstrap(), &topic).args(["--checkpoints", "100"]), "0 ms");
    let mut cluster = JobCluster::start(spec)?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &[&topic, "a restart can't cure it"]);
    assert!(!cluster.jobmanager_log().contains("the job restarts"), "{}", cluster.jobmanager_log());
    assert_calm(&cluster);
    Ok(())
}

/// A topic of one partition with this many words.
fn topic_with_words(kafka: &KafkaBroker, name: &str, words: u32) -> Result<String> {
    let topic = unique(name);
    kafka.create_topic(&topic, 1)?;
    kafka.produce_to(&topic, 0, (0..words).map(|number| format!("word-{number}")))?;
    Ok(topic)
}

#[test]
fn a_topic_that_is_deleted_under_a_running_job_is_named_with_what_was_read() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let topic = topic_with_words(kafka, "deleted", 10)?;
    let spec = job_of(&kafka.bootstrap(), &topic).args(["--checkpoints", "100"]);
    let mut cluster = JobCluster::start(restarting(spec, "10 min"))?;
    wait_for_count(&mut cluster, 10)?;
    kafka.delete_topic(&topic)?;
    let exception = wait_for_exception(&mut cluster, "no longer exists")?;
    assert_says(&exception.stacktrace, &[&format!("topic {topic}"), &kafka.bootstrap(), "offset 10"]);
    cancel(&mut cluster)?;
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_topic_that_is_created_anew_under_a_running_job_fails_it_instead_of_being_read_on() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let topic = topic_with_words(kafka, "anew", 10)?;
    let spec = job_of(&kafka.bootstrap(), &topic).args(["--checkpoints", "100"]);
    let mut cluster = JobCluster::start(restarting(spec, "0 ms"))?;
    wait_for_count(&mut cluster, 10)?;
    kafka.delete_topic(&topic)?;
    cluster.wait_for("topic that can be created again", PATIENCE, |_| {
        let created = kafka.create_topic(&topic, 1);
        (created.is_ok().then_some(()), format!("{created:?}"))
    })?;
    kafka.produce_to(&topic, 0, ["one", "two"])?;
    let error = failed(&mut cluster)?;
    assert_says(
        &error,
        &[&format!("topic {topic}"), "created anew", "without its checkpoint", "a restart can't cure it"],
    );
    assert_eq!(counts(&cluster.stdout(0)).len(), 10, "nothing of the new topic was taken for the old one's");
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn an_offset_that_a_topic_does_not_have_any_more_fails_the_job_by_its_range() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let topic = topic_with_words(kafka, "truncated", 10)?;
    let place = tempfile::tempdir().expect("a directory can be made");
    let spec = job_of(&kafka.bootstrap(), &topic)
        .args(["--checkpoints", "100"])
        .set("state.checkpoints.dir", format!("file://{}", place.path().display()));
    let mut cluster = JobCluster::start(restarting(spec, "0 ms"))?;
    wait_for_count(&mut cluster, 10)?;
    cluster.wait_for_new_checkpoint()?;
    cluster.kill_taskmanager(0)?;
    // While nobody reads, more is written than is kept.
    kafka.produce_to(&topic, 0, (10..30).map(|number| format!("word-{number}")))?;
    kafka.delete_records(&topic, 0, 25)?;
    cluster.start_taskmanager()?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &["offset 10 of partition 0", &format!("topic {topic}"), "25..30", "a restart can't cure it"]);
    assert_calm(&cluster);
    Ok(())
}

/// A topic of four messages, of which the second is not text.
fn topic_with_garbage(kafka: &KafkaBroker) -> Result<String> {
    let topic = unique("undecodable");
    kafka.create_topic(&topic, 1)?;
    let values: [&[u8]; 4] = [b"a", b"\xff\xfe\x00", b"b", b"c"];
    kafka.produce_to(&topic, 0, values)?;
    Ok(topic)
}

#[test]
fn a_record_that_is_none_fails_the_job_by_its_offset() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let topic = topic_with_garbage(kafka)?;
    let spec = job_of(&kafka.bootstrap(), &topic).args(["--checkpoints", "100"]);
    let mut cluster = JobCluster::start(restarting(spec, "0 ms"))?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &[&format!("{topic}-0@1"), "can't be decoded", "utf-8", "SkipAndCount"]);
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn records_that_are_none_are_left_out_and_counted_where_that_is_chosen() -> Result<()> {
    let kafka = KafkaBroker::shared();
    let topic = topic_with_garbage(kafka)?;
    let mut cluster = JobCluster::start(job_of(&kafka.bootstrap(), &topic).args(["--skip-undecodable"]))?;
    wait_for_count(&mut cluster, 3)?;
    let log = cluster.log(0);
    let address = log.lines().find_map(|line| line.split_once("metrics address=")).expect("its log names the port").1;
    let metric = "millrace_source_num_records_in_errors";
    let shown = cluster.wait_for("metric", PATIENCE, |_| {
        let metrics = http_get(address, "/metrics");
        let line = metrics.as_deref().ok().and_then(|text| text.lines().find(|line| line.starts_with(metric)));
        (line.map(str::to_owned), format!("{metrics:?}"))
    })?;
    assert!(shown.contains(&topic) && shown.ends_with(" 1"), "{shown}");
    assert_says(&cluster.log(0), &[&format!("{topic}-0@1"), "left out a record"]);
    cancel(&mut cluster)?;
    assert_eq!(counts(&cluster.stdout(0)), [1, 2, 3]);
    assert_calm(&cluster);
    Ok(())
}
