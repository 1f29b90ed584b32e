//! Settings that make no sense, in a program and around it, and ports that others have.

use std::net::TcpListener;

use millrace_testkit::{
    cluster::{JobCluster, Result},
    services::ports::ReservedPort,
};

use crate::{Words, assert_calm, assert_says, cancel, failed, job_over, refused, wait_for_count};

#[test]
fn a_parallelism_above_the_maximum_is_refused_with_both() {
    let words = Words::new();
    let text = refused(job_over(&words).args(["--parallelism", "5", "--max-parallelism", "4"]));
    assert_says(&text, &["parallelism.default", "\"5\"", "above pipeline.max-parallelism", "4"]);
}

#[test]
fn intervals_that_are_no_intervals_are_refused_by_key_and_value() {
    let words = Words::new();
    let text = refused(job_over(&words).args(["--checkpoints", "0"]));
    assert_says(&text, &["execution.checkpointing.interval", "0", "program"]);
    for (key, value) in [
        ("execution.checkpointing.interval", "0 s"),
        ("execution.checkpointing.interval", "-5 s"),
        ("execution.checkpointing.timeout", "-1 min"),
        ("heartbeat.interval", "0 ms"),
        ("restart-strategy.fixed-delay.delay", "-1 s"),
    ] {
        let text = refused(job_over(&words).set(key, value));
        assert_says(&text, &[key, &format!("{value:?}")]);
    }
}

#[test]
fn a_backend_that_writes_files_is_refused_without_a_directory() {
    let words = Words::new();
    let text = refused(job_over(&words).args(["--checkpoints", "100"]).set("state.backend", "filesystem"));
    assert_says(&text, &["\"filesystem\"", "no directory is set", "state.checkpoints.dir"]);
}

#[test]
fn an_unknown_setting_is_refused_with_the_one_that_was_meant() {
    let words = Words::new();
    let text = refused(job_over(&words).set("execution.checkpointing.intervall", "1 s"));
    assert_says(&text, &["\"execution.checkpointing.intervall\"", "did you mean execution.checkpointing.interval?"]);
}

#[test]
fn two_states_of_one_name_and_different_types_fail_the_job_once() -> Result<()> {
    let mut words = Words::new();
    words.write(["a"]);
    let mut cluster = JobCluster::start(job_over(&words).args(["--counting", "two-types", "--checkpoints", "100"]))?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &["Count", "\"count\"", "i64", "string", "a restart can't cure it"]);
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_state_type_that_does_not_tell_its_form_fails_the_job_once() -> Result<()> {
    let mut words = Words::new();
    words.write(["a"]);
    let mut cluster = JobCluster::start(job_over(&words).args(["--counting", "untraceable", "--checkpoints", "100"]))?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &["\"count\"", "Untraceable", "untagged", "a restart can't cure it"]);
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let words = Words::new();
    let taken = ReservedPort::new();
    for key in ["rest.port", "jobmanager.rpc.port"] {
        let text = refused(job_over(&words).set(key, taken.port().to_string()));
        assert_says(&text, &[key, &taken.port().to_string(), "in use", "choose another port"]);
    }
}

#[test]
fn a_taskmanager_whose_port_is_in_use_says_so_and_the_job_waits_for_another() -> Result<()> {
    let mut words = Words::new();
    let taken = ReservedPort::new();
    let port = taken.port();
    // Also where `localhost` is ::1 first.
    let taken_on_6 = TcpListener::bind(("::1", port));
    let mut cluster = JobCluster::start(job_over(&words).set("taskmanager.data.port", port.to_string()))?;
    cluster.wait_for("end of the taskmanager", millrace_testkit::cluster::PATIENCE, |cluster| {
        ((!cluster.taskmanager_is_alive(0)).then_some(()), cluster.log(0))
    })?;
    assert_says(&cluster.log(0), &["taskmanager.data.port", &port.to_string(), "in use", "choose another port"]);
    let state = cluster.wait_until("job that waits", |state| state.job.waiting_for.is_some())?;
    assert_eq!(state.job.restarts, 0, "{state}");

    drop(taken_on_6);
    taken.release();
    cluster.start_taskmanager()?;
    words.write(["a", "b"]);
    wait_for_count(&mut cluster, 2)?;
    cancel(&mut cluster)?;
    assert_calm(&cluster);
    Ok(())
}
