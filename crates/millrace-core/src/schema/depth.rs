//! How deeply a schema that is read may nest: it comes from a file, and reading, comparing and showing it take stack.

use std::cell::Cell;

use serde::{Deserialize, Deserializer, de::Error};

use super::MAX_DEPTH;

thread_local! {
    /// How many formats the one that is being read lies in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Reads what lies inside a format.
pub(super) fn inner<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    DEPTH.set(DEPTH.get() + 1);
    let _inside = Inside;
    if DEPTH.get() > MAX_DEPTH {
        return Err(D::Error::custom("a schema is nested too deeply"));
    }
    T::deserialize(input)
}
