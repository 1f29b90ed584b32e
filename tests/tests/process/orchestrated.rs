//! What whoever starts a job's processes relies on, such as Kubernetes: they end when they are told to, the jobmanager
//! stays to be asked about a job that has ended, and a job can be taken up again or deleted.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_core::{ids::Generation, rest::JobStatus};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, JobState, Result},
    services::{ports::free_port, process::Signal},
};
use tempfile::TempDir;

/// The exit codes of processes that a signal ended.
const BY_SIGTERM: i32 = 143;
const BY_SIGINT: i32 = 130;
/// Under a second on a machine that has the time.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A job's input and its checkpoint directory.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory can be made"));
        for directory in ["in", "checkpoints"] {
            std::fs::create_dir(place.path(directory)).expect("a directory can be made");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, words: u64) {
        let file = OpenOptions::new().create(true).append(true).open(self.path("in/words"));
        let mut file = file.expect("the file can be written");
        (0..words).for_each(|word| writeln!(file, "word-{word}").expect("the file can be written"));
    }

    /// A job that counts the words, takes ten checkpoints a second, and whose jobmanager stays.
    fn job(&self) -> ClusterSpec {
        ClusterSpec::new(PathBuf::from(env!("CARGO_BIN_EXE_misbehaving_job")))
            .args(["--files", &self.path("in").display().to_string(), "--checkpoints", "100"])
            .set("state.checkpoints.dir", format!("file://{}", self.path("checkpoints").display()))
            .set("execution.shutdown-on-application-finish", "false")
    }

    /// The files that the checkpoint directory has of a job.
    fn files(&self, job: &str) -> Vec<PathBuf> {
        fn below(directory: &Path) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
            entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
        }
        below(&self.path("checkpoints").join(job))
    }
}

/// Waits until the job shows that it has ended.
fn wait_for_end(cluster: &mut JobCluster, state: JobStatus) -> Result<JobState> {
    cluster.wait_until(&format!("job that is {state}"), |seen| seen.job.state == state)
}

/// Whether the job is the jobmanager's and lacks taskmanagers.
fn waits_for_slots(state: &JobState) -> bool {
    state.job.state != JobStatus::Initializing && state.job.waiting_for.is_some()
}

#[test]
fn a_signal_ends_each_process_and_the_job_goes_on_with_the_next() -> Result<()> {
    let place = Place::new();
    place.write(10);
    let mut cluster = JobCluster::start(place.job().set("taskmanager.resource-id", "the-pod"))?;
    cluster.wait_until_running()?;
    let before = cluster.wait_for_new_checkpoint()?;
    let taskmanager = &before.taskmanagers[0];
    assert_eq!(taskmanager.resource_id, "the-pod");
    assert!(taskmanager.id.0.starts_with("the-pod-"), "{taskmanager:?}");

    let (status, after) = cluster.end_taskmanager(0, Signal::TERM)?;
    assert_eq!((status.code(), after < PROMPTLY), (Some(BY_SIGTERM), true), "after {after:?}");
    let state = cluster.wait_until("job that waits for a taskmanager", waits_for_slots)?;
    assert!(state.taskmanagers.is_empty(), "its connection was closed: {state}");
    cluster.start_taskmanager()?;
    let state = cluster.wait_until("recovery", |state| state.is_running() && state.job.last_recovery.is_some())?;
    let recovery = state.job.last_recovery.expect("it was waited for");
    assert_eq!(recovery.taskmanager.as_deref(), Some("the-pod"));
    assert!(recovery.cause.contains("the-pod-"), "{recovery:?}");

    let (status, after) = cluster.end_taskmanager(1, Signal::INT)?;
    assert_eq!((status.code(), after < PROMPTLY), (Some(BY_SIGINT), true), "after {after:?}");
    let (status, after) = cluster.end_jobmanager(Signal::TERM)?;
    assert_eq!((status.code(), after < PROMPTLY), (Some(BY_SIGTERM), true), "after {after:?}");

    // Nothing says that the job has ended: the next jobmanager goes on, and knows the newest checkpoint at once.
    cluster.restart_jobmanager()?;
    let state = cluster.wait_until("job of a second jobmanager", waits_for_slots)?;
    assert_eq!((state.job.generation, state.job.state), (Generation(2), JobStatus::Created), "{state}");
    let newest = state.completed().expect("the newest checkpoint is shown");
    let path = newest.external_path.as_deref().expect("it lies in a directory");
    assert!(path.ends_with(&format!("{}/chk-{}", cluster.job(), newest.id)) && newest.state_size > 0, "{newest:?}");
    let newest = newest.id;
    cluster.start_taskmanager()?;
    let state = cluster.wait_until_running()?;
    assert!(state.recovered_from() >= Some(newest), "{state}");
    let recovery = state.job.last_recovery.expect("taking over is a recovery");
    assert_eq!((recovery.cause.as_str(), recovery.taskmanager), ("the jobmanager was restarted (generation 2)", None));
    let phases: Vec<_> = recovery.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases[..5], ["take-over", "cancel", "allocate", "fetch", "restore"]);
    Ok(())
}

