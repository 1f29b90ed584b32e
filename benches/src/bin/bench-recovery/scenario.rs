//! What is measured.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use millrace_testkit::services::{
    kafka::{KafkaBroker, KafkaClient},
    minio::Minio,
};
use rand::Rng;
use tempfile::TempDir;

use crate::{Result, contender::Contender, feed::Feed, outputs::Outputs};

/// One in so many keys is written out.
pub const SAMPLE: u64 = 50;
/// The job's parallelism.
pub const PARALLELISM: usize = 2;
const PARTITIONS: i32 = 2;
/// How long anything may take that is waited for: state of gigabytes is written first.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// How long a job may be behind its input.
const CATCHING_UP: Duration = Duration::from_secs(300);
/// What is shown beside the phases after a jobmanager's restart: how long it took to the first checkpoint.
pub const FIRST_CHECKPOINT: &str = "(first checkpoint after the restart)";
/// Our goal for the worst of it, in milliseconds: an interval and a second.
pub const FIRST_CHECKPOINT_GOAL: u64 = 2000;
/// So many objects a plain client reads at a time.
const READ_AT_ONCE: usize = 8;
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
    /// Bytes of that.
    pub payload: usize,
    /// Whether state lives in RocksDB instead of on the heap.
    pub rocksdb: bool,
    /// Who is killed.
    pub victim: Victim,
    /// Our goal. Beside it a jobmanager has [`FIRST_CHECKPOINT_GOAL`].
    pub goal: Goal,
}

/// How long a job may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The median at most so many milliseconds, and the worst, where there is a goal for it.
    Silence(u64, Option<u64>),
    /// The median at most as long as it takes to read what was fetched from the checkpoint store, at the rate at which a
    /// plain client has read it before, and so many milliseconds. Our checkpoints go to MinIO then.
    Fetch(u64),
}

