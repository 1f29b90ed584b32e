//! Which key the state belongs to that is used now.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
};

use millrace_core::{
    Error, Result,
    key::{KeyColumn, KeyHash},
};

/// No record is being processed.
const NONE: usize = usize::MAX;

/// The keys of the current batch and the current record's place in it.
pub(super) struct KeyContext {
    keys: RefCell<KeyColumn>,
    index: Cell<usize>,
}

impl KeyContext {
    pub(super) fn new() -> Self {
        Self { keys: RefCell::default(), index: Cell::new(NONE) }
    }

    pub(super) fn replace(&self, keys: KeyColumn) -> KeyColumn {
        self.index.set(NONE);
        self.keys.replace(keys)
    }

    #[inline]
    pub(super) fn select(&self, index: usize) {
        self.index.set(index);
    }

    /// Hands the keys to `take`, with the range from `start` on of at most `count` records.
    pub(super) fn next(&self, start: usize, count: usize, take: impl FnOnce(&KeyColumn, Range<usize>)) {
        let keys = self.keys.borrow();
        let end = start.saturating_add(count).min(keys.len());
        if start < end {
            take(&keys, start..end);
        }
    }

    /// Hands the current key to `take`.
    #[inline]
    pub(super) fn with_key<R>(&self, state: &str, take: impl FnOnce(KeyHash, &[u8]) -> Result<R>) -> Result<R> {
        let keys = self.keys.borrow();
        let index = self.index.get();
        match keys.hashes().get(index) {
            Some(hash) => take(*hash, keys.key(index)),
            None => Err(no_key(state)),
        }
    }
}

#[cold]
fn no_key(state: &str) -> Error {
    Error::invalid(format!(
        "keyed state {state:?} was used while no record is being processed, so there is no key it could belong to: \
         obtain it in `open` and use it where a record is handed to the function"
    ))
}
