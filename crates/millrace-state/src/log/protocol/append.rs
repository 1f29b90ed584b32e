//! Appending, and making sure that what was appended counts.

use millrace_core::Error;

use super::{Append, Effect, Goal, LogProtocol, Outcome, Stage, Standing, StoreOp, done};
use crate::log::entry::{LogBody, LogEntry, WriterId, damaged, relative_path};

impl LogProtocol {
    pub(super) fn start_append(&mut self, writer: WriterId, now_ms: u64, body: Append) -> Vec<Effect> {
        if let Some(record) = self.view.terminal() {
            return done(Outcome::Ended(record.clone()));
        }
        // The same again: go on with the attempt whose outcome is unknown, under its own writer id.
        let resumed = self.in_doubt.iter().find(|entry| says_the_same(entry, &body)).cloned();
        let (entry, writer) = match resumed {
            Some(entry) => (Some(entry.clone()), entry.writer),
            None => (self.entry_of(writer, now_ms, &body), writer),
        };
        match entry {
            Some(entry) => self.create(Goal::Append { writer, now_ms, body }, entry, 0),
            None => done(Outcome::Refused(Error::internal("the log's protocol: no generation has been claimed"))),
        }
    }

    /// The entry that appends `body` behind the newest.
    fn entry_of(&self, writer: WriterId, now_ms: u64, body: &Append) -> Option<LogEntry> {
        let Standing::Leader { generation, at } = self.standing else {
            return None;
        };
        let (floor, body) = match body {
            Append::Checkpoint { record, retain } => {
                (self.view.floor_retaining(*retain), LogBody::Checkpoint(record.clone()))
            }
            Append::Attempt(record) => (self.view.floor(), LogBody::Attempt(record.clone())),
            Append::Terminal(record) if record.checkpoints_retained => {
                (self.view.floor(), LogBody::Terminal(record.clone()))
            }
            Append::Terminal(record) => (self.view.last() + 1, LogBody::Terminal(record.clone())),
        };
        Some(self.next_entry(writer, now_ms, (generation, at), floor, body))
    }

    /// Something stands where `entry` was to be created.
    pub(super) fn lost_create(&mut self, goal: Goal, entry: LogEntry, found: &[u8]) -> Vec<Effect> {
        let found = match LogEntry::decode(self.job, entry.position, found) {
            Ok(found) => found,
            Err(error) => return done(Outcome::Refused(error)),
        };
        if found.writer == entry.writer {
            return self.guard(goal, Some(entry), 0);
        }
        if matches!(goal, Goal::Claim { .. }) {
            return self.survey(goal, 0);
        }
        if !self.is_in_doubt(&found) && self.checks.fence {
            return self.overtaken_by(&found, entry.position);
        }
        // An earlier attempt of our own did reach the log: it is history, and this entry follows it.
        self.take_in(found);
        if let Some(record) = self.view.terminal() {
            return done(Outcome::Ended(record.clone()));
        }
        self.create_next(goal)
    }

    fn create_next(&mut self, goal: Goal) -> Vec<Effect> {
        let entry = match &goal {
            Goal::Append { writer, now_ms, body } => self.entry_of(*writer, *now_ms, body),
            _ => None,
        };
        match entry {
            Some(entry) => self.create(goal, entry, 0),
            None => done(Outcome::Refused(Error::internal("the log's protocol: nothing is left to append"))),
        }
    }

    /// Lists the log to see that the newest entry is ours: `entry`, just created, or the newest that we know.
    pub(super) fn guard(&mut self, goal: Goal, entry: Option<LogEntry>, contradictions: u32) -> Vec<Effect> {
        let is_trim = matches!(goal, Goal::Trim);
        if !self.checks.relist && !is_trim {
            return self.passed(goal, entry, &[]);
        }
        let from = match (&self.standing, is_trim) {
            (Standing::Leader { at, .. }, false) => (*at).min(self.view.floor()),
            _ => 0,
        };
        self.ask(goal, Stage::Guard(entry), StoreOp::List { from }, contradictions)
    }

