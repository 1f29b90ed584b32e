//! A list for each key.

use millrace_core::Result;

use super::{
    StateValue,
    cell::{Handle, access},
    layout::ListLayout,
};

/// A list for each key; empty for a key that nothing was added to.
///
/// A handle that was not obtained from a store (`ListState::default()`) can be kept in a struct and sent to another
/// thread, but not used.
pub struct ListState<T: StateValue> {
    handle: Handle<ListLayout<T>>,
}

impl<T: StateValue> Clone for ListState<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<T: StateValue> Default for ListState<T> {
    fn default() -> Self {
        Self { handle: Handle::default() }
    }
}

impl<T: StateValue> ListState<T> {
    pub(super) fn new(handle: Handle<ListLayout<T>>) -> Self {
        Self { handle }
    }

    /// A copy of the current key's list.
    pub fn get(&self) -> Result<Vec<T>> {
        access!(self.handle, state => state.get())
    }

    /// Appends to the current key's list.
    pub fn add(&self, element: T) -> Result<()> {
        access!(self.handle, state => state.add(element))
    }

    /// Replaces the current key's list. An empty one is the same as none.
    pub fn update(&self, elements: Vec<T>) -> Result<()> {
        if elements.is_empty() {
            return self.clear();
        }
        access!(self.handle, state => state.update(elements))
    }

    /// Removes the current key's list.
    pub fn clear(&self) -> Result<()> {
        access!(self.handle, state => state.clear())
    }
}
