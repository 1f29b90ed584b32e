//! The messages between a jobmanager and a taskmanager.

use millrace_core::{
    Error, Result,
    ids::{Attempt, CheckpointId, Generation, JobId, TaskId, TaskManagerId},
};
use millrace_runtime::{
    metrics::{TaskFigures, TaskMetricsSnapshot},
    scheduler::adoption::AdoptableTask,
    task::{TaskCommand, TaskEvent, TaskManagerLocation, TaskSpec},
};
use serde::{Deserialize, Serialize};

/// The version of this protocol; peers of another version are refused.
const PROTOCOL_VERSION: u32 = 5;
const MAGIC: &str = "millrace-control";

/// What tells two programs apart, part by part, so that a mismatch can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The executable's contents.
    pub build: String,
    /// Its arguments.
    pub arguments: String,
    /// The job graph: operators, uids, types, parallelism, and what sources read.
    pub graph: String,
}

impl Fingerprint {
    /// Refuses another program, saying what differs.
    pub fn check(&self, other: &Self) -> Result<()> {
        let parts = [
            ("build", &self.build, &other.build, "deploy the same image or executable everywhere"),
            ("arguments", &self.arguments, &other.arguments, "start every process with the same arguments"),
            ("job graph", &self.graph, &other.graph, "give every process the same arguments and parallelism settings"),
        ];
        match parts.iter().find(|(_, ours, theirs, _)| ours != theirs) {
            None => Ok(()),
            Some((part, ours, theirs, advice)) => Err(Error::invalid(format!(
                "the taskmanager runs another program: its {part} is {theirs}, the jobmanager's {ours}; {advice}"
            ))),
        }
    }
}

/// A taskmanager's first message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    magic: String,
    protocol: u32,
    /// The job that it was started for, where it was told.
    pub job: Option<JobId>,
    /// The taskmanager and its data port.
    pub location: TaskManagerLocation,
    /// Its name for people, which it keeps when it is started again.
    pub resource_id: String,
    /// How many slots it offers.
    pub slots: u32,
    /// Whether it runs tasks, which it reports in its first message.
    pub running: bool,
    /// Its process id, for messages to a person.
    pub pid: u32,
    /// Its program.
    pub fingerprint: Fingerprint,
    /// The shared secret of the cluster; empty where none is set.
    pub token: String,
}

impl Hello {
    /// A greeting in this version.
    pub fn new(
        job: Option<JobId>,
        location: TaskManagerLocation,
        resource_id: String,
        slots: u32,
        running: bool,
        fingerprint: Fingerprint,
        token: String,
    ) -> Self {
        let (magic, pid) = (MAGIC.to_string(), std::process::id());
        Self { magic, protocol: PROTOCOL_VERSION, job, location, resource_id, slots, running, pid, fingerprint, token }
    }

    /// Refuses a peer of another protocol, job, program or cluster.
    pub fn check(&self, job: JobId, fingerprint: &Fingerprint, token: &str) -> Result<()> {
        if self.magic != MAGIC || self.protocol != PROTOCOL_VERSION {
            return Err(Error::invalid(format!(
                "the peer speaks {:?} version {}, this jobmanager {MAGIC:?} version {PROTOCOL_VERSION}",
                self.magic, self.protocol
            )));
        }
        if self.token != token {
            return Err(Error::invalid("the taskmanager's security.token is not the jobmanager's"));
        }
        if let Some(theirs) = self.job.filter(|theirs| *theirs != job) {
            return Err(Error::invalid(format!("the taskmanager was started for job {theirs}, this is job {job}")));
        }
        if self.slots == 0 {
            return Err(Error::invalid(
                "the taskmanager offers no slot: set taskmanager.numberOfTaskSlots to 1 or more",
            ));
        }
        fingerprint.check(&self.fingerprint)
    }
}

/// The jobmanager's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Welcome {
    /// The taskmanager belongs to the job now.
    Accepted {
        /// The job.
        job: JobId,
        /// The jobmanager's incarnation.
        generation: Generation,
        /// What holds for the whole job.
        settings: JobSettings,
    },
    /// It does not, for this reason.
    Rejected(Error),
}

/// What the jobmanager decides for all taskmanagers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// The state backend's name.
    pub state_backend: String,
    /// Where checkpoints go; `None` where the jobmanager holds them.
    pub checkpoint_dir: Option<String>,
}

/// What a jobmanager says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToTaskManager {
    /// Run these tasks.
    Deploy(Attempt, Vec<TaskSpec>),
    /// Tell these tasks something.
    Command(Attempt, Vec<TaskId>, TaskCommand),
    /// Tell every task of the attempt something.
    CommandAll(Attempt, TaskCommand),
    /// I am alive.
    Heartbeat,
    /// The tasks that you run are to be a part of this attempt of the job, whose other tasks start again. Answer.
    Join(Attempt),
    /// The tasks that you run are mine, of this attempt of the job, all of which runs; they continue this checkpoint.
    Adopt(Attempt, CheckpointId),
    /// End the tasks that you run, and come again without them.
    ComeAnew,
    /// You hold no tasks of the job, and may end.
    Release,
    /// The job has ended; so do you.
    Shutdown,
}

/// What a taskmanager says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromTaskManager {
    /// Something happened to a task.
    Task(Attempt, TaskId, TaskEvent),
    /// I was told to end.
    Leaving,
    /// I have heard [`ToTaskManager::Join`].
    Joined(Attempt),
    /// I run these tasks.
    Running(Vec<AdoptableTask>),
    /// I am alive, and this is what my tasks have done.
    Heartbeat(TaskManagerMetrics),
    /// So many records my tasks have taken. Comes often.
    Progress(Vec<(TaskId, u64)>),
}

/// What a taskmanager reports of itself and its tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TaskManagerMetrics {
    /// Each task.
    pub tasks: Vec<TaskReport>,
    /// The process.
    pub process: ProcessFigures,
}

/// What a task has done since it was deployed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// Its counters.
    pub counters: TaskMetricsSnapshot,
    /// What it published last.
    pub figures: TaskFigures,
}

/// What a process takes of its machine. Sizes are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// How many cores it may use.
    pub cpu_cores: u32,
    /// The machine's memory.
    pub physical_memory: u64,
    /// What it takes of that.
    pub resident: u64,
    /// What it may take.
    pub limit: u64,
    /// What its state backend may hold in memory; 0 where that has no limit of its own.
    pub managed_total: u64,
    /// What that holds.
    pub managed_used: u64,
}

/// The identity of a new taskmanager process: it begins with its resource id.
pub fn new_taskmanager_id(resource_id: &str) -> TaskManagerId {
    TaskManagerId(format!("{resource_id}-{:08x}", uuid::Uuid::new_v4().as_fields().0))
}