#[test]
fn the_jobmanager_of_a_finished_job_stays_and_a_new_one_shows_the_same() -> Result<()> {
    let place = Place::new();
    place.write(10);
    let mut cluster = JobCluster::start(place.job().args(["--bounded"]))?;
    wait_for_end(&mut cluster, JobStatus::Finished)?;
    assert_eq!(cluster.wait_taskmanager_end(0)?.code(), Some(0));
    let refused = cluster.cancel().expect_err("it has ended").to_string();
    assert!(refused.contains("409") && refused.contains("has ended already"), "{refused}");

    cluster.restart_jobmanager()?;
    let state = wait_for_end(&mut cluster, JobStatus::Finished)?;
    assert_eq!(state.job.generation, Generation(1), "nobody has taken it over: {state}");
    let (status, after) = cluster.end_jobmanager(Signal::TERM)?;
    assert_eq!((status.code(), after < PROMPTLY), (Some(BY_SIGTERM), true), "after {after:?}");
    Ok(())
}

#[test]
fn a_job_that_failed_for_good_goes_on_under_a_higher_deployment_alone() -> Result<()> {
    let place = Place::new();
    place.write(1);
    let spec = place.job().args(["--fails-on", "poison"]).set("restart-strategy.type", "none");
    let mut cluster = JobCluster::start(spec.set("job.deployment", "4"))?;
    cluster.wait_until_running()?;
    let newest = cluster.wait_for_new_checkpoint()?.completed().map(|checkpoint| checkpoint.id);
    std::fs::write(place.path("in/poison"), "poison\n").expect("the file can be written");
    let state = wait_for_end(&mut cluster, JobStatus::Failed)?;
    assert_eq!(state.job.restarts, 0);

    // The same deployment shows the failure and runs nothing.
    cluster.restart_jobmanager()?;
    let state = wait_for_end(&mut cluster, JobStatus::Failed)?;
    assert_eq!(state.job.generation, Generation(1), "{state}");
    assert!(state.completed().map(|checkpoint| checkpoint.id) >= newest, "its checkpoint is shown: {state}");
    let shown = cluster.exceptions()?.root_exception.unwrap_or_default();
    assert!(shown.contains("not to my taste"), "{shown}");

    std::fs::remove_file(place.path("in/poison")).expect("the file can be removed");
    cluster.set("job.deployment", "5");
    cluster.restart_jobmanager()?;
    cluster.start_taskmanager()?;
    let state = cluster.wait_until_running()?;
    assert_eq!((state.job.generation, state.job.restarts), (Generation(2), 0), "{state}");
    assert!(state.recovered_from() >= newest, "{state}");
    cluster.wait_for_new_checkpoint()?;

    // And a job that was cancelled is never run again.
    cluster.cancel()?;
    wait_for_end(&mut cluster, JobStatus::Canceled)?;
    cluster.set("job.deployment", "6");
    cluster.restart_jobmanager()?;
    assert_eq!(wait_for_end(&mut cluster, JobStatus::Canceled)?.job.generation, Generation(2));
    Ok(())
}

