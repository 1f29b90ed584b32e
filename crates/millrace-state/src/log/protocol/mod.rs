//! How a jobmanager writes to its job's log, without IO: `(state, event) -> effects`.
//!
//! The rules, and why they are safe, are in `docs/adr/0001-log-per-job.md`. In short: whoever creates entry `n` has
//! read all valid entries below it, so that entries form one line of history; who loses a create reads what won; and
//! after every create, and before anything that others can see, the log is listed once more.
//!
//! The machine asks for one thing at a time and numbers what it asks: answers that are late, doubled or nobody's are
//! passed over. It never waits and never gives up by itself. Whoever drives it answers a request that failed with
//! [`Answer::Failed`], and the same request comes back; or ends the operation with [`Event::GiveUp`]. An entry whose
//! create was under way is then [in doubt](LogProtocol::in_doubt): it may be in the log, or get there later. The next
//! append finds out.

mod append;
mod claim;
#[cfg(test)]
mod tests;

use millrace_core::{
    Error,
    ids::{CheckpointId, Generation, JobId},
};

use super::{
    entry::{AttemptRecord, CheckpointRecord, LogBody, LogEntry, TerminalRecord, WriterId},
    view::LogView,
};
use claim::Survey;
pub(super) use claim::check_follows;

/// How often in a row the log may contradict itself (an entry is listed, or refused as existing, and then is not
/// there) before that is an error. Concurrent trimming and conflict answers of S3 cause a few.
const MAX_CONTRADICTIONS: u32 = 64;

/// The safety steps, so that a simulation can leave one out and show that it notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolChecks {
    /// Stop on finding an entry of another incarnation. Without it, a writer that loses a create tries the next
    /// number, as a log without generations would.
    pub fence: bool,
    /// List the log after a create and before anything is announced, committed or deleted. Without it, the answer to
    /// the create is taken for the truth.
    pub relist: bool,
}

impl Default for ProtocolChecks {
    fn default() -> Self {
        Self { fence: true, relist: true }
    }
}

/// The number of a request to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants something. One at a time.
    Command(Command),
    /// The store has answered.
    Answer {
        /// Which request.
        request: RequestId,
        /// What it said.
        answer: Answer,
    },
    /// The operation under way is ended without a result.
    GiveUp(Error),
}

/// What can be wanted.
#[derive(Clone, Debug)]
pub enum Command {
    /// Become the job's only jobmanager.
    ClaimGeneration {
        /// Unique for this attempt.
        writer: WriterId,
        /// Who claims, for people.
        owner: String,
        /// The deployment of the job that it claims for: one that is higher than that of the entry goes on with a job
        /// that failed for good.
        deployment: u64,
        /// The time, for people.
        now_ms: u64,
    },
    /// Append an entry.
    Append {
        /// Unique for this attempt.
        writer: WriterId,
        /// The time, for people.
        now_ms: u64,
        /// What to append.
        body: Append,
    },
    /// Make sure that no other incarnation has taken over: before announcing, committing or deleting anything.
    AnnounceCheck,
    /// Delete void entries.
    Trim,
}

/// What can be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// A completed checkpoint, whose metadata is written already.
    Checkpoint {
        /// The checkpoint.
        record: CheckpointRecord,
        /// How many checkpoints are retained, this one included; older entries become void with it.
        retain: usize,
    },
    /// The beginning of an attempt of the whole job.
    Attempt(AttemptRecord),
    /// The end of the job.
    Terminal(TerminalRecord),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the store.
    Store {
        /// To be repeated in the answer.
        request: RequestId,
        /// What to ask.
        op: StoreOp,
    },
    /// The operation has ended.
    Done(Outcome),
}

/// A request to the store. Each may be carried out more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// The numbers of all entries from this one on, in any order.
    List {
        /// The first number of interest.
        from: u64,
    },
    /// The bytes of an entry.
    Read(u64),
    /// Create an entry if it is absent.
    Create {
        /// Its number.
        position: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Delete an entry; one that is absent is deleted already.
    Delete(u64),
}

/// The store's answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`StoreOp::List`].
    Listed(Vec<u64>),
    /// To [`StoreOp::Read`]; `None` where nothing is.
    Read(Option<Vec<u8>>),
    /// To [`StoreOp::Create`]: it was absent and is there now.
    Created,
    /// To [`StoreOp::Create`]: it exists, or another create is under way (a 409).
    AlreadyExists,
    /// To [`StoreOp::Delete`].
    Deleted,
    /// To any: no answer, or an error that says nothing about whether it was done.
    Failed,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This incarnation is the job's only one. [`LogProtocol::view`] is the history, its own entry included.
    Claimed {
        /// Its generation.
        generation: Generation,
    },
    /// The entry is in the log, and this incarnation was still the newest after it.
    Appended {
        /// Its number.
        position: u64,
        /// The checkpoints that the log has ceased to refer to: their files may be deleted.
        released: Vec<CheckpointRecord>,
    },
    /// No other incarnation has taken over.
    StillLeader,
    /// Void entries are deleted.
    Trimmed {
        /// How many.
        deleted: usize,
    },
    /// Another incarnation has taken over: this one must stop, and leave everything as it is.
    Fenced {
        /// The other's generation.
        generation: Generation,
    },
    /// The entry with which this incarnation took over is gone, and nobody else's stands above it: the job was deleted.
    /// This one must stop, and leave everything as it is.
    Removed,
    /// The job has ended and must not be run.
    Ended(TerminalRecord),
    /// The log is damaged, or the operation makes no sense now; nothing was written.
    Refused(Error),
    /// The operation was given up, or the log is not where it was. Whether an entry was written is unknown: see
    /// [`LogProtocol::in_doubt`].
    GaveUp(Error),
}

