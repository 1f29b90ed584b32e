//! State whose type has changed between two runs: which changes are allowed, and reading what the old type wrote.

use std::{collections::BTreeSet, fmt::Display};

use serde::de::DeserializeOwned;

use super::{
    Fields, Format, Schema, Type, described,
    trace::{self, Probe},
};
use crate::{Result, codec};

/// The way from values that were written under a schema to a type of today.
///
/// Structs and the variants of enums may gain fields that have a serde default (or are an `Option`), and lose fields;
/// integers may become wider; enums may gain variants; a sequence of bytes may become bytes. Fields and variants are matched by name. Whether a field has a
/// default the type is asked itself, by deserializing it without the field.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The writer's schema, where it is not the type's own.
    written: Option<Schema>,
}

impl Migration {
    /// The way to `T`; where there is none, why not.
    pub fn to<T: DeserializeOwned>(written: &Schema) -> Result<Self, String> {
        let wanted = Schema::of::<T>().map_err(|error| error.message)?;
        if *written == wanted {
            return Ok(Self { written: None });
        }
        let mut changes = Changes { written, wanted: &wanted, seen: BTreeSet::new(), probes: Vec::new() };
        changes.compare(&written.root, &wanted.root)?;
        for probe in changes.probes {
            trace::probe::<T>(&probe).map_err(|why| match (&probe.without, &probe.with) {
                (Some(field), _) => {
                    format!("field {field:?} of {} is new and has no #[serde(default)]: {why}", probe.container)
                }
                (None, field) => {
                    let field = field.as_deref().unwrap_or_default();
                    format!("field {field:?} of {} is gone, which the type does not allow: {why}", probe.container)
                }
            })?;
        }
        Ok(Self { written: Some(written.clone()) })
    }

    /// Whether values must be written anew to have the encoding of today.
    pub fn is_needed(&self) -> bool {
        self.written.is_some()
    }

    /// Decodes a value that was written under the schema.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        match &self.written {
            None => codec::decode(bytes),
            Some(schema) => described::decode(schema, bytes),
        }
    }
}

/// What is different between two schemas.
struct Changes<'a> {
    written: &'a Schema,
    wanted: &'a Schema,
    /// Named types that were compared already, or are being compared.
    seen: BTreeSet<&'a str>,
    /// What the type must be asked.
    probes: Vec<Probe>,
}

impl<'a> Changes<'a> {
    fn compare(&mut self, written: &'a Format, wanted: &'a Format) -> Result<(), String> {
        match (written, wanted) {
            (Format::Int(old), Format::Int(new)) | (Format::Uint(old), Format::Uint(new)) if old <= new => Ok(()),
            (Format::Uint(old), Format::Int(new)) if old < new => Ok(()),
            (Format::Option(old), Format::Option(new)) | (Format::Seq(old), Format::Seq(new)) => self.compare(old, new),
            // Written alike, and what reads bytes reads a sequence of them too.
            (Format::Seq(old), Format::Bytes) if **old == Format::Uint(8) => Ok(()),
            (Format::Map(old_key, old), Format::Map(new_key, new)) => {
                let known = self.probes.len();
                self.compare(old_key, new_key)?;
                if self.probes[known..].iter().any(|probe| probe.with.is_some()) {
                    return Err("the keys of a map can't lose fields: two of them might become one".to_string());
                }
                self.compare(old, new)
            }
            (Format::Tuple(old), Format::Tuple(new)) => self.compare_all("a tuple", old, new),
            (Format::Named(old), Format::Named(new)) if old == new => self.compare_types(old),
            (old, new) if is_scalar(old) && old == new => Ok(()),
            (old, new) => Err(format!("{old} can't become {new}")),
        }
    }

    fn compare_all(&mut self, of: impl Display, written: &'a [Format], wanted: &'a [Format]) -> Result<(), String> {
        if written.len() != wanted.len() {
            return Err(format!("{of} had {} unnamed fields and has {}", written.len(), wanted.len()));
        }
        written.iter().zip(wanted).try_for_each(|(old, new)| self.compare(old, new))
    }

    fn compare_types(&mut self, name: &'a str) -> Result<(), String> {
        if !self.seen.insert(name) {
            return Ok(());
        }
        match (self.written.types.get(name), self.wanted.types.get(name)) {
            (Some(Type::Struct(old)), Some(Type::Struct(new))) => self.compare_fields(name.to_string(), old, new),
            (Some(Type::Enum(old)), Some(Type::Enum(new))) => old.iter().try_for_each(|(variant, old)| {
                let new = new.iter().find(|(name, _)| name == variant);
                let (_, new) = new.ok_or_else(|| format!("enum {name} has no variant {variant} any more"))?;
                self.compare_fields(format!("{name}::{variant}"), old, new)
            }),
            _ => Err(format!("type {name} is a struct on one side and an enum on the other, or is not described")),
        }
    }

    fn compare_fields(&mut self, container: String, written: &'a Fields, wanted: &'a Fields) -> Result<(), String> {
        match (written, wanted) {
            (Fields::Unit, Fields::Unit) => Ok(()),
            (Fields::Tuple(old), Fields::Tuple(new)) => self.compare_all(&container, old, new),
            (Fields::Named(old), Fields::Named(new)) => {
                for (field, format) in old {
                    match new.iter().find(|(name, _)| name == field) {
                        Some((_, new)) => {
                            self.compare(format, new).map_err(|why| format!("field {field:?} of {container}: {why}"))?
                        }
                        None => self.probes.push(Probe::with(&container, field)),
                    }
                }
                let gained = new.iter().filter(|(field, _)| old.iter().all(|(name, _)| name != field));
                self.probes.extend(gained.map(|(field, _)| Probe::without(&container, field)));
                Ok(())
            }
            _ => Err(format!("{container} had other kinds of fields (named, unnamed or none)")),
        }
    }
}

fn is_scalar(format: &Format) -> bool {
    use Format::{Bool, Bytes, Char, Float, Int, Str, Uint, Unit};
    matches!(format, Unit | Bool | Int(_) | Uint(_) | Float(_) | Char | Str | Bytes)
}
