//! Whose fault it is when a task fails: which operator was at work, and on which records.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use millrace_core::{Error, Result};

use super::TaskFailure;

/// What was at work when the first error came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The part of the chain of this number.
    Part(usize),
    /// A channel or the engine: no operator's fault, although the error passes through operators on its way.
    Engine,
    /// The task's own cancellation.
    Cancelled,
}

/// Notes who is at work. Lives on the task's thread, outside of what a panic unwinds.
pub(super) struct Blame {
    /// What the chain's parts are called: the source, where there is one, then the operators.
    names: Vec<String>,
    /// `subtask 2 of 4`.
    subtask: String,
    current: Cell<Option<usize>>,
    cause: Cell<Option<Cause>>,
    position: RefCell<Option<Arc<str>>>,
}

impl Blame {
    pub(super) fn new(names: Vec<String>, subtask: u32, parallelism: u32) -> Self {
        Self {
            names,
            subtask: format!("subtask {} of {parallelism}", subtask + 1),
            current: Cell::new(None),
            cause: Cell::new(None),
            position: RefCell::new(None),
        }
    }

    /// Runs a call into a part of the chain.
    pub(super) fn part<T>(&self, part: usize, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.current.replace(Some(part));
        let result = call();
        if result.is_err() {
            self.note(Cause::Part(part));
        }
        self.current.set(before);
        result
    }

    /// Runs something of the engine's.
    pub(super) fn engine<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.current.replace(None);
        let result = call();
        if result.is_err() {
            self.note(Cause::Engine);
        }
        self.current.set(before);
        result
    }

    /// The error that unwinds a cancelled task; nobody sees it.
    pub(super) fn cancelled(&self) -> Error {
        self.note(Cause::Cancelled);
        Error::internal("the task was cancelled")
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cause.get() == Some(Cause::Cancelled)
    }

    /// The records that are worked on from now on.
    pub(super) fn set_position(&self, origin: Option<&Arc<str>>) {
        *self.position.borrow_mut() = origin.cloned();
    }

    pub(super) fn position(&self) -> Option<Arc<str>> {
        self.position.borrow().clone()
    }

    fn note(&self, cause: Cause) {
        if self.cause.get().is_none() {
            self.cause.set(Some(cause));
        }
    }

    /// Whoever was at work panicked.
    pub(super) fn panicked(&self, payload: &(dyn std::any::Any + Send)) -> Error {
        let error = Error::from_panic(payload);
        match self.current.get() {
            Some(part) => {
                self.note(Cause::Part(part));
                error
            }
            None => {
                self.note(Cause::Engine);
                Error::internal(error.message)
            }
        }
    }

    /// The error with the name of the operator and the records that it failed on.
    pub(super) fn failure(&self, error: Error) -> TaskFailure {
        let Some(Cause::Part(part)) = self.cause.get() else {
            return TaskFailure { error, position: None };
        };
        let position = self.position.take().map(|position| position.to_string());
        let name = self.names.get(part).map_or("?", |name| name);
        let at = position.as_ref().map(|position| format!(", records {position}")).unwrap_or_default();
        TaskFailure { error: error.context(format_args!("operator {name:?}, {}{at}", self.subtask)), position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame() -> Blame {
        let blame = Blame::new(vec!["source".into(), "map".into()], 1, 4);
        blame.set_position(Some(&"topic-0@1..5".into()));
        blame
    }

    #[test]
    fn the_innermost_part_is_blamed() {
        let blame = blame();
        let inner = || blame.part(1, || Err::<(), _>(Error::user("bad")));
        let error = blame.part(0, inner).unwrap_err();
        let failure = blame.failure(error);
        assert_eq!(failure.error.message, "operator \"map\", subtask 2 of 4, records topic-0@1..5: bad");
        assert_eq!(failure.position.as_deref(), Some("topic-0@1..5"));
    }

    #[test]
    fn a_lost_channel_is_no_operators_fault() {
        let blame = blame();
        let inner = || blame.engine(|| Err::<(), _>(Error::external("lost")));
        let error = blame.part(0, inner).unwrap_err();
        assert_eq!(blame.failure(error).error.message, "lost");
    }
}