/// One incarnation's side of the log.
#[derive(Debug)]
pub struct LogProtocol {
    job: JobId,
    checks: ProtocolChecks,
    view: LogView,
    standing: Standing,
    /// The operation under way.
    operation: Option<Operation>,
    /// Entries of ours, all for the position after the newest, of which it is not known which one is in the log.
    in_doubt: Vec<LogEntry>,
    /// Checkpoints that the log no longer refers to and that no outcome has told yet.
    released: Vec<CheckpointRecord>,
    /// The newest checkpoint's entry, which is never deleted, not even when the job's end makes it void.
    newest_checkpoint_at: Option<u64>,
    last_request: RequestId,
}

#[derive(Debug)]
enum Standing {
    Outside,
    Leader { generation: Generation, at: u64 },
    Fenced(Generation),
    Removed,
    Ended(TerminalRecord),
}

#[derive(Debug)]
struct Operation {
    goal: Goal,
    stage: Stage,
    request: RequestId,
    op: StoreOp,
    contradictions: u32,
}

#[derive(Debug)]
enum Goal {
    Claim { writer: WriterId, owner: String, now_ms: u64, survey: Survey },
    Append { writer: WriterId, now_ms: u64, body: Append },
    Check,
    Trim,
}

#[derive(Debug)]
enum Stage {
    /// A claim lists the log.
    Survey,
    /// A claim reads entry after entry.
    Reading,
    /// An entry is being created.
    Create(LogEntry),
    /// It exists already: whose is it?
    ReadBack(LogEntry),
    /// The log is listed: is the newest entry ours? The entry is one that has just been created.
    Guard(Option<LogEntry>),
    /// It is not: whose is it?
    Above(Option<LogEntry>, u64),
    /// Void entries are being deleted.
    Delete { todo: Vec<u64>, deleted: usize },
}

impl LogProtocol {
    /// The side of an incarnation that has not claimed the job yet.
    pub fn new(job: JobId, checks: ProtocolChecks) -> Self {
        Self {
            job,
            checks,
            view: LogView::default(),
            standing: Standing::Outside,
            operation: None,
            in_doubt: Vec::new(),
            released: Vec::new(),
            newest_checkpoint_at: None,
            last_request: RequestId(0),
        }
    }

    /// What the log says, as far as this incarnation has read and written it.
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// The generation that this incarnation has claimed and, as far as it knows, still holds.
    pub fn generation(&self) -> Option<Generation> {
        match self.standing {
            Standing::Leader { generation, .. } => Some(generation),
            _ => None,
        }
    }

    /// The checkpoints whose entries may or may not be in the log, after [`Outcome::GaveUp`]. Their files must stay
    /// until that is known: append one again, or append a later one and look at the view.
    pub fn in_doubt(&self) -> impl Iterator<Item = CheckpointId> {
        self.in_doubt.iter().filter_map(LogEntry::checkpoint).map(|record| record.id)
    }

