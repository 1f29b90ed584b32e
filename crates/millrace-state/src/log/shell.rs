//! The log's shell: carries the protocol's requests out over the checkpoint store.

use std::time::{Duration, SystemTime};

use millrace_core::{
    Error, Result,
    ids::{Attempt, CheckpointId, Generation, JobId},
};

use super::{
    entry::{AttemptRecord, CheckpointRecord, TerminalRecord, WriterId, position_of, relative_path},
    protocol::{Answer, Append, Command, Effect, Event, LogProtocol, Outcome, ProtocolChecks, StoreOp},
    view::LogView,
};
use crate::storage::{CheckpointStorage, Created, RetryPolicy};

/// A job's log in a checkpoint store, from one jobmanager's side.
#[derive(Debug)]
pub struct JobLog {
    storage: CheckpointStorage,
    job: JobId,
    protocol: LogProtocol,
    retry: RetryPolicy,
}

/// What a claim finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This jobmanager is the job's only one; [`JobLog::view`] is the history.
    Leader(Generation),
    /// The job has ended and must not be run again.
    Ended(TerminalRecord),
}

/// An entry that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub position: u64,
    /// The checkpoints that the log has ceased to refer to: their files may be deleted.
    pub released: Vec<CheckpointRecord>,
}

/// Why the log could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another jobmanager has taken over. This one must stop and leave everything as it is.
    #[error("a jobmanager of generation {generation} has taken the job over")]
    Fenced {
        /// The other's generation.
        generation: Generation,
    },
    /// The job was deleted from the store. This one must stop and leave everything as it is.
    #[error("the job was deleted: its log is gone")]
    Removed,
    /// The job has ended already.
    #[error("the job has ended already")]
    Ended(TerminalRecord),
    /// The store failed for longer than the retry policy bears, or the log is damaged. After a failed append, the
    /// entry may be in the log: see [`JobLog::in_doubt`].
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Failed(error) => error,
            other => Self::external(other.to_string()).fatal(),
        }
    }
}

impl JobLog {
    /// The log of a job. Nothing is read or written yet.
    pub fn open(storage: &CheckpointStorage, job: JobId, retry: RetryPolicy) -> Self {
        let protocol = LogProtocol::new(job, ProtocolChecks::default());
        Self { storage: storage.clone(), job, protocol, retry }
    }

    /// Becomes the job's only jobmanager: reads the log and appends the next generation. `owner` tells people who
    /// that is; a `deployment` above the one that a job failed under for good takes it up again.
    pub async fn claim(&mut self, owner: &str, deployment: u64) -> Result<Claim, LogError> {
        let (writer, owner) = (WriterId::random(), owner.to_string());
        match self.run(Command::ClaimGeneration { writer, owner, deployment, now_ms: now_ms() }).await? {
            Outcome::Claimed { generation } => Ok(Claim::Leader(generation)),
            Outcome::Ended(record) => Ok(Claim::Ended(record)),
            other => Err(failed(other)),
        }
    }

    /// Makes a completed checkpoint, whose metadata is written, part of the job's history. From then on `retain`
    /// checkpoints, this one included, are kept.
    ///
    /// After an error that can be retried, the same call may be made again: it never makes a second entry.
    pub async fn append_checkpoint(&mut self, record: CheckpointRecord, retain: usize) -> Result<Appended, LogError> {
        self.append(Append::Checkpoint { record, retain }).await
    }

    /// Says that an attempt of the whole job begins: tasks of earlier ones must not be gone on with. Not while a
    /// checkpoint is in doubt, which would be one of theirs, behind it.
    pub async fn append_attempt(&mut self, attempt: Attempt) -> Result<Appended, LogError> {
        self.append(Append::Attempt(AttemptRecord { attempt })).await
    }

    /// Ends the job for good. Nothing can be appended after it.
    pub async fn append_terminal(&mut self, record: TerminalRecord) -> Result<Appended, LogError> {
        self.append(Append::Terminal(record)).await
    }

