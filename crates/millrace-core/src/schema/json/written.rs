//! From the encoding to JSON.

use std::cell::Cell;

use serde::{
    Deserialize, Serialize, Serializer,
    ser::{Error as _, SerializeMap, SerializeSeq},
};

use super::{Fields, Format, MAX_DEPTH, Schema, TOO_MANY_PARTS, Type, parts_within};

/// An encoded value, beside the schema that it was written under. It serializes as its JSON; bytes that don't fit the
/// schema are an error of the serializer.
#[derive(Clone, Copy, Debug)]
pub struct WrittenValue<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
}

impl<'a> WrittenValue<'a> {
    pub(super) fn new(schema: &'a Schema, bytes: &'a [u8]) -> Self {
        Self { schema, bytes }
    }
}

impl Serialize for WrittenValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let input = Input { rest: Cell::new(self.bytes), budget: Cell::new(parts_within(self.bytes)) };
        let root = Part { schema: self.schema, format: &self.schema.root, depth: 0, input: &input };
        let done = root
            .serialize(serializer)
            .map_err(|why| S::Error::custom(format_args!("a value does not fit its schema {}: {why}", self.schema)))?;
        match input.rest.get() {
            [] => Ok(done),
            rest => {
                let (left, schema) = (rest.len(), self.schema);
                Err(S::Error::custom(format_args!("{left} bytes are left over behind a value of schema {schema}")))
            }
        }
    }
}

/// What is left to read.
struct Input<'a> {
    rest: Cell<&'a [u8]>,
    budget: Cell<u64>,
}

impl<'a> Input<'a> {
    fn read<T: Deserialize<'a>, E: serde::ser::Error>(&self) -> Result<T, E> {
        let (value, rest) = postcard::take_from_bytes(self.rest.get()).map_err(E::custom)?;
        self.rest.set(rest);
        Ok(value)
    }
}

/// A part of the value. It is serialized once, in the order of the input.
#[derive(Clone, Copy)]
struct Part<'s, 'a> {
    schema: &'s Schema,
    format: &'s Format,
    depth: usize,
    input: &'s Input<'a>,
}

impl<'s> Part<'s, '_> {
    fn of(self, format: &'s Format) -> Self {
        Self { format, depth: self.depth + 1, ..self }
    }

    fn list<S: Serializer>(
        self,
        formats: impl ExactSizeIterator<Item = &'s Format>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(formats.len()))?;
        for format in formats {
            list.serialize_element(&self.of(format))?;
        }
        list.end()
    }

    fn repeated<S: Serializer>(self, format: &'s Format, serializer: S) -> Result<S::Ok, S::Error> {
        let length: u64 = self.input.read()?;
        let mut list = serializer.serialize_seq(None)?;
        for _ in 0..length {
            list.serialize_element(&self.of(format))?;
        }
        list.end()
    }

    fn map<S: Serializer>(self, key: &'s Format, value: &'s Format, serializer: S) -> Result<S::Ok, S::Error> {
        let length: u64 = self.input.read()?;
        if self.schema.is_text(key, self.depth) {
            let mut map = serializer.serialize_map(None)?;
            for _ in 0..length {
                map.serialize_entry(&self.of(key), &self.of(value))?;
            }
            return map.end();
        }
        let mut pairs = serializer.serialize_seq(None)?;
        for _ in 0..length {
            pairs.serialize_element(&(self.of(key), self.of(value)))?;
        }
        pairs.end()
    }

    fn named<S: Serializer>(self, name: &str, serializer: S) -> Result<S::Ok, S::Error> {
        let described = self.schema.types.get(name);
        match described.ok_or_else(|| S::Error::custom(format_args!("it does not describe {name}")))? {
            Type::Struct(fields) => FieldsOf { part: self, fields }.serialize(serializer),
            Type::Enum(variants) => {
                let index: u32 = self.input.read()?;
                let variant = usize::try_from(index).ok().and_then(|index| variants.get(index));
                let (variant, fields) =
                    variant.ok_or_else(|| S::Error::custom(format_args!("{name} has no variant {index}")))?;
                if *fields == Fields::Unit {
                    return serializer.serialize_str(variant);
                }
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(variant, &FieldsOf { part: self, fields })?;
                map.end()
            }
        }
    }
}

