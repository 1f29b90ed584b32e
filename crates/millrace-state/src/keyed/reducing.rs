//! What has been added for each key, reduced to one value.

use millrace_core::{Error, Result};

use super::{
    StateValue,
    cell::{Handle, access},
    layout::{OneLayout, Reducing},
};

/// Combines two values into one.
pub type ReduceFunction<T> = fn(T, T) -> T;

/// One value for each key, into which a function reduces all that is added.
///
/// A handle that was not obtained from a store (`ReducingState::default()`) can be kept in a struct and sent to another
/// thread, but not used.
pub struct ReducingState<T: StateValue> {
    handle: Handle<OneLayout<T, Reducing>>,
    function: Option<ReduceFunction<T>>,
}

impl<T: StateValue> Clone for ReducingState<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), function: self.function }
    }
}

impl<T: StateValue> Default for ReducingState<T> {
    fn default() -> Self {
        Self { handle: Handle::default(), function: None }
    }
}

impl<T: StateValue> ReducingState<T> {
    pub(super) fn new(handle: Handle<OneLayout<T, Reducing>>, function: ReduceFunction<T>) -> Self {
        Self { handle, function: Some(function) }
    }

    /// What the current key's values were reduced to; `None` where nothing was added.
    pub fn get(&self) -> Result<Option<T>> {
        access!(self.handle, state => state.get())
    }

    /// Adds a value to the current key's.
    pub fn add(&self, value: T) -> Result<()> {
        self.handle.cell()?;
        let reduce = self.function.ok_or_else(|| Error::internal("a reducing state has no function"))?;
        let merge = |current: &mut T, value| *current = reduce(current.clone(), value);
        access!(self.handle, state => state.add(value, |value| value, merge))
    }

    /// Removes what the current key has.
    pub fn clear(&self) -> Result<()> {
        access!(self.handle, state => state.clear())
    }
}
