//! The faults, and the moments at which they are struck.

use std::fmt;

use super::{Backend, Target};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL of a taskmanager with tasks, while a spare slot waits.
    KillTaskManager,
    /// SIGKILL of the jobmanager; another one is started in its place.
    KillJobManager,
    /// SIGKILL of both at once.
    KillBoth,
    /// SIGKILL of all; the job is started again at another parallelism.
    Rescale,
    /// SIGSTOP of a taskmanager until the job has gone on without it, then SIGCONT: a zombie.
    PauseTaskManager,
    /// SIGSTOP of a taskmanager for less than a heartbeat's timeout.
    StallTaskManager,
    /// SIGSTOP of the jobmanager for longer than a heartbeat's timeout, then SIGCONT.
    PauseJobManager,
    /// Resets of all connections of a taskmanager.
    CloseConnections,
    /// Half-open connections: nothing of a taskmanager gets through until the job has gone on without it; then all does.
    CutConnections,
    /// Half-open connections between taskmanagers only, for a while.
    CutData,
    /// Everything between the processes takes longer for a while.
    Latency,
    /// The disk of checkpoints or of local state is full for a while.
    DiskFull,
    /// The object store answers 503 for a while.
    StoreRefuses,
    /// The object store is slow for a while.
    StoreSlow,
    /// The object store does what it is asked, and its answers are lost.
    StoreLosesAnswers,
    /// The object store does what it is asked after whoever asked has given up.
    StoreActsLate,
    /// The Kafka broker is killed and started again.
    RestartKafka,
    /// Half-open connections between the job and Kafka: nothing gets through for a while, and then all does.
    KafkaCut,
    /// Resets of all connections between the job and Kafka.
    KafkaClose,
    /// Everything between the job and Kafka takes longer for a while.
    KafkaLatency,
    /// The PostgreSQL server is killed and started again.
    RestartPostgres,
    /// The clock of a process jumps back by minutes, and forward again later.
    JumpClock,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::KillTaskManager,
        Self::KillJobManager,
        Self::KillBoth,
        Self::Rescale,
        Self::PauseTaskManager,
        Self::StallTaskManager,
        Self::PauseJobManager,
        Self::CloseConnections,
        Self::CutConnections,
        Self::CutData,
        Self::Latency,
        Self::DiskFull,
        Self::StoreRefuses,
        Self::StoreSlow,
        Self::StoreLosesAnswers,
        Self::StoreActsLate,
        Self::RestartKafka,
        Self::KafkaCut,
        Self::KafkaClose,
        Self::KafkaLatency,
        Self::RestartPostgres,
        Self::JumpClock,
    ];

    /// Those that interrupt a sink between two steps, whatever it writes to.
    pub const AT_SINKS: [Self; 10] = [
        Self::KillTaskManager,
        Self::KillJobManager,
        Self::KillBoth,
        Self::PauseTaskManager,
        Self::CutConnections,
        Self::RestartKafka,
        Self::KafkaCut,
        Self::KafkaClose,
        Self::KafkaLatency,
        Self::Rescale,
    ];

    /// And those that fail the requests of one that writes to an object store.
    pub const AT_STORES: [Self; 3] = [Self::StoreRefuses, Self::StoreLosesAnswers, Self::StoreActsLate];

    /// Those that interrupt a sink that writes to this target.
    pub fn at_sinks(target: Target) -> Vec<Self> {
        let stores: &[Self] = if target == Target::S3 { &Self::AT_STORES } else { &[] };
        [&Self::AT_SINKS, stores].concat()
    }

    /// Why it means nothing to a job with its state on this backend that writes to this target.
    pub fn is_moot(self, backend: Backend, target: Target) -> Option<&'static str> {
        match self {
            Self::DiskFull if backend == Backend::Memory => Some("this job uses no disk"),
            Self::StoreRefuses | Self::StoreSlow | Self::StoreLosesAnswers | Self::StoreActsLate
                if backend == Backend::Filesystem && target != Target::S3 =>
            {
                Some("this job's checkpoints lie on a disk, and its outputs in no store")
            }
            Self::RestartPostgres if target != Target::Postgres => Some("this job writes to no table"),
            _ => None,
        }
    }

    /// Whether it begins in an instant, so that it can be struck at a step of the protocol.
    pub fn is_instant(self) -> bool {
        matches!(
            self,
            Self::KillTaskManager
                | Self::KillJobManager
                | Self::KillBoth
                | Self::Rescale
                | Self::PauseTaskManager
                | Self::PauseJobManager
                | Self::CloseConnections
                | Self::CutConnections
                | Self::StoreRefuses
                | Self::StoreSlow
                | Self::StoreLosesAnswers
                | Self::StoreActsLate
                | Self::RestartKafka
                | Self::KafkaCut
                | Self::KafkaClose
                | Self::KafkaLatency
                | Self::RestartPostgres
        )
    }

    /// Whether tasks end with it: the job is silent from that moment on.
    pub fn ends_tasks(self) -> bool {
        matches!(self, Self::KillTaskManager | Self::KillBoth | Self::Rescale)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillTaskManager => "kill-taskmanager",
            Self::KillJobManager => "kill-jobmanager",
            Self::KillBoth => "kill-both",
            Self::Rescale => "rescale",
            Self::PauseTaskManager => "pause-taskmanager",
            Self::StallTaskManager => "stall-taskmanager",
            Self::PauseJobManager => "pause-jobmanager",
            Self::CloseConnections => "close-connections",
            Self::CutConnections => "cut-connections",
            Self::CutData => "cut-data",
            Self::Latency => "latency",
            Self::DiskFull => "disk-full",
            Self::StoreRefuses => "store-refuses",
            Self::StoreSlow => "store-slow",
            Self::StoreLosesAnswers => "store-loses-answers",
            Self::StoreActsLate => "store-acts-late",
            Self::RestartKafka => "restart-kafka",
            Self::KafkaCut => "kafka-cut",
            Self::KafkaClose => "kafka-close",
            Self::KafkaLatency => "kafka-latency",
            Self::RestartPostgres => "restart-postgres",
            Self::JumpClock => "jump-clock",
        }
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| format!("{name:?} is no fault; there are {}", names()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// When a fault is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// So many milliseconds after the job has recovered from the last one.
    After(u64),
    /// So many milliseconds after the last one, whether the job has recovered or not.
    Hasty(u64),
    /// As soon as the jobmanager says that it takes this step.
    JobManagerStep(&'static str),
    /// As soon as a taskmanager with tasks does.
    TaskManagerStep(&'static str),
}

/// Steps of the jobmanager that come with every checkpoint.
pub const JOBMANAGER_STEPS: [&str; 4] = ["trigger", "write-metadata", "append-log", "complete"];
/// Steps of the jobmanager that come with every recovery.
pub const RECOVERY_STEPS: [&str; 4] = ["cancel", "prepare", "deploy", "start"];
/// Steps of a taskmanager that come with every checkpoint.
pub const TASKMANAGER_STEPS: [&str; 3] = ["snapshot", "acknowledge", "notify-complete"];

/// Steps at which a sink that commits with the checkpoint may be interrupted.
pub const SINK_STEPS: [Moment; 7] = [
    Moment::TaskManagerStep("prepare-commit"),
    Moment::TaskManagerStep("acknowledge"),
    Moment::JobManagerStep("append-log"),
    Moment::JobManagerStep("complete"),
    Moment::TaskManagerStep("commit"),
    Moment::TaskManagerStep("committed"),
    Moment::TaskManagerStep(COMMIT_RESTORED),
];
/// The step of a taskmanager that comes with every recovery of such a sink.
const COMMIT_RESTORED: &str = "commit-restored";

impl Moment {
    /// Whether it takes a recovery for it to come.
    pub fn is_in_recovery(self) -> bool {
        match self {
            Self::JobManagerStep(step) => RECOVERY_STEPS.contains(&step),
            Self::TaskManagerStep(step) => step == COMMIT_RESTORED,
            Self::After(_) | Self::Hasty(_) => false,
        }
    }

    /// Its kind, without the milliseconds.
    pub fn kind(self) -> String {
        match self {
            Self::After(_) => "at a random moment".to_owned(),
            Self::Hasty(_) => "soon after the last".to_owned(),
            step => step.to_string(),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(ms) => write!(f, "after {ms} ms"),
            Self::Hasty(ms) => write!(f, "{ms} ms after the last"),
            Self::JobManagerStep(step) => write!(f, "at jobmanager's {step}"),
            Self::TaskManagerStep(step) => write!(f, "at taskmanager's {step}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Ok(fault));
        }
        assert!(Fault::named("meteorite").unwrap_err().contains("kill-both"));
    }

    #[test]
    fn what_a_job_does_not_use_cannot_fail() {
        let moot = |fault: Fault, backend, target| fault.is_moot(backend, target).is_some();
        assert!(moot(Fault::DiskFull, Backend::Memory, Target::Kafka));
        assert!(!moot(Fault::DiskFull, Backend::RocksDb, Target::Kafka));
        assert!(moot(Fault::StoreRefuses, Backend::Filesystem, Target::Files));
        assert!(!moot(Fault::StoreRefuses, Backend::Filesystem, Target::S3));
        assert!(moot(Fault::RestartPostgres, Backend::Memory, Target::Kafka));
        assert!(!moot(Fault::RestartPostgres, Backend::Memory, Target::Postgres));
    }
}
