//! What is measured.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use millrace_testkit::services::kafka::{KafkaBroker, KafkaClient};
use rand::Rng;
use tempfile::TempDir;

use crate::{Result, contender::Contender, feed::Feed, outputs::Outputs};

/// Bytes of state for each key.
pub const PAYLOAD: usize = 1024;
/// One in so many keys is written out.
pub const SAMPLE: u64 = 50;
/// The job's parallelism.
pub const PARALLELISM: usize = 2;
const PARTITIONS: i32 = 2;
/// How long anything may take that is waited for: state of gigabytes is written first.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// What is shown beside the phases after a jobmanager's restart: how long it took to the first checkpoint.
pub const FIRST_CHECKPOINT: &str = "(first checkpoint after the restart)";
/// Our goal for the worst of it, in milliseconds: an interval and a second.
pub const FIRST_CHECKPOINT_GOAL: u64 = 2000;
/// What is counted this long after it was written is up to date.
const LAG: Duration = Duration::from_millis(300);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A taskmanager with tasks, with a slot to spare.
    TaskManager,
    /// A taskmanager with tasks and without a slot to spare: another process comes in its place at once, on its disk.
    TaskManagerThatComesBack,
    /// The jobmanager; another one is started at once.
    JobManager,
}

/// A job of some size, and who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// Different keys, each with a payload.
    pub keys: u64,
    /// Whether state lives in RocksDB instead of on the heap.
    pub rocksdb: bool,
    /// Who is killed.
    pub victim: Victim,
    /// Our goal for the median and for the worst silence, in milliseconds. Beside it a jobmanager has
    /// [`FIRST_CHECKPOINT_GOAL`].
    pub goal: Option<(u64, u64)>,
}

/// All of them.
pub const ALL: [Scenario; 4] = [
    Scenario {
        name: "heap",
        title: "A taskmanager, a spare slot, 100 MiB of state on the heap",
        keys: 100 << 10,
        rocksdb: false,
        victim: Victim::TaskManager,
        goal: Some((500, 2000)),
    },
    Scenario {
        name: "rocksdb-back",
        title: "A taskmanager, 2 GiB in RocksDB, replaced where its local directory is",
        keys: 2 << 20,
        rocksdb: true,
        victim: Victim::TaskManagerThatComesBack,
        goal: Some((1500, u64::MAX)),
    },
    Scenario {
        name: "rocksdb",
        title: "A taskmanager, a spare slot, 2 GiB in RocksDB",
        keys: 2 << 20,
        rocksdb: true,
        victim: Victim::TaskManager,
        goal: None,
    },
    Scenario {
        name: "jobmanager",
        title: "The jobmanager, 100 MiB of state on the heap",
        keys: 100 << 10,
        rocksdb: false,
        victim: Victim::JobManager,
        goal: Some((500, 1000)),
    },
];

/// The scenario of this name.
pub fn named(name: &str) -> Result<Scenario, String> {
    let names = || ALL.map(|scenario| scenario.name).join(", ");
    ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("there are {}", names()))
}

/// What a run has of its own.
pub struct Place {
    /// The broker.
    pub kafka: KafkaClient,
    /// A directory for checkpoints, local state and logs.
    pub directory: TempDir,
    /// Flink's folder.
    pub flink: Option<PathBuf>,
    /// The topic of records.
    pub input: String,
    /// The topic of counts.
    pub output: String,
}

/// A kill, and what came of it.
pub struct Recovery {
    /// The longest time without a new output; from the kill on where that ended tasks.
    pub silent: Duration,
    /// The phases that the engine tells of, and what is to be known beside them, in milliseconds.
    pub phases: Vec<(String, u64)>,
}

impl Scenario {
    /// Whether tasks end with the victim: the job is silent from the kill on.
    fn ends_tasks(self) -> bool {
        self.victim != Victim::JobManager
    }