    pub(super) fn guarded(
        &mut self,
        goal: Goal,
        entry: Option<LogEntry>,
        listed: &[u64],
        contradictions: u32,
    ) -> Vec<Effect> {
        let own = entry.as_ref().map_or(self.view.last(), |entry| entry.position);
        let newest = listed.iter().copied().max().unwrap_or(0);
        if newest > own && self.checks.fence && self.checks.relist {
            return self.ask(goal, Stage::Above(entry, newest), StoreOp::Read(newest), contradictions);
        }
        // Nobody above us, so that nobody else has deleted what we know: all of it must be there.
        let generation_at = match self.standing {
            Standing::Leader { at, .. } => Some(at),
            _ => None,
        };
        // This incarnation's own first entry is deleted by nobody but who deletes the whole job: what is written after
        // that must count for nothing, also by one that stood still meanwhile.
        if newest <= own && generation_at.is_some_and(|at| !listed.contains(&at)) {
            self.standing = Standing::Removed;
            return done(Outcome::Removed);
        }
        let known = self.view.entries().map(|entry| entry.position);
        let missing = known.chain([own]).find(|position| !listed.contains(position));
        match missing {
            Some(position) if newest <= own => {
                let gone = Error::external(format!(
                    "log entry {}/{} is gone from the checkpoint directory: it was deleted or moved, or another \
                     directory is mounted in its place",
                    self.job,
                    relative_path(position)
                ));
                let op = StoreOp::List { from: 0 };
                let request = self.last_request;
                self.give_up(super::Operation { goal, stage: Stage::Guard(entry), request, op, contradictions }, gone)
            }
            _ => self.passed(goal, entry, listed),
        }
    }

    /// An entry stands above ours.
    pub(super) fn found_above(
        &mut self,
        goal: Goal,
        entry: Option<LogEntry>,
        position: u64,
        found: &[u8],
    ) -> Vec<Effect> {
        let found = match LogEntry::decode(self.job, position, found) {
            Ok(found) => found,
            Err(error) => return done(Outcome::Refused(error)),
        };
        if self.is_in_doubt(&found) && position == self.view.last() + 1 {
            self.take_in(found);
            return self.guard(goal, entry, 0);
        }
        if let (Goal::Claim { .. }, Some(entry)) = (&goal, &entry) {
            // Our generation's entry was created where one had been trimmed: nobody will ever read it.
            if found.floor > entry.position && found.generation < entry.generation {
                return self.survey(goal, 0);
            }
            return self.fenced(found.generation);
        }
        self.overtaken_by(&found, position)
    }

    /// Somebody else's entry stands behind ours: either we are fenced, or the log is broken.
    fn overtaken_by(&mut self, found: &LogEntry, position: u64) -> Vec<Effect> {
        match self.standing {
            Standing::Leader { generation, .. } if found.generation < generation => {
                done(Outcome::Refused(damaged(format!(
                    "log entry {}/{} was written by generation {}, which generation {generation} had fenced",
                    self.job,
                    relative_path(position),
                    found.generation
                ))))
            }
            _ => self.fenced(found.generation),
        }
    }

    /// The newest entry is ours.
    fn passed(&mut self, goal: Goal, entry: Option<LogEntry>, listed: &[u64]) -> Vec<Effect> {
        match (goal, entry) {
            (Goal::Claim { .. }, Some(entry)) => {
                let (generation, at) = (entry.generation, entry.position);
                self.standing = Standing::Leader { generation, at };
                self.take_in(entry);
                done(Outcome::Claimed { generation })
            }
            (Goal::Append { .. }, Some(entry)) => {
                let position = entry.position;
                self.take_in(entry);
                done(Outcome::Appended { position, released: std::mem::take(&mut self.released) })
            }
            (Goal::Trim, _) => self.delete_next(self.void_among(listed), 0),
            _ => done(Outcome::StillLeader),
        }
    }

    /// What may be deleted: everything below the floor but the newest generation's and the newest checkpoint's entry.
    fn void_among(&self, listed: &[u64]) -> Vec<u64> {
        let generation_at = self.view.newest().map(|entry| entry.generation_at);
        let kept = |position: u64| Some(position) == generation_at || Some(position) == self.newest_checkpoint_at;
        let mut void: Vec<u64> = listed.iter().copied().filter(|p| *p < self.view.floor() && !kept(*p)).collect();
        // From the end: the oldest goes first.
        void.sort_unstable_by(|a, b| b.cmp(a));
        void
    }

    pub(super) fn delete_next(&mut self, mut todo: Vec<u64>, deleted: usize) -> Vec<Effect> {
        match todo.pop() {
            Some(position) => {
                let stage = Stage::Delete { todo, deleted };
                self.ask(Goal::Trim, stage, StoreOp::Delete(position), 0)
            }
            None => done(Outcome::Trimmed { deleted }),
        }
    }
}

/// Whether an entry says what is to be appended.
fn says_the_same(entry: &LogEntry, body: &Append) -> bool {
    match (&entry.body, body) {
        (LogBody::Checkpoint(written), Append::Checkpoint { record, .. }) => written == record,
        (LogBody::Attempt(written), Append::Attempt(record)) => written == record,
        (LogBody::Terminal(written), Append::Terminal(record)) => written == record,
        _ => false,
    }
}