impl Serialize for Part<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let input = self.input;
        let budget = input.budget.get().checked_sub(1);
        input.budget.set(budget.ok_or_else(|| S::Error::custom(TOO_MANY_PARTS))?);
        if self.depth > MAX_DEPTH {
            return Err(S::Error::custom("it is nested too deeply"));
        }
        match self.format {
            Format::Unit => serializer.serialize_unit(),
            Format::Bool => serializer.serialize_bool(input.read()?),
            Format::Int(8) => serializer.serialize_i8(input.read()?),
            Format::Int(16) => serializer.serialize_i16(input.read()?),
            Format::Int(32) => serializer.serialize_i32(input.read()?),
            Format::Int(64) => serializer.serialize_i64(input.read()?),
            Format::Int(128) => {
                let value: i128 = input.read()?;
                match i64::try_from(value) {
                    Ok(value) => serializer.serialize_i64(value),
                    Err(_) => serializer.collect_str(&value),
                }
            }
            Format::Uint(8) => serializer.serialize_u8(input.read()?),
            Format::Uint(16) => serializer.serialize_u16(input.read()?),
            Format::Uint(32) => serializer.serialize_u32(input.read()?),
            Format::Uint(64) => serializer.serialize_u64(input.read()?),
            Format::Uint(128) => {
                let value: u128 = input.read()?;
                match u64::try_from(value) {
                    Ok(value) => serializer.serialize_u64(value),
                    Err(_) => serializer.collect_str(&value),
                }
            }
            Format::Float(32) => {
                let value: f32 = input.read()?;
                if value.is_finite() { serializer.serialize_f32(value) } else { not_finite(value.into(), serializer) }
            }
            Format::Float(64) => {
                let value: f64 = input.read()?;
                if value.is_finite() { serializer.serialize_f64(value) } else { not_finite(value, serializer) }
            }
            Format::Int(bits) | Format::Uint(bits) | Format::Float(bits) => {
                Err(S::Error::custom(format_args!("it has a number of {bits} bits")))
            }
            Format::Char => serializer.serialize_char(input.read()?),
            Format::Str => serializer.serialize_str(input.read()?),
            Format::Bytes => serializer.serialize_bytes(input.read()?),
            Format::Option(inner) => match input.read::<u8, S::Error>()? {
                0 => serializer.serialize_none(),
                1 if self.schema.may_be_null(inner, self.depth) => {
                    serializer.serialize_newtype_variant("Option", 1, "Some", &self.of(inner))
                }
                1 => serializer.serialize_some(&self.of(inner)),
                other => Err(S::Error::custom(format_args!("an option begins with {other}"))),
            },
            Format::Seq(inner) => self.repeated(inner, serializer),
            Format::Map(key, value) => self.map(key, value, serializer),
            Format::Tuple(formats) => self.list(formats.iter(), serializer),
            Format::Named(name) => self.named(name, serializer),
        }
    }
}

fn not_finite<S: Serializer>(value: f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    })
}

/// What a struct or a variant holds.
struct FieldsOf<'s, 'a> {
    part: Part<'s, 'a>,
    fields: &'s Fields,
}

impl Serialize for FieldsOf<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.fields {
            Fields::Unit => serializer.serialize_unit(),
            Fields::Tuple(formats) if formats.len() == 1 => self.part.of(&formats[0]).serialize(serializer),
            Fields::Tuple(formats) => self.part.list(formats.iter(), serializer),
            Fields::Named(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, format) in fields {
                    map.serialize_entry(name, &self.part.of(format))?;
                }
                map.end()
            }
        }
    }
}
