//! Claiming a generation: read all that is valid, check that it is one line of history, append the next generation.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{Error, Result};

use super::{Effect, Goal, LogProtocol, Outcome, Stage, Standing, StoreOp, done};
use crate::log::{
    entry::{GenerationRecord, LogBody, LogEntry, damaged, relative_path},
    view::LogView,
};

/// What a claim has seen of the log so far. Entries never change, so that one that was read need not be read again.
#[derive(Debug)]
pub(super) struct Survey {
    /// The deployment that is claimed for.
    deployment: u64,
    listed: BTreeSet<u64>,
    read: BTreeMap<u64, LogEntry>,
    /// How many times in a row what was found made no sense while the newest entry stayed the same.
    refuted: u32,
}

/// How many times that is believed to be a coincidence.
const MAX_REFUTED: u32 = 3;

enum Next {
    Read(u64),
    Missing(u64),
    Complete,
}

impl Survey {
    pub(super) fn new(deployment: u64) -> Self {
        Self { deployment, listed: BTreeSet::new(), read: BTreeMap::new(), refuted: 0 }
    }

    /// What must be read next: first the newest entry, since its floor says what is valid at all.
    fn next(&self) -> Next {
        let Some(&newest_at) = self.listed.last() else {
            return Next::Complete;
        };
        let Some(newest) = self.read.get(&newest_at) else {
            return Next::Read(newest_at);
        };
        let valid = newest.floor..=newest_at;
        if self.stands(newest) {
            // The end is all that counts. What is missing below it was deleted by somebody who was about to delete it
            // too, and was interrupted.
            let unread = self.listed.range(valid).find(|position| !self.read.contains_key(position));
            return unread.map_or(Next::Complete, |position| Next::Read(*position));
        }
        // The loop ends at the first number that is not listed: a floor far below costs nothing.
        for position in std::iter::once(newest.generation_at).chain(valid) {
            if !self.listed.contains(&position) {
                return Next::Missing(position);
            }
            if position >= newest.floor && !self.read.contains_key(&position) {
                return Next::Read(position);
            }
        }
        Next::Complete
    }

    /// Whether an entry is the end of the job, for this deployment too.
    fn stands(&self, newest: &LogEntry) -> bool {
        newest.terminal().is_some_and(|end| !end.is_taken_up_by(self.deployment))
    }

    /// The valid entries as a view, if they are one line of history.
    fn view(&self) -> Result<LogView> {
        let mut view = LogView::default();
        let Some(newest) = self.listed.last().and_then(|position| self.read.get(position)) else {
            return Ok(view);
        };
        for entry in self.read.range(newest.floor..=newest.position).map(|(_, entry)| entry) {
            check_follows(view.newest(), entry)?;
            view.push(entry.clone());
        }
        Ok(view)
    }
}

/// Whether an entry may stand behind another.
pub(in crate::log) fn check_follows(before: Option<&LogEntry>, entry: &LogEntry) -> Result<()> {
    let refuse = |why: String| Err(damaged(format!("log {}/{}: {why}", entry.job, relative_path(entry.position))));
    let is_generation = matches!(entry.body, LogBody::Generation(_));
    if is_generation != (entry.generation_at == entry.position) {
        return refuse(format!("an entry of another kind stands where generation {} began", entry.generation));
    }
    let Some(before) = before else {
        return Ok(());
    };
    // Which deployment took a failed job up is not in the entry: nobody else writes behind its end.
    let is_taken_up = is_generation && before.terminal().is_some_and(|end| end.is_taken_up_by(u64::MAX));
    if before.terminal().is_some() && !is_taken_up {
        return refuse("an entry stands behind the job's end".to_string());
    }
    if entry.floor < before.floor {
        return refuse(format!("its floor {} is below its predecessor's, {}", entry.floor, before.floor));
    }
    let fits = match is_generation {
        true => entry.generation > before.generation,
        false => (entry.generation, entry.generation_at) == (before.generation, before.generation_at),
    };
    if !fits {
        return refuse(format!("generation {} stands behind {}", entry.generation, before.generation));
    }
    Ok(())
}