    /// Advances the machine.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Command(command) => self.start(command),
            Event::Answer { request, answer } => match self.operation.take() {
                Some(operation) if operation.request == request => self.advance(operation, answer),
                other => {
                    self.operation = other;
                    Vec::new()
                }
            },
            Event::GiveUp(error) => match self.operation.take() {
                Some(operation) => self.give_up(operation, error),
                None => Vec::new(),
            },
        }
    }

    fn start(&mut self, command: Command) -> Vec<Effect> {
        let refuse = |why: &str| done(Outcome::Refused(Error::internal(format!("the log's protocol: {why}"))));
        if self.operation.is_some() {
            return refuse("an operation is under way");
        }
        let leader = match &self.standing {
            Standing::Fenced(generation) => return done(Outcome::Fenced { generation: *generation }),
            Standing::Removed => return done(Outcome::Removed),
            Standing::Ended(record) => return done(Outcome::Ended(record.clone())),
            Standing::Outside => false,
            Standing::Leader { .. } => true,
        };
        match command {
            Command::ClaimGeneration { .. } if leader => refuse("this incarnation has claimed its generation already"),
            Command::ClaimGeneration { writer, owner, deployment, now_ms } => {
                self.survey(Goal::Claim { writer, owner, now_ms, survey: Survey::new(deployment) }, 0)
            }
            _ if !leader => refuse("no generation has been claimed"),
            Command::Append { writer, now_ms, body } => self.start_append(writer, now_ms, body),
            Command::AnnounceCheck => self.guard(Goal::Check, None, 0),
            Command::Trim => self.guard(Goal::Trim, None, 0),
        }
    }

    fn advance(&mut self, operation: Operation, answer: Answer) -> Vec<Effect> {
        let Operation { goal, stage, op, contradictions, .. } = operation;
        match (stage, answer) {
            (stage, Answer::Failed) => self.ask(goal, stage, op, contradictions),
            (Stage::Survey, Answer::Listed(listed)) => self.surveyed(goal, listed, contradictions),
            (Stage::Reading, Answer::Read(bytes)) => self.has_read(goal, op, bytes, contradictions),
            (Stage::Create(entry), Answer::Created) => self.guard(goal, Some(entry), contradictions),
            (Stage::Create(entry), Answer::AlreadyExists) => {
                let op = StoreOp::Read(entry.position);
                self.ask(goal, Stage::ReadBack(entry), op, contradictions)
            }
            (Stage::ReadBack(entry), Answer::Read(None)) => self.create(goal, entry, contradictions + 1),
            (Stage::ReadBack(entry), Answer::Read(Some(found))) => self.lost_create(goal, entry, &found),
            (Stage::Guard(entry), Answer::Listed(listed)) => self.guarded(goal, entry, &listed, contradictions),
            (Stage::Above(entry, _), Answer::Read(None)) => self.guard(goal, entry, contradictions + 1),
            (Stage::Above(entry, at), Answer::Read(Some(found))) => self.found_above(goal, entry, at, &found),
            (Stage::Delete { todo, deleted }, Answer::Deleted) => self.delete_next(todo, deleted + 1),
            (stage, answer) => {
                let error = format!("the answer {answer:?} does not fit the request {op:?}");
                self.give_up(
                    Operation { goal, stage, request: self.last_request, op, contradictions },
                    Error::internal(error),
                )
            }
        }
    }

    /// Sends a request and waits for its answer in `stage`.
    fn ask(&mut self, goal: Goal, stage: Stage, op: StoreOp, contradictions: u32) -> Vec<Effect> {
        self.last_request.0 += 1;
        let operation = Operation { goal, stage, request: self.last_request, op: op.clone(), contradictions };
        if contradictions > MAX_CONTRADICTIONS {
            let what = format!("the log of job {} contradicts itself: {op:?} finds now this, now that", self.job);
            return self.give_up(operation, Error::external(what));
        }
        self.operation = Some(operation);
        vec![Effect::Store { request: self.last_request, op }]
    }

    fn create(&mut self, goal: Goal, entry: LogEntry, contradictions: u32) -> Vec<Effect> {
        let op = StoreOp::Create { position: entry.position, bytes: entry.encode() };
        self.ask(goal, Stage::Create(entry), op, contradictions)
    }

    fn give_up(&mut self, operation: Operation, error: Error) -> Vec<Effect> {
        let entry = match operation.stage {
            Stage::Create(entry) | Stage::ReadBack(entry) => Some(entry),
            Stage::Guard(entry) | Stage::Above(entry, _) => entry,
            _ => None,
        };
        // A claim in doubt needs no care: the next claim reads the log anyway, and takes a higher generation if the
        // entry is there.
        if let (Goal::Append { .. }, Some(entry)) = (operation.goal, entry)
            && !self.is_in_doubt(&entry)
        {
            self.in_doubt.push(entry);
        }
        done(Outcome::GaveUp(error))
    }

    fn fenced(&mut self, generation: Generation) -> Vec<Effect> {
        self.standing = Standing::Fenced(generation);
        done(Outcome::Fenced { generation })
    }

    /// Takes the next entry into the view. Whatever was in doubt for its position is settled.
    fn take_in(&mut self, entry: LogEntry) {
        if entry.checkpoint().is_some() {
            self.newest_checkpoint_at = Some(entry.position);
        }
        self.in_doubt.clear();
        self.released.extend(self.view.push(entry));
    }

    /// Whether an entry is one of ours whose create had no answer.
    fn is_in_doubt(&self, found: &LogEntry) -> bool {
        self.in_doubt.iter().any(|entry| entry.writer == found.writer)
    }

    /// The entry that follows the newest.
    fn next_entry(&self, writer: WriterId, now_ms: u64, by: (Generation, u64), floor: u64, body: LogBody) -> LogEntry {
        let (generation, generation_at) = by;
        let position = self.view.last() + 1;
        LogEntry { job: self.job, position, writer, generation, generation_at, floor, written_at_ms: now_ms, body }
    }
}

fn done(outcome: Outcome) -> Vec<Effect> {
    vec![Effect::Done(outcome)]
}
