//! A value for each key.

use millrace_core::{Result, codec};

use super::{StateValue, cell::Handle, layout::ValueLayout};

/// One value for each key. A key without one has the default that the state was obtained with.
///
/// A handle that was not obtained from a store (`ValueState::default()`) can be kept in a struct and sent to another
/// thread, but not used.
pub struct ValueState<T: StateValue> {
    handle: Handle<ValueLayout<T>>,
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
    pub(super) fn new(handle: Handle<ValueLayout<T>>, default: T) -> Self {
        Self { handle, default: Some(default) }
    }

    /// The current key's value.
    pub fn get(&self) -> Result<T> {
        let value = self.handle.cell()?.access(
            (),
            |(), table, hash, key| Ok(table.get(hash, key)?.cloned()),
            |(), bytes| bytes.get(None)?.map(|value| codec::decode(&value)).transpose(),
        )?;
        Ok(value.unwrap_or_else(|| self.default_value()))
    }

    /// Replaces the current key's value.
    pub fn set(&self, value: T) -> Result<()> {
        self.handle.cell()?.access(
            value,
            |value, table, hash, key| {
                match table.get_mut(hash, key)? {
                    Some(current) => *current = value,
                    None => {
                        table.get_or_insert_with(hash, key, || value)?;
                    }
                }
                Ok(())
            },
            |value, bytes| bytes.put(None, &codec::encode(&value)?),
        )
    }

    /// Changes the current key's value in place and returns what `change` returns.
    #[inline]
    pub fn modify<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        self.handle.cell()?.access(
            change,
            |change, table, hash, key| Ok(change(table.get_or_insert_with(hash, key, || self.default_value())?)),
            |change, bytes| {
                let mut value = match bytes.get(None)? {
                    Some(value) => codec::decode(&value)?,
                    None => self.default_value(),
                };
                let result = change(&mut value);
                bytes.put(None, &codec::encode(&value)?)?;
                Ok(result)
            },
        )
    }

    /// Removes the current key's value: the key has the default again.
    pub fn clear(&self) -> Result<()> {
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| table.remove(hash, key).map(drop),
            |(), bytes| bytes.delete(None),
        )
    }

    fn default_value(&self) -> T {
        self.default.clone().expect("a handle with a state has a default")
    }
}