/// All of them.
pub const ALL: [Scenario; 4] = [
    Scenario {
        name: "heap",
        title: "A taskmanager, a spare slot, 100 MiB of state on the heap",
        keys: 100 << 10,
        payload: 1024,
        rocksdb: false,
        victim: Victim::TaskManager,
        goal: Goal::Silence(500, Some(2000)),
    },
    Scenario {
        name: "rocksdb-back",
        title: "A taskmanager, 2 GiB in RocksDB, replaced where its local directory is",
        keys: 16 << 20,
        payload: 128,
        rocksdb: true,
        victim: Victim::TaskManagerThatComesBack,
        goal: Goal::Silence(1500, None),
    },
    Scenario {
        name: "rocksdb",
        title: "A taskmanager, a spare slot, 2 GiB in RocksDB, from the checkpoint store",
        keys: 16 << 20,
        payload: 128,
        rocksdb: true,
        victim: Victim::TaskManager,
        goal: Goal::Fetch(1000),
    },
    Scenario {
        name: "jobmanager",
        title: "The jobmanager, 100 MiB of state on the heap",
        keys: 100 << 10,
        payload: 1024,
        rocksdb: false,
        victim: Victim::JobManager,
        goal: Goal::Silence(500, Some(1000)),
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
    /// Where checkpoints go instead of the directory.
    pub store: Option<Minio>,
}

/// The bucket of checkpoints.
pub const BUCKET: &str = "checkpoints";

/// A kill, and what came of it.
pub struct Recovery {
    /// The longest time without a new output; from the kill on where that ended tasks.
    pub silent: Duration,
    /// The phases that the engine tells of, and what is to be known beside them, in milliseconds.
    pub phases: Vec<(String, u64)>,
    /// Bytes that came from the checkpoint store, and how long it takes to read as many.
    pub fetched: Option<(u64, Duration)>,
}

/// What came of a scenario.
#[derive(Default)]
pub struct Recoveries {
    /// Of each kill.
    pub kills: Vec<Recovery>,
    /// Why it ended before all kills, if it did.
    pub ended: Option<String>,
}

impl Place {
    /// Bytes a second at which a plain client reads the checkpoint from the store; nothing where there is no store. The
    /// job goes on meanwhile, as others do while one recovers.
    fn rate(&self) -> Result<Option<f64>> {
        let Some(store) = &self.store else { return Ok(None) };
        let (mut bytes, mut took) = (0, Duration::ZERO);
        for paths in store.objects(BUCKET)?.chunks(READ_AT_ONCE) {
            let started = Instant::now();
            // What belongs to an older checkpoint may be deleted meanwhile.
            if let Ok(read) = store.read(BUCKET, paths) {
                took += started.elapsed();
                bytes += read.iter().map(Vec::len).sum::<usize>();
            }
        }
        if bytes == 0 {
            return Err("the store has nothing to read".into());
        }
        let rate = bytes as f64 / took.as_secs_f64();
        println!("  a plain client reads {bytes} bytes in {:.2} s: {:.0} MB/s", took.as_secs_f64(), rate / 1e6);
        Ok(Some(rate))
    }
}

impl Scenario {
    /// Whether tasks end with the victim: the job is silent from the kill on.
    fn ends_tasks(self) -> bool {
        self.victim != Victim::JobManager
    }

    /// Runs a contender through so many kills. That another one than ours does not get to its end is a result.
    pub fn measure(self, contender: Contender, flink: Option<&Path>, kills: u32, rate: u64) -> Result<Recoveries> {
        let mut recoveries = Recoveries::default();
        match self.kill(contender, flink, kills, rate, &mut recoveries.kills) {
            Err(error) if contender != Contender::Millrace => {
                println!("  ended: {error}");
                recoveries.ended = Some(error.to_string());
            }
            ended => ended?,
        }
        Ok(recoveries)
    }

    fn kill(
        self,
        contender: Contender,
        flink: Option<&Path>,
        kills: u32,
        rate: u64,
        recoveries: &mut Vec<Recovery>,
    ) -> Result<()> {
        let broker = KafkaBroker::start()?;
        let place = Place {
            kafka: broker.client(),
            directory: tempfile::tempdir()?,
            flink: flink.map(Path::to_owned),
            input: "records".to_owned(),
            output: "counts".to_owned(),
            store: Contender::store(self)?,
        };
        place.kafka.create_topic(&place.input, PARTITIONS)?;
        place.kafka.create_topic(&place.output, 1)?;
        let outputs = Outputs::follow(&place.kafka, &place.output)?;
        let mut running = contender.start(&place, self)?;
        let feed = Feed::start(place.kafka.clone(), &place.input, self.keys, SAMPLE, rate);
        let keys = self.keys.div_ceil(SAMPLE) as usize;
        wait("counts of all keys", || Ok(outputs.keys() == keys && feed.is_alive()))?;
        running.settle()?;
        let store_rate = place.rate()?;
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
            let mut recovery = self.recovery(&outputs, at, running.phases(at_ms)?)?;
            if let Some(rate) = store_rate {
                let bytes = running.fetched_bytes()?;
                recovery.fetched = Some((bytes, Duration::from_secs_f64(bytes as f64 / rate)));
            }
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
        Ok(())
    }

    /// What came of the kill at this moment.
    fn recovery(self, outputs: &Outputs, at: Instant, mut phases: Vec<(String, u64)>) -> Result<Recovery> {
        let now = Instant::now();
        let silence = outputs.longest_silence(at, now).ok_or("nothing new came after the kill")?;
        if self.ends_tasks() {
            let silent = silence.end - at;
            let told = phases.iter().map(|(_, ms)| ms).sum();
            phases.push(("then until the first new output".to_owned(), millis(silent).saturating_sub(told)));
            return Ok(Recovery { silent, phases, fetched: None });
        }
        // A job that goes on pauses as it always does, at checkpoints for one: what that is shows the time before.
        let before = outputs.longest_silence(at - (now - at), at).ok_or("nothing new came before the kill")?;
        phases.push(("(longest silence before the kill)".to_owned(), millis(before.end - before.start)));
        Ok(Recovery { silent: silence.end - silence.start, phases, fetched: None })
    }
}

/// Waits until what was written a moment ago is counted.
fn catch_up(outputs: &Outputs, feed: &Feed, rate: u64) -> Result<()> {
    let lag = (rate / SAMPLE) as f64 * LAG.as_secs_f64();
    wait_for("counts of the newest records", CATCHING_UP, || {
        if !feed.is_alive() {
            return Err("the feed has ended".into());
        }
        Ok(feed.sampled().saturating_sub(outputs.counted()?) <= lag as u64)
    })
}

/// Looks at a condition until it holds.
pub fn wait(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, PATIENCE, condition)
}

fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + patience;
    while !condition()? {
        if Instant::now() >= end {
            return Err(format!("no {what} within {patience:?}").into());
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
