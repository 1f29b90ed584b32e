//! When a task publishes its figures: about once a second while it has something to do.

use std::time::{Duration, Instant};

use super::run::Parts;
use crate::metrics::{OperatorFigures, TaskFigures};

const PERIOD: Duration = Duration::from_secs(1);

/// Tells when figures are due.
pub(super) struct FiguresTimer {
    published: Option<Instant>,
    /// How many records the task had taken in by then.
    records: u64,
}

impl FiguresTimer {
    /// The first are due at once.
    pub(super) fn new() -> Self {
        Self { published: None, records: 0 }
    }

    /// How long it is until figures are due; `None` where the task, which has taken in so many records, has done nothing
    /// since.
    pub(super) fn due_in(&self, now: Instant, records: u64) -> Option<Duration> {
        match self.published {
            None => Some(Duration::ZERO),
            Some(_) if records == self.records => None,
            Some(published) => Some(PERIOD.saturating_sub(now.duration_since(published))),
        }
    }

    /// They were published.
    pub(super) fn published(&mut self, now: Instant, records: u64) {
        (self.published, self.records) = (Some(now), records);
    }
}

/// A task's figures now.
pub(super) fn of(parts: &Parts) -> TaskFigures {
    let operators = parts.chain.operators().iter().filter_map(|operator| {
        let context = &operator.context;
        let store = context.keyed_state.as_ref().filter(|store| store.has_states())?;
        Some(OperatorFigures {
            uid: context.uid.clone(),
            name: context.name.clone(),
            states: store.figures(),
            backend_bytes: store.backend_bytes(),
        })
    });
    TaskFigures {
        pending_records: parts.source.as_ref().and_then(|source| source.reader.pending_records()),
        operators: operators.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_due_once_a_second_while_there_is_something_to_do() {
        let start = Instant::now();
        let mut timer = FiguresTimer::new();
        assert_eq!(timer.due_in(start, 0), Some(Duration::ZERO));
        timer.published(start, 0);
        assert_eq!(timer.due_in(start + 5 * PERIOD, 0), None);
        assert_eq!(timer.due_in(start + PERIOD / 4, 1), Some(PERIOD * 3 / 4));
        assert_eq!(timer.due_in(start + 2 * PERIOD, 1), Some(Duration::ZERO));
        timer.published(start + 2 * PERIOD, 1);
        assert_eq!(timer.due_in(start + 9 * PERIOD, 1), None);
    }
}
