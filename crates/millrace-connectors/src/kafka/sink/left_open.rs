//! Transactions that nobody will ever commit: those of attempts that are over. Readers wait for each, so they are aborted,
//! when an attempt starts and while it runs.

use std::{collections::BTreeSet, iter, time::Duration};

use millrace_core::{
    Result,
    ids::{Attempt, Generation, JobAttempt},
};

use super::{
    coordinator::{Coordinators, Listed, failed},
    ids::{Place, TransactionalIds},
};
use crate::sweep::Sweeper;

/// A zombie may begin a transaction whenever it likes, and die with it: readers wait no longer than this.
const SWEEP_EACH: Duration = Duration::from_secs(10);

/// What an attempt takes over, so that it is aborted and whoever has begun it is fenced.
#[derive(Clone)]
pub(super) struct LeftOpen {
    pub servers: String,
    /// Those of each prefix that the sink has had.
    pub ids: Vec<TransactionalIds>,
    pub attempt: JobAttempt,
    /// What the restored checkpoint holds: these are committed, by whichever subtask gets them.
    pub held: BTreeSet<String>,
}

/// When an attempt of the same job began.
pub(super) type Started = (Generation, Attempt);

/// What a subtask is responsible for: its own number, and those that there are no subtasks of any more. Only of these it
/// knows that earlier attempts are over: where regions fail by themselves, other subtasks run on in theirs.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub subtask: u32,
    pub parallelism: u32,
    /// The earliest attempt that took part in the restored checkpoint: those before it are fenced.
    pub since: Option<Started>,
}

impl Share {
    fn has(self, place: Place) -> bool {
        place.subtask % self.parallelism.max(1) == self.subtask
    }
}

impl LeftOpen {
    /// Takes over what this subtask is responsible for: what is open, and each id with which an attempt since the
    /// checkpoint could go on.
    pub fn fence(&self, share: Share, coordinators: &mut Coordinators) -> Result<()> {
        let listed = coordinators.list(&[]);
        let listed = listed.map_err(|failure| failed("listing transactions", &self.servers, &failure))?;
        self.take_over(listed, |place, is_open| self.is_due_at_start(share, place, is_open), coordinators)
    }

    /// Looks again and again for what zombies have begun since.
    pub fn watch(self, share: Share) -> Sweeper {
        let mut coordinators = Coordinators::new(&self.servers);
        Sweeper::start("kafka-left-open", iter::repeat(SWEEP_EACH), move || self.sweep(share, &mut coordinators))
    }

    fn sweep(&self, share: Share, coordinators: &mut Coordinators) -> Result<()> {
        let listed = coordinators.list(&["Ongoing"]);
        let listed = listed.map_err(|failure| failed("listing transactions", &self.servers, &failure))?;
        self.take_over(listed, |place, _| self.is_due_later(share, place), coordinators)
    }

    fn take_over(
        &self,
        listed: Vec<Listed>,
        is_due: impl Fn(Place, bool) -> bool,
        coordinators: &mut Coordinators,
    ) -> Result<()> {
        for Listed { id, is_open } in listed {
            let place = self.ids.iter().find_map(|ids| ids.place(&id));
            if !place.is_some_and(|place| is_due(place, is_open)) || self.held.contains(&id) {
                continue;
            }
            tracing::debug!(id, is_open, "taking over a transactional id of an attempt that is over");
            let fenced = coordinators.fence(&id);
            fenced.map_err(|failure| failed(format_args!("taking over transaction {id}"), &self.servers, &failure))?;
        }
        Ok(())
    }

    fn is_due_at_start(&self, share: Share, place: Place, is_open: bool) -> bool {
        // Nothing is begun yet, so that what has this attempt's name was left by a job of the same id.
        let is_over = self.is_over(place) || place.attempt == Some(self.attempt);
        share.has(place) && is_over && (is_open || self.started(place).is_some_and(|started| started >= share.since))
    }

    /// Of another job this may be the zombie itself.
    fn is_due_later(&self, share: Share, place: Place) -> bool {
        share.has(place) && place.attempt.is_none_or(|attempt| self.attempt.follows(attempt))
    }

    /// Whether it belongs to an attempt that is over. A zombie must leave alone what its successors have begun.
    fn is_over(&self, place: Place) -> bool {
        place.attempt.is_none_or(|attempt| self.attempt.supersedes(attempt))
    }

    /// When the attempt of this job began; ids without attempts are older than all. `None` of another job.
    fn started(&self, place: Place) -> Option<Option<Started>> {
        match place.attempt {
            None => Some(None),
            Some(of) => (of.job == self.attempt.job).then_some(Some((of.generation, of.attempt))),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::JobId;

    use super::*;

    fn attempt(job: u128, generation: u64, attempt: u32) -> JobAttempt {
        JobAttempt { job: JobId(job), generation: Generation(generation), attempt: Attempt(attempt) }
    }

    fn left_open() -> LeftOpen {
        let ids = vec![TransactionalIds::new("p", "u")];
        LeftOpen { servers: String::new(), ids, attempt: attempt(1, 3, 2), held: BTreeSet::new() }
    }

    fn place(subtask: u32, attempt: Option<JobAttempt>) -> Place {
        Place { subtask, slot: 0, attempt }
    }

    #[test]
    fn what_a_successor_has_begun_is_left_alone() {
        let share = Share { subtask: 0, parallelism: 1, since: None };
        for successor in [attempt(1, 3, 3), attempt(1, 4, 1)] {
            let place = place(0, Some(successor));
            assert!(!left_open().is_due_at_start(share, place, true) && !left_open().is_due_later(share, place));
        }
        for before in [None, Some(attempt(1, 3, 1)), Some(attempt(1, 2, 9)), Some(attempt(2, 9, 9))] {
            let place = place(0, before);
            assert!(left_open().is_due_at_start(share, place, true), "{before:?}");
            let is_of_this_job = before.is_none_or(|attempt| attempt.job == JobId(1));
            assert_eq!(left_open().is_due_later(share, place), is_of_this_job, "{before:?}");
        }
        let own = place(0, Some(attempt(1, 3, 2)));
        assert!(!left_open().is_due_later(share, own) && left_open().is_due_at_start(share, own, true));
    }

    #[test]
    fn each_id_is_the_part_of_one_subtask_also_of_those_that_are_no_more() {
        for subtask in 0..9 {
            let place = place(subtask, Some(attempt(1, 3, 1)));
            let share = |subtask| Share { subtask, parallelism: 2, since: None };
            let responsible: Vec<_> =
                (0..2).filter(|subtask| left_open().is_due_at_start(share(*subtask), place, true)).collect();
            assert_eq!(responsible, [subtask % 2]);
        }
    }

    /// Otherwise each start would take over all ids that there ever were, and Kafka would never forget them.
    #[test]
    fn what_is_closed_is_fenced_by_the_first_checkpoint_after_it() {
        let due = |since, of| {
            let share = Share { subtask: 0, parallelism: 1, since };
            left_open().is_due_at_start(share, place(0, of), false)
        };
        let taken = Some((Generation(2), Attempt(5)));
        for (of, expected) in [
            (Some(attempt(1, 2, 4)), false),
            (Some(attempt(1, 2, 5)), true),
            (Some(attempt(1, 3, 1)), true),
            (Some(attempt(2, 2, 9)), false),
            (None, false),
        ] {
            assert_eq!(due(taken, of), expected, "{of:?}");
        }
        assert!(due(None, None) && due(None, Some(attempt(1, 1, 1))));
    }
}