    /// Runs a contender through so many kills.
    pub fn measure(self, contender: Contender, flink: Option<&Path>, kills: u32, rate: u64) -> Result<Vec<Recovery>> {
        let broker = KafkaBroker::start()?;
        let place = Place {
            kafka: broker.client(),
            directory: tempfile::tempdir()?,
            flink: flink.map(Path::to_owned),
            input: "records".to_owned(),
            output: "counts".to_owned(),
        };
        place.kafka.create_topic(&place.input, PARTITIONS)?;
        place.kafka.create_topic(&place.output, 1)?;
        let outputs = Outputs::follow(&place.kafka, &place.output)?;
        let mut running = contender.start(&place, self)?;
        let feed = Feed::start(place.kafka.clone(), &place.input, self.keys, SAMPLE, rate);
        let keys = self.keys.div_ceil(SAMPLE) as usize;
        wait("counts of all keys", || Ok(outputs.keys() == keys && feed.is_alive()))?;
        let mut recoveries = Vec::new();
        for _ in 0..kills {
            running.settle()?;
            catch_up(&outputs, &feed, rate)?;
            // A moment is what is random here: there is nothing to wait for.
            thread::sleep(Duration::from_millis(rand::rng().random_range(0..1000)));
            running.aim()?;
            let (at, at_ms) = (Instant::now(), now_ms());
            running.kill()?;
            if self.victim != Victim::TaskManager {
                running.replace()?;
            }
            running.wait_until_recovered(at_ms)?;
            // Who is silent for less time than the job may lag behind its input has caught up before it says anything.
            let recovered = Instant::now();
            wait("new counts after the recovery", || Ok(outputs.came_after(recovered)))?;
            catch_up(&outputs, &feed, rate)?;
            let recovery = self.recovery(&outputs, at, running.phases(at_ms)?)?;
            println!("  silent for {:.3} s, {:?}", recovery.silent.as_secs_f64(), recovery.phases);
            recoveries.push(recovery);
            if self.victim == Victim::TaskManager {
                running.replace()?;
            }
        }
        let sampled = feed.finish()?;
        wait("all counts", || Ok(outputs.counted()? >= sampled))?;
        running.settle()?;
        let counted = outputs.counted()?;
        if counted != sampled {
            return Err(format!("{counted} of {sampled} records are counted").into());
        }
        println!("  {counted} sampled records, each counted once");
        Ok(recoveries)
    }

    /// What came of the kill at this moment.
    fn recovery(self, outputs: &Outputs, at: Instant, mut phases: Vec<(String, u64)>) -> Result<Recovery> {
        let now = Instant::now();
        let silence = outputs.longest_silence(at, now).ok_or("nothing new came after the kill")?;
        if self.ends_tasks() {
            let silent = silence.end - at;
            let told = phases.iter().map(|(_, ms)| ms).sum();
            phases.push(("then until the first new output".to_owned(), millis(silent).saturating_sub(told)));
            return Ok(Recovery { silent, phases });
        }
        // A job that goes on pauses as it always does, at checkpoints for one: what that is shows the time before.
        let before = outputs.longest_silence(at - (now - at), at).ok_or("nothing new came before the kill")?;
        phases.push(("(longest silence before the kill)".to_owned(), millis(before.end - before.start)));
        Ok(Recovery { silent: silence.end - silence.start, phases })
    }
}

/// Waits until what was written a moment ago is counted.
fn catch_up(outputs: &Outputs, feed: &Feed, rate: u64) -> Result<()> {
    let lag = (rate / SAMPLE) as f64 * LAG.as_secs_f64();
    wait("counts of the newest records", || {
        if !feed.is_alive() {
            return Err("the feed has ended".into());
        }
        Ok(feed.sampled().saturating_sub(outputs.counted()?) <= lag as u64)
    })
}

/// Looks at a condition until it holds.
pub fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() >= end {
            return Err(format!("no {what} within {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
