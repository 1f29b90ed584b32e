//! A value for each key.

use millrace_core::Result;

use super::{
    StateValue,
    cell::{Handle, access},
    layout::{OneLayout, Value},
};

/// One value for each key. A key without one has the default that the state was obtained with.
///
/// A handle that was not obtained from a store (`ValueState::default()`) can be kept in a struct and sent to another
/// thread, but not used.
pub struct ValueState<T: StateValue> {
    handle: Handle<OneLayout<T, Value>>,
    default: Option<T>,
}

impl<T: StateValue> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), default: self.default.clone() }
    }
}

impl<T: StateValue> Default for ValueState<T> {
    fn default() -> Self {
        Self { handle: Handle::default(), default: None }
    }
}

impl<T: StateValue> ValueState<T> {
    pub(super) fn new(handle: Handle<OneLayout<T, Value>>, default: T) -> Self {
        Self { handle, default: Some(default) }
    }

    /// The current key's value.
    pub fn get(&self) -> Result<T> {
        let value = access!(self.handle, state => state.get())?;
        Ok(value.unwrap_or_else(|| self.default_value()))
    }

    /// Replaces the current key's value.
    pub fn set(&self, value: T) -> Result<()> {
        access!(self.handle, state => state.set(value))
    }

    /// Changes the current key's value in place and returns what `change` returns.
    #[inline]
    pub fn modify<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        access!(self.handle, state => state.modify(|| self.default_value(), change))
    }

    /// Removes the current key's value: the key has the default again.
    pub fn clear(&self) -> Result<()> {
        access!(self.handle, state => state.clear())
    }

    fn default_value(&self) -> T {
        self.default.clone().expect("a handle with a state has a default")
    }
}
