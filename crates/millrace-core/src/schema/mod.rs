//! The schema of a state type, traced from its serde implementation when the state is registered. It stands at the
//! head of the state in every checkpoint, so that a restore can tell whether the bytes fit the type of today.
//!
//! The crate serde-reflection was weighed: it does not explore enums inside options and sequences unless each enum is
//! named to it, which generic code can't do, and its own encoding would have become part of our format.

mod depth;
mod described;
mod json;
mod migration;
mod trace;

pub use json::WrittenValue;
pub use migration::Migration;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Deeper than any value or type that was written. A schema is read from a file: it might never end.
const MAX_DEPTH: usize = 200;

/// So many parts a value may have whatever its size, and so many more for each of its bytes. Parts that take no bytes
/// (units, empty structs) could otherwise be any number in a crafted file.
const FREE_PARTS: u64 = 1 << 16;
const PARTS_PER_BYTE: u64 = 64;
const TOO_MANY_PARTS: &str = "it has more parts than its bytes could hold";

fn parts_within(bytes: &[u8]) -> u64 {
    (bytes.len() as u64).saturating_mul(PARTS_PER_BYTE).saturating_add(FREE_PARTS)
}

/// The shape of a value, as serde's data model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// `()`.
    Unit,
    /// A truth value.
    Bool,
    /// A signed integer of this many bits.
    Int(u8),
    /// An unsigned integer of this many bits.
    Uint(u8),
    /// A floating-point number of this many bits.
    Float(u8),
    /// A character.
    Char,
    /// Text.
    Str,
    /// Bytes.
    Bytes,
    /// Present or not.
    Option(#[serde(deserialize_with = "depth::inner")] Box<Format>),
    /// Any number of values of one shape.
    Seq(#[serde(deserialize_with = "depth::inner")] Box<Format>),
    /// Keys with values.
    Map(
        #[serde(deserialize_with = "depth::inner")] Box<Format>,
        #[serde(deserialize_with = "depth::inner")] Box<Format>,
    ),
    /// A fixed number of values.
    Tuple(#[serde(deserialize_with = "depth::inner")] Vec<Format>),
    /// A struct or enum among [`Schema::types`].
    Named(String),
}

/// What a struct or an enum's variant holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fields {
    /// Nothing.
    Unit,
    /// Values without names.
    Tuple(Vec<Format>),
    /// Values with names, in order.
    Named(Vec<(String, Format)>),
}

/// A struct or an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// A struct.
    Struct(Fields),
    /// An enum: its variants in order.
    Enum(Vec<(String, Fields)>),
}

/// The shape of a type, with the structs and enums it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The type itself.
    pub root: Format,
    /// The structs and enums in it, by their serde name.
    pub types: BTreeMap<String, Type>,
}

impl Schema {
    /// Traces a type. Types whose format depends on the value (untagged enums, flattened fields, free-form values)
    /// are refused by name: their bytes could not be read back.
    pub fn of<T: DeserializeOwned>() -> Result<Self> {
        trace::trace::<T>().map_err(|why| {
            Error::invalid(format!(
                "type {} has no fixed schema and can't be kept in state: {why}. Use plain structs and enums: untagged, \
                 internally tagged and flattened serde types, free-form values (such as serde_json::Value) and types \
                 that refuse sample values have none",
                std::any::type_name::<T>()
            ))
        })
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_format(f, &self.root)?;
        for (index, (name, definition)) in self.types.iter().enumerate() {
            write!(f, "{}{name} = ", if index == 0 { " where " } else { ", " })?;
            match definition {
                Type::Struct(fields) => write_fields(f, fields)?,
                Type::Enum(variants) => {
                    for (index, (variant, fields)) in variants.iter().enumerate() {
                        write!(f, "{}{variant}", if index == 0 { "" } else { " | " })?;
                        write_fields(f, fields)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_format(f, self)
    }
}

fn write_format(f: &mut std::fmt::Formatter<'_>, format: &Format) -> std::fmt::Result {
    match format {
        Format::Unit => f.write_str("()"),
        Format::Bool => f.write_str("bool"),
        Format::Int(bits) => write!(f, "i{bits}"),
        Format::Uint(bits) => write!(f, "u{bits}"),
        Format::Float(bits) => write!(f, "f{bits}"),
        Format::Char => f.write_str("char"),
        Format::Str => f.write_str("str"),
        Format::Bytes => f.write_str("bytes"),
        Format::Named(name) => f.write_str(name),
        Format::Option(inner) => write_all(f, "Option<", [&**inner], ">"),
        Format::Seq(inner) => write_all(f, "[", [&**inner], "]"),
        Format::Map(key, value) => write_all(f, "Map<", [&**key, &**value], ">"),
        Format::Tuple(items) => write_all(f, "(", items, ")"),
    }
}

fn write_all<'a>(
    f: &mut std::fmt::Formatter<'_>,
    open: &str,
    formats: impl IntoIterator<Item = &'a Format>,
    close: &str,
) -> std::fmt::Result {
    f.write_str(open)?;
    for (index, format) in formats.into_iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write_format(f, format)?;
    }
    f.write_str(close)
}

fn write_fields(f: &mut std::fmt::Formatter<'_>, fields: &Fields) -> std::fmt::Result {
    match fields {
        Fields::Unit => Ok(()),
        Fields::Tuple(items) => write_all(f, "(", items, ")"),
        Fields::Named(fields) => {
            f.write_str("{")?;
            for (index, (name, format)) in fields.iter().enumerate() {
                write!(f, "{}{name}: ", if index == 0 { "" } else { ", " })?;
                write_format(f, format)?;
            }
            f.write_str("}")
        }
    }
}

#[cfg(test)]
mod tests;
