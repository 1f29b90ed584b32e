//! Campaigns of SIGKILLs at random moments against a keyed job, whose counts must come out as without a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, thread,
    time::{Duration, Instant},
};

use millrace_core::{
    ids::Generation,
    rest::{JobStatus, RecoveryDetails},
};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, JobState, PATIENCE, Result, program},
    services::{kafka::KafkaBroker, minio::Minio},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    feed::{Feed, PARTITIONS, Target},
    printed::{Outputs, differences},
    restart_always, unique,
};

/// Two taskmanagers, each with a part of the state.
const TASKMANAGERS: usize = 2;
/// A kill comes at a random moment within this time after the last one, or after the recovery from it.
const MOMENTS: Duration = Duration::from_millis(800);
/// One in so many kills does not wait for the recovery from the last one.
const HASTY: u32 = 4;

/// What the job reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A topic with two partitions.
    Kafka,
    /// Two files.
    Files,
}

/// Kills to be done.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How many.
    pub kills: u32,
    /// Decides whom they hit, when, and what the records are.
    pub seed: u64,
    /// One in so many hits the jobmanager; 0: none does.
    pub jobmanager_each: u32,
    /// What the job reads.
    pub input: Input,
    /// Settings that the job gets beside those of every campaign.
    pub settings: Vec<(String, String)>,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Taskmanagers killed.
    pub taskmanagers: u32,
    /// Jobmanagers killed.
    pub jobmanagers: u32,
    /// Kills that hit a job with all its tasks running.
    pub while_running: u32,
    /// Recoveries that began at a checkpoint.
    pub restored: u32,
    /// Jobmanagers that went on with the tasks that ran.
    pub adopted: u32,
    /// Records written.
    pub records: u64,
    /// Lines printed: more than records, as what follows a checkpoint is printed again.
    pub lines: u64,
}

impl Campaign {
    /// As many kills as `KILLS` says, or else so many, with the seed that `SEED` says, or else a random one.
    pub fn from_env(kills: u32, jobmanager_each: u32, input: Input) -> Self {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
        Self {
            kills: number("KILLS").map_or(kills, |kills| kills as u32),
            seed: number("SEED").unwrap_or_else(rand::random),
            jobmanager_each,
            input,
            settings: Vec::new(),
        }
    }

    /// Sets something for the job.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_string(), value.to_string()));
        self
    }

    /// Runs the job through all kills and compares its counts with what was written and with a run without a fault.
    ///
    /// # Panics
    /// When a count is wrong, or a fault did not hit.
    pub fn run(&self) -> Result<Report> {
        println!("{self:?}: replay with KILLS={} SEED={}", self.kills, self.seed);
        let started = Instant::now();
        let place = Place::new(self.input)?;
        let set = |spec: ClusterSpec, (key, value): &(String, String)| spec.set(key, value);
        let cluster = JobCluster::start(self.settings.iter().fold(place.spec()?, set))?;
        let feed = Feed::start(place.target(), self.seed);
        let mut struck = Struck {
            cluster,
            alive: (0..TASKMANAGERS).collect(),
            rng: ChaCha8Rng::seed_from_u64(self.seed),
            newest_completed: 0,
            generation: Generation(1),
            killed_since: 0,
            report: Report::default(),
        };
        struck.settle()?;
        for number in 1..=self.kills {
            let at_jobmanager = self.jobmanager_each > 0 && number % self.jobmanager_each == 0;
            struck.strike(at_jobmanager)?;
        }
        let written = feed.finish();
        let counted = struck.end(&written)?;
        let left: Vec<_> = Minio::shared().objects(&place.name)?;
        let left: Vec<_> = left.into_iter().filter(|path| !path.contains("/log/")).collect();
        assert!(left.is_empty(), "files of checkpoints outlive the cancelled job: {left:?}");
        let expected = place.run_without_fault(&written)?;
        let wrong = differences(&expected, &counted);
        assert!(wrong.is_empty(), "counts differ from those of a run without a fault: {wrong:?}\n{self:?}");
        let mut report = struck.report;
        report.records = written.values().sum();
        println!("{report:?} in {:.0} s", started.elapsed().as_secs_f64());
        Ok(report)
    }
}

