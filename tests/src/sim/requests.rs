//! Requests to the store: late, without answer, or answered falsely.

use std::rc::Rc;

use millrace_core::ids::{CheckpointId, Generation};
use millrace_runtime::coordinator::{CoordinatorEvent, MetadataOutcome, MetadataReceipt};
use millrace_state::log::protocol::{Answer as LogAnswer, Event as LogEvent, RequestId, StoreOp};
use rand::Rng;

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, LogTask, Phase, no_answer},
    oracle::check_state,
    plan::{Blow, Point},
    store::{Metadata, Restored},
    world::{Event, World},
};

/// How long a jobmanager waits for an answer.
const PATIENCE_MS: u64 = 25;

/// What a jobmanager asks of the store.
#[derive(Clone, Debug)]
pub enum Op {
    /// What the log's protocol wants.
    Log(RequestId, StoreOp),
    /// Which checkpoint ids have been used?
    HighestCheckpoint,
    /// Read a checkpoint.
    ReadCheckpoint(CheckpointId),
    /// Create a checkpoint's metadata if absent.
    CreateMetadata(CheckpointId, Rc<Metadata>),
    /// Delete snapshots.
    DeleteFiles(Vec<String>),
    /// Delete a checkpoint.
    DeleteCheckpoint(CheckpointId),
}

impl Op {
    /// Whether the sender waits for the answer, and asks again if it does not come.
    fn is_awaited(&self) -> bool {
        !matches!(self, Self::DeleteFiles(_) | Self::DeleteCheckpoint(_))
    }
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To the log's protocol, and the highest generation in the log at that time.
    Log(LogAnswer, Generation),
    /// The highest id.
    Highest(CheckpointId),
    /// The checkpoint.
    Checkpoint(Result<Restored, String>),
    /// Whose metadata is there now.
    Metadata(usize),
    /// Deleted.
    Deleted,
}

impl World {
    /// Sends a request.
    pub fn request(&mut self, index: usize, op: Op) {
        let id = self.unique();
        let is_append = matches!(&op, Op::Log(_, StoreOp::Create { .. }))
            && matches!(self.jobmanagers[index].log_task, Some(LogTask::Append(_)));
        let delayed = self.chance(self.plan.delay_request);
        let struck = is_append.then(|| self.strike(index, Point::CreateSent)).flatten();
        let late = match struck {
            // So that it may arrive when the log has long belonged to others.
            Some(Blow::Pause(length)) if self.rng.random_bool(0.6) => Some(self.rng.random_range(length / 2..=length)),
            Some(Blow::Crash) if self.rng.random_bool(0.5) => Some(self.rng.random_range(20..200)),
            _ if delayed => Some(self.rng.random_range(5..150)),
            _ => None,
        };
        let after = late.unwrap_or_else(|| self.rng.random_range(1..4));
        self.queue_in(after, Event::Request(index, id, op.clone()));
        if op.is_awaited() {
            self.jobmanagers[index].open.insert(id);
            self.queue_in(PATIENCE_MS, Event::JobManager(index, JobManagerEvent::Timeout(id, op)));
        }
    }

    /// A request reaches the store.
    pub fn at_store(&mut self, index: usize, id: u64, op: Op) {
        let jm = &self.jobmanagers[index];
        if jm.alive && op.is_awaited() && !jm.open.contains(&id) {
            self.counters.saw(Seen::LateRequest);
        }
        let answer = match &op {
            Op::Log(_, op) => {
                let answer = self.log_at_store(index, op);
                Answer::Log(answer, self.store.generation())
            }
            Op::HighestCheckpoint => Answer::Highest(self.store.highest_checkpoint()),
            Op::ReadCheckpoint(checkpoint) => Answer::Checkpoint(self.read_at_store(index, *checkpoint)),
            Op::CreateMetadata(checkpoint, metadata) => {
                let there = self.store.create_metadata(*checkpoint, metadata);
                self.jobmanagers[index].wrote_metadata |= there == metadata.instance;
                Answer::Metadata(there)
            }
            Op::DeleteFiles(names) => {
                let result = self.store.delete_files(names);
                self.expect(result);
                Answer::Deleted
            }
            Op::DeleteCheckpoint(checkpoint) => {
                let result = self.store.delete_checkpoint(*checkpoint);
                self.expect(result);
                Answer::Deleted
            }
        };
        if self.chance(self.plan.lose_answer) {
            self.counters.saw(Seen::LostAnswer);
            self.note(|| format!("the answer to {op:?} of jobmanager {index} is lost"));
            return;
        }
        let after = self.rng.random_range(1..4);
        self.queue_in(after, Event::JobManager(index, JobManagerEvent::Answer(id, op, answer)));
    }

