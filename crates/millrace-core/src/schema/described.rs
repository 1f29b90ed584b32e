//! Reading bytes by the schema that they were written under: the reader's type is handed what the writer wrote, fields
//! by name, whatever it asks for. Serde's own rules then fill what is missing and skip what is not wanted.

use std::fmt;

use postcard::de_flavors::Slice;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor},
};

use super::{Fields, Format, MAX_DEPTH, Schema, TOO_MANY_PARTS, Type, parts_within};
use crate::{Error, Result};

/// Decodes a value; bytes that are left over are an error.
pub(super) fn decode<T: DeserializeOwned>(schema: &Schema, bytes: &[u8]) -> Result<T> {
    let mut input = Input { bytes: postcard::Deserializer::from_bytes(bytes), parts: parts_within(bytes) };
    let value = Described { schema, format: &schema.root, depth: 0, input: &mut input };
    let value = T::deserialize(value).map_err(|error| cannot_decode::<T>(schema, &error))?;
    match input.bytes.finalize() {
        Ok([]) => Ok(value),
        Ok(rest) => Err(cannot_decode::<T>(schema, &Unreadable(format!("{} bytes are left over", rest.len())))),
        Err(error) => Err(cannot_decode::<T>(schema, &Unreadable(error.to_string()))),
    }
}

fn cannot_decode<T>(schema: &Schema, why: &Unreadable) -> Error {
    let name = std::any::type_name::<T>();
    Error::invalid(format!("a value that was written as {schema} can't be read as type {name}: {why}"))
}

/// Why a value can't be read.
#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// What is left to read, and of how many parts it may be.
struct Input<'de> {
    bytes: postcard::Deserializer<'de, Slice<'de>>,
    parts: u64,
}

/// A value in the input, as its writer described it.
struct Described<'a, 'de> {
    schema: &'a Schema,
    format: &'a Format,
    depth: usize,
    input: &'a mut Input<'de>,
}

impl<'a, 'de> Described<'a, 'de> {
    fn read<T: Deserialize<'de>>(&mut self) -> Result<T, Unreadable> {
        read(self.input)
    }

    fn named(&self, name: &str) -> Result<&'a Type, Unreadable> {
        self.schema.types.get(name).ok_or_else(|| Unreadable(format!("its schema does not describe {name}")))
    }

    fn items<'b, I>(&'b mut self, formats: I) -> Items<'b, 'a, 'de, I> {
        Items { schema: self.schema, formats, depth: self.depth + 1, input: self.input, value: None }
    }

    /// A sequence's or map's length, and its elements' formats.
    fn repeated<const N: usize>(
        &mut self,
        formats: [&'a Format; N],
    ) -> Result<impl Iterator<Item = &'a Format> + use<'a, N>, Unreadable> {
        let length: u64 = self.read()?;
        Ok((0..length).flat_map(move |_| formats))
    }

    fn fields<V: Visitor<'de>>(mut self, fields: &'a Fields, visitor: V) -> Result<V::Value, Unreadable> {
        match fields {
            Fields::Unit => visitor.visit_unit(),
            Fields::Tuple(formats) => visitor.visit_seq(self.items(formats.iter())),
            Fields::Named(fields) => visitor.visit_map(self.items(fields.iter())),
        }
    }
}

fn read<'de, T: Deserialize<'de>>(input: &mut Input<'de>) -> Result<T, Unreadable> {
    T::deserialize(&mut input.bytes).map_err(|error| Unreadable(error.to_string()))
}

impl<'de> Deserializer<'de> for Described<'_, 'de> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.depth > MAX_DEPTH {
            return Err(Unreadable("it is nested too deeply".to_string()));
        }
        match self.format {
            Format::Unit => visitor.visit_unit(),
            Format::Bool => visitor.visit_bool(self.read()?),
            Format::Int(8) => visitor.visit_i8(self.read()?),
            Format::Int(16) => visitor.visit_i16(self.read()?),
            Format::Int(32) => visitor.visit_i32(self.read()?),
            Format::Int(64) => visitor.visit_i64(self.read()?),
            Format::Int(128) => visitor.visit_i128(self.read()?),
            Format::Uint(8) => visitor.visit_u8(self.read()?),
            Format::Uint(16) => visitor.visit_u16(self.read()?),
            Format::Uint(32) => visitor.visit_u32(self.read()?),
            Format::Uint(64) => visitor.visit_u64(self.read()?),
            Format::Uint(128) => visitor.visit_u128(self.read()?),
            Format::Float(32) => visitor.visit_f32(self.read()?),
            Format::Float(64) => visitor.visit_f64(self.read()?),
            Format::Int(bits) | Format::Uint(bits) | Format::Float(bits) => {
                Err(Unreadable(format!("its schema has a number of {bits} bits")))
            }
            Format::Char => visitor.visit_char(self.read()?),
            Format::Str => visitor.visit_borrowed_str(self.read()?),
            Format::Bytes => visitor.visit_borrowed_bytes(self.read()?),
            Format::Option(inner) => match self.read::<u8>()? {
                0 => visitor.visit_none(),
                1 => visitor.visit_some(Described { format: inner, depth: self.depth + 1, ..self }),
                other => Err(Unreadable(format!("an option begins with {other}"))),
            },
            Format::Seq(inner) => {
                let items = self.repeated([inner])?;
                visitor.visit_seq(self.items(items))
            }
            Format::Map(key, value) => {
                let items = self.repeated([key, value])?;
                visitor.visit_map(Entries(self.items(items)))
            }
            Format::Tuple(formats) => visitor.visit_seq(self.items(formats.iter())),
            Format::Named(name) => match self.named(name)? {
                Type::Struct(fields) => self.fields(fields, visitor),
                Type::Enum(variants) => visitor.visit_enum(Variant { described: self, variants, known: &[] }),
            },
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        if let Format::Named(name) = self.format
            && let Type::Struct(Fields::Tuple(formats)) = self.named(name)?
            && let [inner] = &formats[..]
        {
            return visitor.visit_newtype_struct(Described { format: inner, depth: self.depth + 1, ..self });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        // Unchanged structs are read in order, as they always are: not every type can do it by name.
        if let Format::Named(name) = self.format
            && let Type::Struct(Fields::Named(written)) = self.named(name)?
            && written.iter().map(|(name, _)| name).eq(fields)
        {
            return visitor.visit_seq(self.items(written.iter().map(|(_, format)| format)));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        if let Format::Named(name) = self.format
            && let Type::Enum(variants) = self.named(name)?
        {
            return visitor.visit_enum(Variant { described: self, variants, known });
        }
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

/// Values one after the other.
struct Items<'b, 'a, 'de, I> {
    schema: &'a Schema,
    formats: I,
    depth: usize,
    input: &'b mut Input<'de>,
    /// The format of the field whose name was told last.
    value: Option<&'a Format>,
}

impl<'a, 'de, I> Items<'_, 'a, 'de, I> {
    fn item<S: DeserializeSeed<'de>>(&mut self, format: &'a Format, seed: S) -> Result<S::Value, Unreadable> {
        let parts = self.input.parts.checked_sub(1);
        self.input.parts = parts.ok_or_else(|| Unreadable(TOO_MANY_PARTS.to_string()))?;
        // The borrows of schema and input have lives of their own; a reborrow gives them one.
        seed.deserialize(Described { schema: self.schema, format, depth: self.depth, input: &mut *self.input })
    }
}

