//! Our side.

use std::time::{Duration, Instant};

use millrace_testkit::cluster::{ClusterSpec, JobCluster, JobState, program};

use crate::{
    Result,
    contender::Running,
    scenario::{BUCKET, FIRST_CHECKPOINT, PARALLELISM, Place, SAMPLE, Scenario, Victim, wait},
};

/// Starts the processes.
pub fn start(place: &Place, scenario: Scenario) -> Result<Box<dyn Running>> {
    let directory = place.directory.path().display();
    let backend = if scenario.rocksdb { "rocksdb" } else { "filesystem" };
    let spec = ClusterSpec::new(program("recovery_job")?)
        .args(["--kafka", &place.kafka.bootstrap(), "--input", &place.input, "--output", &place.output])
        .args(["--payload", &scenario.payload.to_string(), "--sample", &SAMPLE.to_string()])
        .taskmanagers(0)
        .set("parallelism.default", PARALLELISM.to_string())
        .set("state.backend", backend)
        .set("execution.checkpointing.interval", "1 s")
        .set("execution.checkpointing.incremental", scenario.rocksdb.to_string())
        // As much as Flink's managed memory.
        .set("state.backend.rocksdb.memory.size", "512mb")
        .set("heartbeat.timeout", "3 s")
        // Each kill is a first one: without a delay.
        .set("restart-strategy.exponential-delay.reset-backoff-threshold", "1 ms");
    let spec = match &place.store {
        None => spec.set("state.checkpoints.dir", format!("file://{directory}/checkpoints")),
        Some(minio) => spec
            .set("state.checkpoints.dir", format!("s3://{BUCKET}/job"))
            .set("s3.endpoint", minio.endpoint())
            .set("s3.access-key", minio.access_key())
            .set("s3.secret-key", minio.secret_key()),
    };
    let mut job = Job {
        cluster: JobCluster::start(spec)?,
        scenario,
        directories: Vec::new(),
        killed: None,
        newest: 0,
        restarted: None,
        checkpoint_after: None,
    };
    let spare = usize::from(scenario.victim == Victim::TaskManager);
    for index in 0..PARALLELISM + spare {
        job.add(index)?;
    }
    Ok(Box::new(job))
}

struct Job {
    cluster: JobCluster,
    scenario: Scenario,
    /// By taskmanager: its local directory's number.
    directories: Vec<usize>,
    /// The taskmanager that is killed next, or was last.
    killed: Option<usize>,
    /// The newest checkpoint before that.
    newest: u64,
    /// When the jobmanager was started again, and the newest checkpoint before.
    restarted: Option<(Instant, u64)>,
    /// How long after that a checkpoint completed.
    checkpoint_after: Option<Duration>,
}

impl Job {
    fn add(&mut self, directory: usize) -> Result<()> {
        let path = self.cluster.directory().join(format!("local-{directory}")).display().to_string();
        self.cluster.start_taskmanager_with(|spec| {
            spec.set("state.backend.rocksdb.localdir", path)
                .set("taskmanager.resource-id", format!("taskmanager-{directory}"))
        })?;
        self.directories.push(directory);
        Ok(())
    }

    fn wait_until(&mut self, what: &str, condition: impl Fn(&JobState) -> bool) -> Result<JobState> {
        let mut last = None;
        wait(what, || {
            last = self.cluster.state().ok();
            Ok(last.as_ref().is_some_and(&condition))
        })
        .map_err(|error| format!("{error}\n{}", self.cluster.tails()))?;
        last.ok_or_else(|| "no state".into())
    }
}

impl Running for Job {
    fn settle(&mut self) -> Result<()> {
        let slots = PARALLELISM + usize::from(self.scenario.victim == Victim::TaskManager);
        let state = self.wait_until("running job", |state| state.is_running() && state.taskmanagers.len() == slots)?;
        let newest = state.completed().map_or(0, |completed| completed.id);
        self.wait_until("new checkpoint", |state| state.completed().is_some_and(|completed| completed.id > newest))?;
        Ok(())
    }

    fn aim(&mut self) -> Result<()> {
        let state = self.cluster.state()?;
        let busy = self.cluster.busy_taskmanagers(&state);
        self.killed = Some(*busy.first().ok_or("no taskmanager has tasks")?);
        self.newest = state.completed().map_or(0, |completed| completed.id);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        match (self.scenario.victim, self.killed) {
            (Victim::JobManager, _) => {
                self.cluster.kill_jobmanager()?;
                self.restarted = Some((Instant::now(), self.newest));
            }
            (_, Some(victim)) => self.cluster.kill_taskmanager(victim)?,
            (_, None) => return Err("nobody was chosen".into()),
        }
        Ok(())
    }

    fn wait_until_recovered(&mut self, killed_ms: u64) -> Result<()> {
        self.wait_until("recovery", |state| {
            let recovery = state.job.last_recovery.as_ref();
            // A new jobmanager's recovery begins with its process, which may be a little before or after the kill.
            state.is_running() && recovery.is_some_and(|recovery| recovery.timestamp + recovery.duration >= killed_ms)
        })?;
        if let Some((restarted, newest)) = self.restarted.take() {
            self.wait_until("checkpoint of the new jobmanager", |state| {
                state.completed().is_some_and(|completed| completed.id > newest)
            })?;
            self.checkpoint_after = Some(restarted.elapsed());
        }
        Ok(())
    }

    fn phases(&mut self, killed_ms: u64) -> Result<Vec<(String, u64)>> {
        let state = self.cluster.state()?;
        let recovery = state.job.last_recovery.ok_or("no recovery is told of")?;
        let phases = recovery.phases.into_iter().map(|phase| (phase.name, phase.duration));
        let noticed = ("until noticed".to_owned(), recovery.timestamp.saturating_sub(killed_ms));
        let checkpoint =
            self.checkpoint_after.take().map(|after| (FIRST_CHECKPOINT.to_owned(), after.as_millis() as u64));
        Ok(std::iter::once(noticed).chain(phases).chain(checkpoint).collect())
    }

    fn fetched_bytes(&mut self) -> Result<u64> {
        let recovery = self.cluster.state()?.job.last_recovery.ok_or("no recovery is told of")?;
        Ok(recovery.fetched_bytes)
    }

    fn replace(&mut self) -> Result<()> {
        match (self.scenario.victim, self.killed) {
            (Victim::JobManager, _) => Ok(self.cluster.restart_jobmanager()?),
            (Victim::TaskManagerThatComesBack, Some(killed)) => self.add(self.directories[killed]),
            (Victim::TaskManager | Victim::TaskManagerThatComesBack, _) => self.add(self.directories.len()),
        }
    }
}