/// Input and checkpoint directory of a campaign.
struct Place {
    input: Input,
    name: String,
    /// Holds the files that the job reads.
    directory: tempfile::TempDir,
}

impl Place {
    fn new(input: Input) -> Result<Self> {
        let name = unique("kills");
        Minio::shared().create_bucket(&name)?;
        if input == Input::Kafka {
            KafkaBroker::shared().create_topic(&name, PARTITIONS)?;
        }
        Ok(Self { input, name, directory: tempfile::tempdir().expect("a directory can be made") })
    }

    fn target(&self) -> Target<'_> {
        match self.input {
            Input::Kafka => Target::Kafka(KafkaBroker::shared(), &self.name),
            Input::Files => Target::Files(self.directory.path()),
        }
    }

    fn job(&self) -> Result<ClusterSpec> {
        let directory = self.directory.path().display().to_string();
        let input = match self.input {
            Input::Kafka => {
                vec!["--kafka".into(), KafkaBroker::shared().bootstrap(), "--topic".into(), self.name.clone()]
            }
            Input::Files => vec!["--files".into(), directory],
        };
        let spec = ClusterSpec::new(program("checkpoint_example")?).args(input).args(["--start", "earliest"]);
        Ok(spec.args(["--key-by", "record", "--parallelism", "2"]))
    }

    fn spec(&self) -> Result<ClusterSpec> {
        let minio = Minio::shared();
        let spec = self
            .job()?
            .taskmanagers(TASKMANAGERS)
            // A slow source sends its barriers late: without alignment the counts would be wrong.
            .args(["--throttle-subtask", "0=2ms"])
            .args(["--checkpoints", "--interval", "200ms", "--state-backend", "filesystem"])
            .args(["--checkpoint-dir".to_owned(), format!("s3://{}/checkpoints", self.name)])
            // As if it were large: state lies in files of its own.
            .set("execution.checkpointing.data-inline-threshold", "0")
            .set("s3.endpoint", minio.endpoint())
            .set("s3.access-key", minio.access_key())
            .set("s3.secret-key", minio.secret_key());
        Ok(restart_always(spec))
    }

    /// The counts of a run over the same input without a fault.
    fn run_without_fault(&self, written: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let mut cluster = JobCluster::start(self.job()?.slots(2))?;
        let outputs = wait_for_all(&mut cluster, written)?;
        let state = cluster.state()?;
        assert_eq!(state.job.restarts, 0, "a run without a fault");
        cluster.cancel()?;
        cluster.wait_end()?;
        Ok(outputs.highest)
    }
}

/// A job under fire.
struct Struck {
    cluster: JobCluster,
    alive: Vec<usize>,
    rng: ChaCha8Rng,
    /// The newest checkpoint that was seen complete: recovery must not go back behind it.
    newest_completed: u64,
    /// The jobmanager's when all tasks ran last, and how many were killed since.
    generation: Generation,
    killed_since: u32,
    report: Report,
}

impl Struck {
    /// Waits until all tasks run again, on the taskmanagers that are alive.
    fn settle(&mut self) -> Result<JobState> {
        // Those that the jobmanager knows are compared: shortly after a kill it still takes the dead one for alive.
        let pids = self.alive.iter().map(|index| self.cluster.taskmanager_pid(*index)).collect::<BTreeSet<_>>();
        self.cluster.wait_until("job that runs on the taskmanagers that are alive", |state| {
            let known = state.taskmanagers.iter().filter_map(|taskmanager| taskmanager.pid);
            state.is_running() && known.collect::<BTreeSet<_>>() == pids
        })
    }