#[test]
fn a_deleted_job_leaves_nothing_whether_it_runs_waits_or_has_ended() -> Result<()> {
    for case in ["running", "waiting", "failed"] {
        let place = Place::new();
        place.write(10);
        let spec = place.job().args(["--fails-on", "poison"]).set("restart-strategy.type", "none");
        // Also what is retained: to delete a job means all of it.
        let retained = "execution.checkpointing.externalized-checkpoint-retention";
        let mut cluster = JobCluster::start(spec.set(retained, "RETAIN_ON_CANCELLATION"))?;
        let job = cluster.job().to_string();
        cluster.wait_until_running()?;
        cluster.wait_for_new_checkpoint()?;
        match case {
            "waiting" => {
                // In this order: the jobmanager would take the loss for the job's end.
                cluster.kill_jobmanager()?;
                cluster.end_taskmanager(0, Signal::KILL)?;
                cluster.restart_jobmanager()?;
                cluster.wait_until("job without a taskmanager", waits_for_slots)?;
            }
            "failed" => {
                std::fs::write(place.path("in/poison"), "poison\n").expect("the file can be written");
                wait_for_end(&mut cluster, JobStatus::Failed)?;
            }
            _ => {}
        }
        assert!(place.files(&job).len() > 2, "{case}: {:?}", place.files(&job));
        cluster.delete()?;
        let state = wait_for_end(&mut cluster, JobStatus::Canceled)?;
        assert_eq!(state.job.left_behind, None, "{case}");
        assert_eq!(place.files(&job), Vec::<PathBuf>::new(), "{case}");
        assert!(cluster.jobmanager_is_alive());
        // Again, as by a client that has not seen the answer.
        cluster.delete()?;
        wait_for_end(&mut cluster, JobStatus::Canceled)?;
    }
    Ok(())
}

#[test]
fn a_job_is_deleted_and_its_jobmanager_ends_where_it_does_not_stay() -> Result<()> {
    let place = Place::new();
    place.write(10);
    let mut cluster = JobCluster::start(place.job().set("execution.shutdown-on-application-finish", "true"))?;
    cluster.wait_until_running()?;
    cluster.wait_for_new_checkpoint()?;
    cluster.delete()?;
    assert_eq!(cluster.wait_end()?.state, JobStatus::Canceled);
    assert_eq!(place.files(&cluster.job().to_string()), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn the_jobmanager_serves_health_and_metrics_on_a_port_of_their_own_where_one_is_set() -> Result<()> {
    let (place, port) = (Place::new(), free_port());
    let _cluster = JobCluster::start(place.job().taskmanagers(0).set("metrics.port", port.to_string()))?;
    for (path, part) in [("/health", "\"ok\""), ("/metrics", "millrace_jobmanager_job_numRestarts")] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(part), "{path}: {answer}");
    }
    Ok(())
}

/// A taskmanager that stands still takes what its neighbours send and never reads it, as one whose machine is cut off.
#[test]
fn a_silent_taskmanager_is_given_up_and_its_neighbours_lose_their_tasks_without_their_processes() -> Result<()> {
    let place = Place::new();
    place.write(1000);
    let spec = place.job().args(["--parallelism", "2"]).set("restart-strategy.type", "exponential-delay");
    let spec = spec.set("heartbeat.timeout", "4 s").set("task.cancellation.timeout", "20 s");
    let mut cluster = JobCluster::start(spec.taskmanagers(3))?;
    let state = cluster.wait_until_running()?;
    let busy = cluster.busy_taskmanagers(&state);
    assert_eq!(busy.len(), 2, "{state}");
    cluster.wait_for_new_checkpoint()?;
    cluster.pause_taskmanager(busy[0])?;
    place.write(1000);
    let paused = cluster.taskmanager_pid(busy[0]);
    let state = cluster.wait_until("job on the others", |state| {
        state.is_running() && state.job.restarts > 0 && state.taskmanagers.iter().all(|tm| tm.pid != Some(paused))
    })?;
    assert!(state.job.last_recovery.is_some_and(|recovery| recovery.taskmanager.is_some()));
    cluster.wait_for_new_checkpoint()?;
    assert!(cluster.taskmanager_is_alive(busy[1]), "its neighbour's tasks ended by themselves");
    cluster.resume_taskmanager(busy[0])?;
    cluster.wait_until("return of the one that stood still", |state| state.taskmanagers.len() == 3)?;
    Ok(())
}
