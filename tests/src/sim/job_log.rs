//! What a jobmanager's shell does with the log.

use millrace_runtime::coordinator::{AppendOutcome, CoordinatorEvent, LeaderOutcome};
use millrace_state::log::{
    AttemptRecord, TerminalRecord, TerminalResult, WriterId,
    protocol::{Append, Command, Effect as LogEffect, Event as LogEvent, Outcome},
};

use super::{counters::Seen, jobmanager::LogTask, requests::Op, world::World};

impl World {
    /// Wants something of the log; one thing is done at a time.
    pub fn want_of_log(&mut self, index: usize, task: LogTask) {
        self.jobmanagers[index].log_queue.push_back(task);
        self.go_on_with_log(index);
    }

    fn go_on_with_log(&mut self, index: usize) {
        let unique = self.unique();
        let now_ms = self.now;
        let jm = &mut self.jobmanagers[index];
        if jm.log_task.is_some() {
            return;
        }
        let Some(task) = jm.log_queue.pop_front() else { return };
        let writer = WriterId(u128::from(unique));
        let command = match &task {
            LogTask::Claim => {
                let owner = format!("jobmanager {index}");
                Command::ClaimGeneration { writer, owner, deployment: 0, now_ms }
            }
            LogTask::Append(record) => {
                let retain = self.plan.config.num_retained as usize;
                Command::Append { writer, now_ms, body: Append::Checkpoint { record: record.clone(), retain } }
            }
            LogTask::Check(_) => Command::AnnounceCheck,
            LogTask::Trim => Command::Trim,
            LogTask::Mark(attempt) => {
                Command::Append { writer, now_ms, body: Append::Attempt(AttemptRecord { attempt: *attempt }) }
            }
            LogTask::Terminal => {
                let checkpoints_retained = self.plan.config.num_retained > 1;
                let record = TerminalRecord { result: TerminalResult::Finished, checkpoints_retained, deployment: 0 };
                Command::Append { writer, now_ms, body: Append::Terminal(record) }
            }
        };
        jm.log_task = Some(task);
        self.step_log(index, LogEvent::Command(command));
    }

    /// Advances a jobmanager's side of the log.
    pub fn step_log(&mut self, index: usize, event: LogEvent) {
        for effect in self.jobmanagers[index].protocol.step(event) {
            match effect {
                LogEffect::Store { request, op } => self.request(index, Op::Log(request, op)),
                LogEffect::Done(outcome) => self.log_done(index, outcome),
            }
        }
    }

    fn log_done(&mut self, index: usize, outcome: Outcome) {
        let Some(task) = self.jobmanagers[index].log_task.take() else { return };
        self.note(|| format!("jobmanager {index}: {task:?} ends with {outcome:?}"));
        if let Outcome::Refused(error) = &outcome {
            return self.violated(format!("the log refuses jobmanager {index}: {error}"));
        }
        match task {
            LogTask::Claim => self.claim_done(index, outcome),
            LogTask::Append(record) => {
                let outcome = match outcome {
                    Outcome::Appended { .. } => AppendOutcome::Appended,
                    Outcome::GaveUp(error) => AppendOutcome::Unknown(error),
                    _ => AppendOutcome::Fenced,
                };
                if matches!(outcome, AppendOutcome::Appended) && self.chance(self.plan.trim) {
                    self.jobmanagers[index].log_queue.push_back(LogTask::Trim);
                }
                self.coordinate(index, CoordinatorEvent::Appended { checkpoint: record.id, outcome });
            }
            LogTask::Check(checkpoint) => {
                let outcome = match outcome {
                    Outcome::StillLeader => LeaderOutcome::Yes,
                    Outcome::GaveUp(error) => LeaderOutcome::Unknown(error),
                    _ => LeaderOutcome::No,
                };
                self.coordinate(index, CoordinatorEvent::StillLeader { checkpoint, outcome });
            }
            LogTask::Trim => {
                if let Outcome::Trimmed { deleted: 1.. } = outcome {
                    self.counters.saw(Seen::Trimmed);
                }
            }
            LogTask::Mark(attempt) => match outcome {
                Outcome::Appended { .. } => self.marked(index),
                Outcome::GaveUp(_) => self.jobmanagers[index].log_queue.push_front(LogTask::Mark(attempt)),
                _ => self.retire(index),
            },
            LogTask::Terminal => self.terminal_done(index, outcome),
        }
        if self.jobmanagers[index].alive {
            self.go_on_with_log(index);
        }
    }

    fn claim_done(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Claimed { generation } => {
                self.jobmanagers[index].generation = generation;
                if self.jobmanagers[index].short_lived && !self.is_calm() {
                    return self.crash(index);
                }
                if self.chance(self.plan.trim) {
                    self.jobmanagers[index].log_queue.push_back(LogTask::Trim);
                }
                self.request(index, Op::HighestCheckpoint);
            }
            Outcome::GaveUp(_) => self.jobmanagers[index].log_queue.push_front(LogTask::Claim),
            _ => self.retire(index),
        }
    }

    fn terminal_done(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Appended { released, .. } => {
                self.note(|| format!("jobmanager {index} has ended the job"));
                let kept = self.jobmanagers[index].coordinator.as_ref().map_or(&[][..], |c| c.retained()).to_vec();
                if self.plan.config.num_retained == 1 {
                    for checkpoint in released.iter().map(|record| record.id).chain(kept) {
                        self.delete_checkpoint(index, checkpoint);
                    }
                }
                self.retire(index);
            }
            Outcome::GaveUp(_) => self.jobmanagers[index].log_queue.push_front(LogTask::Terminal),
            _ => self.retire(index),
        }
    }
}
