//! Transactional ids: `<prefix>-<uid>-<subtask>-<slot>-<attempt>`, so that whoever knows prefix and uid recognizes all of a
//! sink's, and no two attempts ever use the same. A zombie can only take over what is its own.

use std::fmt;

use millrace_core::ids::JobAttempt;

/// Names the transactional ids of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TransactionalIds {
    stem: String,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub subtask: u32,
    /// Each transaction that is not settled holds one of its subtask.
    pub slot: u32,
    /// `None` of ids that were made before attempts were in them.
    pub attempt: Option<JobAttempt>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.subtask, self.slot)?;
        match self.attempt {
            None => Ok(()),
            Some(attempt) => write!(f, "-{attempt}"),
        }
    }
}

impl TransactionalIds {
    /// Those of the sink `uid` under a prefix.
    pub fn new(prefix: &str, uid: &str) -> Self {
        Self { stem: format!("{prefix}-{uid}-") }
    }

    /// The id of a place.
    pub fn id(&self, place: Place) -> String {
        format!("{}{place}", self.stem)
    }

    /// The place of an id; `None` if it is not one of these.
    pub fn place(&self, id: &str) -> Option<Place> {
        let mut parts = id.strip_prefix(&self.stem)?.splitn(3, '-');
        let (subtask, slot) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let attempt = match parts.next() {
            None => None,
            Some(attempt) => Some(attempt.parse().ok()?),
        };
        let place = Place { subtask, slot, attempt };
        // Not one that is only read like this: "+1", "01".
        (self.id(place) == id).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::{Attempt, Generation, JobId};

    use super::*;

    #[test]
    fn an_id_is_found_again_and_a_strangers_is_not() {
        let ids = TransactionalIds::new("shop", "orders-2");
        let later = JobAttempt { job: JobId(u128::MAX), generation: Generation(12), attempt: Attempt(3) };
        for attempt in [None, Some(JobAttempt::first(JobId(7))), Some(later)] {
            for (subtask, slot) in [(0, 0), (7, 12), (u32::MAX, 3)] {
                let place = Place { subtask, slot, attempt };
                assert_eq!(ids.place(&ids.id(place)), Some(place));
            }
        }
        let place = Place { subtask: 1, slot: 0, attempt: Some(JobAttempt::first(JobId(7))) };
        let id = "shop-orders-2-1-0-00000000000000000000000000000007.1.1";
        assert_eq!(ids.id(place), id);
        let strangers = ["", "shop", "shop-orders-2-1", "shop-orders-2-+1-0", "shop-orders-2-01-0", "x-1-0"];
        let other = ["shop-orders-2-1-0-0", "shop-orders-2-1-0-7.1.1", &format!("{id}.1"), &format!("{id}-1")];
        for stranger in strangers.into_iter().chain(other) {
            assert_eq!(ids.place(stranger), None, "{stranger:?}");
        }
        // The sink with uid "orders" beside it has none of these.
        for id in ["shop-orders-2-1-0", id] {
            assert_eq!(TransactionalIds::new("shop", "orders").place(id), None);
        }
    }
}