impl<'a, 'de, I: Iterator<Item = &'a Format>> de::SeqAccess<'de> for Items<'_, 'a, 'de, I> {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        let Some(format) = self.formats.next() else { return Ok(None) };
        self.item(format, seed).map(Some)
    }
}

/// A struct's fields by name.
impl<'a, 'de, I: Iterator<Item = &'a (String, Format)>> de::MapAccess<'de> for Items<'_, 'a, 'de, I> {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        let Some((name, format)) = self.formats.next() else { return Ok(None) };
        self.value = Some(format);
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unreadable> {
        let format = self.value.take().ok_or_else(|| Unreadable("a field is read before its name".to_string()))?;
        self.item(format, seed)
    }
}

/// A map's keys and values in turn.
struct Entries<'b, 'a, 'de, I>(Items<'b, 'a, 'de, I>);

impl<'a, 'de, I: Iterator<Item = &'a Format>> de::MapAccess<'de> for Entries<'_, 'a, 'de, I> {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        de::SeqAccess::next_element_seed(&mut self.0, seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unreadable> {
        de::SeqAccess::next_element_seed(&mut self.0, seed)?
            .ok_or_else(|| Unreadable("a map ends behind a key".to_string()))
    }
}

/// The variant of an enum that was written.
struct Variant<'a, 'de> {
    described: Described<'a, 'de>,
    variants: &'a [(String, Fields)],
    /// The reader's variants.
    known: &'static [&'static str],
}

impl<'a, 'de> de::EnumAccess<'de> for Variant<'a, 'de> {
    type Error = Unreadable;
    type Variant = VariantFields<'a, 'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        mut self,
        seed: S,
    ) -> Result<(S::Value, VariantFields<'a, 'de>), Unreadable> {
        let index: u32 = self.described.read()?;
        let (name, fields) = usize::try_from(index)
            .ok()
            .and_then(|index| self.variants.get(index))
            .ok_or_else(|| Unreadable(format!("variant {index} is not in its schema")))?;
        // By the reader's number, which every type understands; by name where there is none.
        let value = match self.known.iter().position(|known| known == name) {
            Some(known) => seed.deserialize((known as u32).into_deserializer())?,
            None => seed.deserialize(name.as_str().into_deserializer())?,
        };
        Ok((value, VariantFields { described: self.described, fields }))
    }
}

struct VariantFields<'a, 'de> {
    described: Described<'a, 'de>,
    fields: &'a Fields,
}

impl<'de> de::VariantAccess<'de> for VariantFields<'_, 'de> {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        match self.fields {
            Fields::Unit => Ok(()),
            _ => Err(Unreadable("a variant with fields is read as one without".to_string())),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unreadable> {
        let Self { described, fields } = self;
        match fields {
            Fields::Tuple(formats) if formats.len() == 1 => {
                seed.deserialize(Described { format: &formats[0], depth: described.depth + 1, ..described })
            }
            // Whoever skips a variant asks for one value, whatever its fields.
            _ => seed.deserialize(AllFields { described, fields }),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Unreadable> {
        self.described.fields(self.fields, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        match self.fields {
            Fields::Named(written) if written.iter().map(|(name, _)| name).eq(names) => {
                visitor.visit_seq(self.described.items(written.iter().map(|(_, format)| format)))
            }
            fields => self.described.fields(fields, visitor),
        }
    }
}

/// All fields of a variant as one value.
struct AllFields<'a, 'de> {
    described: Described<'a, 'de>,
    fields: &'a Fields,
}

impl<'de> Deserializer<'de> for AllFields<'_, 'de> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.described.fields(self.fields, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