    fn log_at_store(&mut self, index: usize, op: &StoreOp) -> LogAnswer {
        match op {
            StoreOp::List { from } => LogAnswer::Listed(self.store.list_log(*from)),
            StoreOp::Read(position) => LogAnswer::Read(self.store.read_log(*position)),
            StoreOp::Create { position, bytes } => {
                if self.chance(self.plan.false_conflict) {
                    self.counters.saw(Seen::FalseConflict);
                    return LogAnswer::AlreadyExists;
                }
                self.create_at_store(index, *position, bytes)
            }
            StoreOp::Delete(position) => {
                let result = self.store.delete_log(*position);
                self.expect(result);
                LogAnswer::Deleted
            }
        }
    }

    fn create_at_store(&mut self, index: usize, position: u64, bytes: &[u8]) -> LogAnswer {
        let own = self.jobmanagers[index].generation;
        let stale = own > Generation(0) && self.store.generation() > own;
        if stale {
            self.counters.saw(Seen::StaleCreate);
        }
        match self.store.create_log(position, bytes) {
            Ok(true) => {
                self.note(|| format!("jobmanager {index} has created log entry {position}, stale: {stale}"));
                if stale {
                    self.counters.saw(Seen::StaleCreateInGap);
                }
                let jm = &mut self.jobmanagers[index];
                if let Some(LogTask::Append(record)) = &jm.log_task {
                    let checkpoint = record.id;
                    jm.created_entry = true;
                    jm.wrote_metadata = false;
                    let result = self.store.check_pointers(checkpoint);
                    self.expect(result);
                }
                LogAnswer::Created
            }
            Ok(false) => LogAnswer::AlreadyExists,
            Err(error) => {
                self.violated(error);
                LogAnswer::AlreadyExists
            }
        }
    }

    fn read_at_store(&mut self, index: usize, checkpoint: CheckpointId) -> Result<Restored, String> {
        let jm = &self.jobmanagers[index];
        // A request that arrives when its answer is no longer wanted proves nothing.
        let restores = jm.alive && jm.phase == Phase::Restoring(checkpoint);
        let newest = restores && jm.generation == self.store.generation();
        let read = self.store.read_checkpoint(checkpoint);
        match &read {
            Ok(restored) => {
                match check_state(&self.plan, &restored.snapshots) {
                    Ok(true) => self.counters.saw(Seen::CountedAgain),
                    Ok(false) => {}
                    Err(error) => self.violated(format!("checkpoint {checkpoint} is restored, and {error}")),
                }
                if newest {
                    let result = self.oracle.restores(&self.plan, restored.instance, &restored.snapshots);
                    self.expect(result);
                }
            }
            Err(missing) if newest => self.violated(format!("the newest generation restores, and {missing}")),
            Err(_) => {}
        }
        read
    }

    /// The store's answer reaches a jobmanager.
    pub fn answered(&mut self, index: usize, id: u64, op: Op, answer: Answer) {
        if !self.jobmanagers[index].open.remove(&id) {
            return;
        }
        match (op, answer) {
            (Op::Log(request, _), Answer::Log(answer, generation)) => {
                if let LogAnswer::Listed(_) = answer {
                    self.jobmanagers[index].listed = generation;
                }
                self.step_log(index, LogEvent::Answer { request, answer });
            }
            (_, Answer::Highest(highest)) => self.recovered(index, highest),
            (Op::ReadCheckpoint(id), Answer::Checkpoint(restored)) => self.checkpoint_read(index, id, restored),
            (Op::CreateMetadata(checkpoint, metadata), Answer::Metadata(there)) => {
                let outcome = if there == metadata.instance {
                    MetadataOutcome::Written(MetadataReceipt { size: 1, crc32: 1, commits: true })
                } else {
                    self.counters.saw(Seen::MetadataConflict);
                    MetadataOutcome::Conflict { highest: self.store.highest_checkpoint() }
                };
                self.coordinate(index, CoordinatorEvent::MetadataWritten { checkpoint, outcome });
            }
            _ => {}
        }
    }

    /// The store has not answered a jobmanager for long.
    pub fn timed_out(&mut self, index: usize, id: u64, op: Op) {
        if !self.jobmanagers[index].open.remove(&id) {
            return;
        }
        let gives_up = self.chance(self.plan.give_up);
        match op {
            Op::Log(..) if gives_up => self.step_log(index, LogEvent::GiveUp(no_answer())),
            Op::Log(request, _) => self.step_log(index, LogEvent::Answer { request, answer: LogAnswer::Failed }),
            Op::CreateMetadata(checkpoint, _) if gives_up => {
                let outcome = MetadataOutcome::Failed(no_answer());
                self.coordinate(index, CoordinatorEvent::MetadataWritten { checkpoint, outcome });
            }
            op => self.request(index, op),
        }
    }
}