    /// One kill, and a new process in place of the old one.
    fn strike(&mut self, at_jobmanager: bool) -> Result<()> {
        let hasty = self.rng.random_ratio(1, HASTY);
        if !hasty {
            let state = self.settle()?;
            self.check(&state);
            self.report.while_running += 1;
        }
        // A moment is what is random here: there is nothing to wait for.
        thread::sleep(self.rng.random_range(Duration::ZERO..MOMENTS));
        if let Ok(state) = self.cluster.state() {
            let completed = state.completed().map_or(0, |checkpoint| checkpoint.id);
            self.newest_completed = self.newest_completed.max(completed);
        }
        if at_jobmanager {
            self.cluster.kill_jobmanager()?;
            self.cluster.restart_jobmanager()?;
            self.report.jobmanagers += 1;
            self.killed_since += 1;
        } else {
            let victim = self.rng.random_range(0..self.alive.len());
            self.cluster.kill_taskmanager(self.alive[victim])?;
            self.alive[victim] = self.cluster.start_taskmanager()?;
            self.report.taskmanagers += 1;
        }
        Ok(())
    }

    /// Checks a job whose tasks all run.
    fn check(&mut self, state: &JobState) {
        self.check_generation(state.job.generation);
        self.check_restored(state);
    }

    /// Each jobmanager is an incarnation of its own, but for one that was killed before it had a generation.
    fn check_generation(&mut self, now: Generation) {
        let (before, killed) = (self.generation, std::mem::take(&mut self.killed_since));
        let (least, most) = (before.0 + u64::from(killed.min(1)), before.0 + u64::from(killed));
        assert!((least..=most).contains(&now.0), "{now:?} after {before:?} and {killed} jobmanagers that were killed");
        self.generation = now;
    }

    /// A recovery begins at the newest completed checkpoint.
    fn check_restored(&mut self, state: &JobState) {
        let adopted = |recovery: &RecoveryDetails| recovery.phases.iter().any(|phase| phase.name == "adopt");
        if state.job.restarts == 0 && state.job.last_recovery.as_ref().is_some_and(adopted) {
            // Its tasks went on: nothing was restored.
            self.report.adopted += 1;
            return;
        }
        let restored = state.checkpoints.latest.restored.as_ref().map_or(0, |restored| restored.id);
        assert!(
            restored >= self.newest_completed,
            "checkpoint {} was complete before the kill, but {restored} was restored",
            self.newest_completed
        );
        self.report.restored += u32::from(restored > 0);
    }

    /// Waits until everything is counted, checks it against what was written, and ends the job.
    fn end(&mut self, written: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let state = self.settle()?;
        self.check(&state);
        let outputs = wait_for_all(&mut self.cluster, written)?;
        self.report.lines = outputs.lines;
        let wrong = differences(written, &outputs.highest);
        assert!(wrong.is_empty(), "counts differ from what was written: {wrong:?}\n{}", self.cluster.tails());

        let state = self.cluster.state()?;
        assert_eq!(state.job.generation, self.generation, "nobody took the job from its jobmanager");
        if self.report.jobmanagers == 0 {
            // A jobmanager counts only its own.
            let (restarts, at_least) = (state.job.restarts, u64::from(self.report.while_running));
            assert!(restarts >= at_least, "{at_least} kills hit running tasks, but only {restarts} restarts");
        }
        self.cluster.cancel()?;
        assert_eq!(self.cluster.wait_end()?.state, JobStatus::Canceled);
        Ok(outputs.highest)
    }
}

/// Waits until as many records were counted as were written, and until whatever else the job has read is printed.
fn wait_for_all(cluster: &mut JobCluster, written: &BTreeMap<String, u64>) -> Result<Outputs> {
    let total: u64 = written.values().sum();
    let mut outputs = Outputs::default();
    cluster.wait_for("count of all records", PATIENCE, |cluster| {
        outputs.read(cluster);
        let counted = outputs.total();
        let state = cluster.state().map_or_else(|error| error.to_string(), |state| state.to_string());
        ((counted >= total).then_some(()), format!("{counted} of {total} records; {state}"))
    })?;
    if cluster.state()?.checkpoints.counts.total > 0 {
        // Behind its barrier everything that was read before it is printed.
        cluster.wait_for_new_checkpoint()?;
        outputs.read(cluster);
    }
    Ok(outputs)
}
