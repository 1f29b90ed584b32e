//! Those who are measured.

use millrace_testkit::services::minio::Minio;

use crate::{
    Result, flink, millrace,
    scenario::{BUCKET, Goal, Place, Scenario, Victim},
};

/// An engine, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Ours, as it is set by default.
    Millrace,
    /// Flink with heartbeats every second, 3 s of silence, and 100 ms before a restart.
    FlinkTuned,
    /// Flink as it is set by default.
    Flink,
}

/// All of them.
pub const ALL: [Contender; 3] = [Contender::Millrace, Contender::FlinkTuned, Contender::Flink];

/// The contender of this name.
pub fn named(name: &str) -> Result<Contender, String> {
    match name {
        "millrace" => Ok(Contender::Millrace),
        "flink-tuned" => Ok(Contender::FlinkTuned),
        "flink" => Ok(Contender::Flink),
        _ => Err("there are millrace, flink-tuned and flink".to_owned()),
    }
}

impl Contender {
    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Millrace => "Millrace",
            Self::FlinkTuned => "Flink, tuned",
            Self::Flink => "Flink, defaults",
        }
    }

    /// Whether it can be measured so. Flink's jobs end with their jobmanager unless ZooKeeper or Kubernetes keeps what
    /// belongs to them, and its package has no client for an object store.
    pub fn takes_part(self, scenario: Scenario, flink: bool) -> bool {
        let flink_can = scenario.victim != Victim::JobManager && !matches!(scenario.goal, Goal::Fetch(_));
        self == Self::Millrace || (flink && flink_can)
    }

    /// An object store for the checkpoints, where the scenario is about one.
    pub fn store(scenario: Scenario) -> Result<Option<Minio>> {
        if !matches!(scenario.goal, Goal::Fetch(_)) {
            return Ok(None);
        }
        let minio = Minio::start()?;
        minio.create_bucket(BUCKET)?;
        Ok(Some(minio))
    }

    /// Starts its processes.
    pub fn start(self, place: &Place, scenario: Scenario) -> Result<Box<dyn Running>> {
        match self {
            Self::Millrace => millrace::start(place, scenario),
            Self::FlinkTuned => flink::start(place, scenario, flink::Tuning::Tuned),
            Self::Flink => flink::start(place, scenario, flink::Tuning::Defaults),
        }
    }
}

/// A job that runs.
pub trait Running {
    /// Waits until all tasks run with a slot to spare, and a checkpoint has completed since.
    fn settle(&mut self) -> Result<()>;
    /// Chooses who is killed next.
    fn aim(&mut self) -> Result<()>;
    /// SIGKILL. Returns when the process is gone.
    fn kill(&mut self) -> Result<()>;
    /// Waits until all tasks run again, after a kill at this time since the epoch.
    fn wait_until_recovered(&mut self, killed_ms: u64) -> Result<()>;
    /// How long the recovery's phases took, by name, after a kill at this time.
    fn phases(&mut self, killed_ms: u64) -> Result<Vec<(String, u64)>>;
    /// Bytes that came from the checkpoint store in the last recovery.
    fn fetched_bytes(&mut self) -> Result<u64>;
    /// Starts a process in place of the one that was killed.
    fn replace(&mut self) -> Result<()>;
}
