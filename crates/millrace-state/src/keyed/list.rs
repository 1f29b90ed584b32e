//! A list for each key.

use millrace_core::Result;
use triomphe::Arc;

use super::{StateValue, cell::Handle, layout::ListLayout};

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
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| Ok(table.get(hash, key)?.map(|list| (**list).clone()).unwrap_or_default()),
            |(), bytes| bytes.get(None)?.map_or(Ok(Vec::new()), |list| ListLayout::decode(&list)),
        )
    }

    /// Appends to the current key's list.
    pub fn add(&self, element: T) -> Result<()> {
        self.handle.cell()?.access(
            element,
            |element, table, hash, key| {
                Arc::make_mut(table.get_or_insert_with(hash, key, Arc::default)?).push(element);
                Ok(())
            },
            |element, bytes| {
                let mut list = bytes.get(None)?.unwrap_or_default();
                ListLayout::append(&mut list, &element)?;
                bytes.put(None, &list)
            },
        )
    }

    /// Replaces the current key's list. An empty one is the same as none.
    pub fn update(&self, elements: Vec<T>) -> Result<()> {
        if elements.is_empty() {
            return self.clear();
        }
        self.handle.cell()?.access(
            elements,
            |elements, table, hash, key| {
                *table.get_or_insert_with(hash, key, Arc::default)? = Arc::new(elements);
                Ok(())
            },
            |elements, bytes| bytes.put(None, &ListLayout::encode(&elements)?),
        )
    }

    /// Removes the current key's list.
    pub fn clear(&self) -> Result<()> {
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| table.remove(hash, key).map(drop),
            |(), bytes| bytes.delete(None),
        )
    }
}