impl LogProtocol {
    /// Lists the log, to read all of it.
    pub(super) fn survey(&mut self, goal: Goal, contradictions: u32) -> Vec<Effect> {
        self.ask(goal, Stage::Survey, StoreOp::List { from: 0 }, contradictions)
    }

    pub(super) fn surveyed(&mut self, mut goal: Goal, listed: Vec<u64>, contradictions: u32) -> Vec<Effect> {
        if let Goal::Claim { survey, .. } = &mut goal {
            let listed: BTreeSet<u64> = listed.into_iter().collect();
            if listed.last() != survey.listed.last() {
                survey.refuted = 0;
            }
            survey.listed = listed;
        }
        self.read_on(goal, contradictions)
    }

    pub(super) fn has_read(
        &mut self,
        mut goal: Goal,
        op: StoreOp,
        bytes: Option<Vec<u8>>,
        contradictions: u32,
    ) -> Vec<Effect> {
        let (Goal::Claim { survey, .. }, StoreOp::Read(position)) = (&mut goal, op) else {
            return done(Outcome::Refused(Error::internal("the log's protocol reads for a claim only")));
        };
        // What was listed and is gone has been trimmed meanwhile: the newest entry is another one now.
        let Some(bytes) = bytes else {
            return self.survey(goal, contradictions + 1);
        };
        match LogEntry::decode(self.job, position, &bytes) {
            Ok(entry) => {
                survey.read.insert(position, entry);
                self.read_on(goal, contradictions)
            }
            Err(error) => self.refuted(goal, error, contradictions),
        }
    }

    fn read_on(&mut self, goal: Goal, contradictions: u32) -> Vec<Effect> {
        let Goal::Claim { survey, .. } = &goal else {
            return done(Outcome::Refused(Error::internal("the log's protocol surveys for a claim only")));
        };
        match survey.next() {
            Next::Read(position) => self.ask(goal, Stage::Reading, StoreOp::Read(position), contradictions),
            Next::Missing(position) => {
                let error = damaged(format!(
                    "log entry {}/{} is missing, though later entries are there: bring it back from a backup, or \
                     start a new job with --from-checkpoint from a checkpoint that you trust",
                    self.job,
                    relative_path(position)
                ));
                self.refuted(goal, error, contradictions)
            }
            Next::Complete => match survey.view() {
                Ok(view) => self.claim_behind(goal, view),
                Err(error) => self.refuted(goal, error, contradictions),
            },
        }
    }

    /// What was read makes no sense. While another incarnation is writing, that need not be damage: a listing is not
    /// one moment, and an entry can become void, and be deleted and replaced by a stale one, between the listing and
    /// the reading. Only if it stays so while the newest entry stays the same, it is.
    fn refuted(&mut self, mut goal: Goal, error: Error, contradictions: u32) -> Vec<Effect> {
        match &mut goal {
            Goal::Claim { survey, .. } if survey.refuted < MAX_REFUTED => {
                survey.refuted += 1;
                survey.read.clear();
                self.survey(goal, contradictions)
            }
            _ => done(Outcome::Refused(error)),
        }
    }

    /// The log is read: append the next generation, unless the job has ended, for this deployment too.
    fn claim_behind(&mut self, goal: Goal, view: LogView) -> Vec<Effect> {
        self.newest_checkpoint_at = view.entries().rev().find(|e| e.checkpoint().is_some()).map(|e| e.position);
        self.view = view;
        let Goal::Claim { writer, owner, now_ms, survey } = &goal else {
            return done(Outcome::Refused(Error::internal("the log's protocol claims for a claim only")));
        };
        if let Some(record) = self.view.terminal().filter(|end| !end.is_taken_up_by(survey.deployment)).cloned() {
            self.standing = Standing::Ended(record.clone());
            return done(Outcome::Ended(record));
        }
        let by = (self.view.generation().next(), self.view.last() + 1);
        let body = LogBody::Generation(GenerationRecord { owner: owner.clone() });
        let entry = self.next_entry(*writer, *now_ms, by, self.view.floor_of_generation(), body);
        self.create(goal, entry, 0)
    }
}
