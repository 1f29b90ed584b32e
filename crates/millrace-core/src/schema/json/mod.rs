//! Values as JSON, by the schema that they were written under: for people and tools that don't have the type.
//!
//! As serde_json writes the type itself, with these exceptions: an infinite or undefined float is the text `NaN`,
//! `Infinity` or `-Infinity`; an integer of 128 bits that 64 bits can't hold is text; a map whose keys are not text is an
//! array of pairs; and `Some` of something that may itself be `null` is `{"Some": …}`.

mod encode;
mod written;

#[cfg(test)]
mod tests;

pub use written::WrittenValue;

use super::{Fields, Format, MAX_DEPTH, Schema, TOO_MANY_PARTS, Type, parts_within};
use crate::{Error, Result};

impl Schema {
    /// A value that was written under this schema; it serializes as JSON.
    pub fn written<'a>(&'a self, bytes: &'a [u8]) -> WrittenValue<'a> {
        WrittenValue::new(self, bytes)
    }

    /// The encoding of a value that is given as JSON, in the form that [`Self::written`] gives it.
    pub fn encode_json(&self, json: &serde_json::Value) -> Result<Vec<u8>> {
        encode::encode(self, json).map_err(|why| Error::invalid(format!("{json} is no value of type {self}: {why}")))
    }

    /// Whether the JSON of a format may be `null`.
    fn may_be_null(&self, format: &Format, depth: usize) -> bool {
        match format {
            Format::Unit | Format::Option(_) => true,
            Format::Named(name) if depth < MAX_DEPTH => match self.types.get(name) {
                Some(Type::Struct(Fields::Unit)) => true,
                Some(Type::Struct(Fields::Tuple(inner))) if inner.len() == 1 => self.may_be_null(&inner[0], depth + 1),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the JSON of a format is always text.
    fn is_text(&self, format: &Format, depth: usize) -> bool {
        match format {
            Format::Str => true,
            Format::Named(name) if depth < MAX_DEPTH => match self.types.get(name) {
                Some(Type::Struct(Fields::Tuple(inner))) if inner.len() == 1 => self.is_text(&inner[0], depth + 1),
                _ => false,
            },
            _ => false,
        }
    }
}