    /// Makes sure that no other jobmanager has taken over. To be called before anything is announced, committed or
    /// deleted; a successful append has done it already.
    pub async fn assert_still_leader(&mut self) -> Result<(), LogError> {
        match self.run(Command::AnnounceCheck).await? {
            Outcome::StillLeader => Ok(()),
            other => Err(failed(other)),
        }
    }

    /// Deletes the entries that have become void; returns how many.
    pub async fn trim(&mut self) -> Result<usize, LogError> {
        match self.run(Command::Trim).await? {
            Outcome::Trimmed { deleted } => Ok(deleted),
            other => Err(failed(other)),
        }
    }

    /// What the log says, as far as this jobmanager has read and written it.
    pub fn view(&self) -> &LogView {
        self.protocol.view()
    }

    /// The checkpoints whose append failed and that may be in the log nevertheless. Their files must stay.
    pub fn in_doubt(&self) -> impl Iterator<Item = CheckpointId> {
        self.protocol.in_doubt()
    }

    async fn append(&mut self, body: Append) -> Result<Appended, LogError> {
        match self.run(Command::Append { writer: WriterId::random(), now_ms: now_ms(), body }).await? {
            Outcome::Appended { position, released } => Ok(Appended { position, released }),
            other => Err(failed(other)),
        }
    }

    /// Runs a command to its end. If the returned future is dropped half-way, the protocol is told by the next call.
    async fn run(&mut self, command: Command) -> Result<Outcome, LogError> {
        let dropped = Error::external("the operation on the log was interrupted");
        self.protocol.step(Event::GiveUp(dropped));
        let mut effects = self.protocol.step(Event::Command(command));
        let mut failures = 0;
        loop {
            match effects.pop() {
                Some(Effect::Done(outcome)) => return Ok(outcome),
                Some(Effect::Store { request, op }) => {
                    let event = match self.carry_out(&op).await {
                        Ok(answer) => {
                            failures = 0;
                            Event::Answer { request, answer }
                        }
                        Err(error) => match self.retry.delay_after(failures).filter(|_| error.retryable) {
                            Some(delay) => {
                                failures += 1;
                                tracing::warn!(job = %self.job, ?delay, "the log can't be reached: {error}");
                                pause(delay).await;
                                Event::Answer { request, answer: Answer::Failed }
                            }
                            None => Event::GiveUp(error),
                        },
                    };
                    effects = self.protocol.step(event);
                }
                None => return Err(Error::internal("the log's protocol came to a halt").into()),
            }
        }
    }

    async fn carry_out(&self, op: &StoreOp) -> Result<Answer> {
        let path = |position| self.storage.job_path(self.job, &relative_path(position));
        match op {
            StoreOp::List { from } => self.list(*from).await.map(Answer::Listed),
            StoreOp::Read(position) => {
                let bytes = self.storage.read(&path(*position)).await?;
                Ok(Answer::Read(bytes.map(|bytes| bytes.to_vec())))
            }
            StoreOp::Create { position, bytes } => {
                match self.storage.create(&path(*position), bytes.clone().into()).await? {
                    Created::New => Ok(Answer::Created),
                    Created::Exists => Ok(Answer::AlreadyExists),
                }
            }
            StoreOp::Delete(position) => self.storage.delete(&path(*position)).await.map(|()| Answer::Deleted),
        }
    }

    async fn list(&self, from: u64) -> Result<Vec<u64>> {
        let directory = self.storage.job_path(self.job, "log");
        let after = from.checked_sub(1).filter(|position| *position > 0).map(relative_path);
        let after = after.map(|name| self.storage.job_path(self.job, &name));
        let files = self.storage.list(&directory, after.as_ref()).await?;
        Ok(files.iter().filter_map(|path| position_of(path.filename()?)).collect())
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// The time as it is written into entries, for people.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn failed(outcome: Outcome) -> LogError {
    match outcome {
        Outcome::Fenced { generation } => LogError::Fenced { generation },
        Outcome::Removed => LogError::Removed,
        Outcome::Ended(record) => LogError::Ended(record),
        Outcome::Refused(error) | Outcome::GaveUp(error) => LogError::Failed(error),
        other => LogError::Failed(Error::internal(format!("the log's protocol answered out of turn: {other:?}"))),
    }
}
