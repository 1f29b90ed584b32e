//! Tracing: a type is asked to deserialize itself from a deserializer that makes values up and writes down what was
//! asked for. One pass sees one variant of each enum, so passes repeat until all have been seen.

mod probe;

pub(super) use probe::{Probe, probe};

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor},
};

use self::probe::visit_fields;
use super::{Fields, Format, Schema, Type};

/// More passes than any type needs that a person wrote.
const MAX_PASSES: usize = 10_000;
/// Deeper than any type that a person wrote.
const MAX_DEPTH: usize = 100;

pub(super) fn trace<T: DeserializeOwned>() -> Result<Schema, Refusal> {
    explore::<T>(Tracer::default())
}

fn explore<T: DeserializeOwned>(mut tracer: Tracer<'_>) -> Result<Schema, Refusal> {
    for _ in 0..MAX_PASSES {
        let mut root = Slot::default();
        T::deserialize(Recorder { tracer: &mut tracer, slot: &mut root })?;
        if tracer.enums.values().all(|seen| seen.iter().all(Option::is_some)) {
            return tracer.finish(root);
        }
    }
    Err(Refusal("it has too many variants".to_string()))
}

/// Why a type has no schema.
#[derive(Debug)]
pub(super) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A format that is written when it has been seen.
type Slot = Option<Format>;

#[derive(Default)]
struct Tracer<'p> {
    structs: BTreeMap<&'static str, Fields>,
    /// The variants of each enum, with what each holds once it was seen.
    enums: BTreeMap<&'static str, Vec<Option<Fields>>>,
    variants: BTreeMap<&'static str, &'static [&'static str]>,
    /// The structs and enums that are being visited, outermost first.
    path: Vec<&'static str>,
    probe: Option<&'p Probe>,
}

impl<'p> Tracer<'p> {
    /// The probe, where it is about this struct or variant.
    fn probe_of(&self, name: &str, variant: Option<&str>) -> Option<&'p Probe> {
        let is_it = |probe: &&Probe| match variant {
            None => probe.container == name,
            Some(variant) => probe.container.split_once("::") == Some((name, variant)),
        };
        self.probe.filter(is_it)
    }

    fn enter(&mut self, name: &'static str) -> Result<(), Refusal> {
        self.path.push(name);
        if self.path.len() > MAX_DEPTH {
            return Err(Refusal(format!("type {name} contains itself without an end")));
        }
        Ok(())
    }

    /// How often the innermost container is being visited already, further out.
    fn repeats(&self) -> usize {
        self.path.last().map_or(0, |last| self.path.iter().filter(|name| *name == last).count() - 1)
    }

    fn learn_struct(&mut self, name: &'static str, fields: Fields) -> Result<(), Refusal> {
        match self.structs.get(name) {
            Some(known) if *known != fields => Err(two_types(name)),
            _ if self.enums.contains_key(name) => Err(two_types(name)),
            _ => {
                self.structs.insert(name, fields);
                Ok(())
            }
        }
    }

    fn finish(self, root: Slot) -> Result<Schema, Refusal> {
        let root = root.ok_or_else(|| Refusal("it asks for nothing".to_string()))?;
        let structs = self.structs.into_iter().map(|(name, fields)| (name.to_string(), Type::Struct(fields)));
        let enums = self.enums.into_iter().map(|(name, seen)| {
            let fields = seen.into_iter().flatten();
            let names = self.variants[name].iter().map(ToString::to_string);
            (name.to_string(), Type::Enum(names.zip(fields).collect()))
        });
        Ok(Schema { root, types: structs.chain(enums).collect() })
    }
}

fn two_types(name: &str) -> Refusal {
    Refusal(format!("two different types in it are both named {name}: rename one with #[serde(rename)]"))
}

fn all(slots: Vec<Slot>) -> Result<Vec<Format>, Refusal> {
    slots.into_iter().map(|slot| slot.ok_or_else(|| Refusal("a field of it is never read".to_string()))).collect()
}

/// Makes a value up and writes its format into the slot.
struct Recorder<'a, 'p> {
    tracer: &'a mut Tracer<'p>,
    slot: &'a mut Slot,
}

macro_rules! scalars {
    ($($method:ident $visit:ident $value:expr, $format:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            *self.slot = Some($format);
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Recorder<'_, '_> {
    type Error = Refusal;

    // 1 rather than 0, for types that are never zero
    scalars! {
        deserialize_bool visit_bool false, Format::Bool;
        deserialize_i8 visit_i8 1, Format::Int(8);
        deserialize_i16 visit_i16 1, Format::Int(16);
        deserialize_i32 visit_i32 1, Format::Int(32);
        deserialize_i64 visit_i64 1, Format::Int(64);
        deserialize_i128 visit_i128 1, Format::Int(128);
        deserialize_u8 visit_u8 1, Format::Uint(8);
        deserialize_u16 visit_u16 1, Format::Uint(16);
        deserialize_u32 visit_u32 1, Format::Uint(32);
        deserialize_u64 visit_u64 1, Format::Uint(64);
        deserialize_u128 visit_u128 1, Format::Uint(128);
        deserialize_f32 visit_f32 1.0, Format::Float(32);
        deserialize_f64 visit_f64 1.0, Format::Float(64);
        deserialize_char visit_char 'a', Format::Char;
        deserialize_str visit_borrowed_str "", Format::Str;
        deserialize_string visit_string String::new(), Format::Str;
        deserialize_bytes visit_bytes &[0; 16], Format::Bytes;
        deserialize_byte_buf visit_byte_buf vec![0; 16], Format::Bytes;
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        *self.slot = Some(Format::Unit);
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal("it reads values of any shape".to_string()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal("it skips values of any shape".to_string()))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal("it reads fields by name".to_string()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.tracer.repeats() > 0 {
            return visitor.visit_none();
        }
        let mut inner = Slot::default();
        let value = visitor.visit_some(Recorder { tracer: self.tracer, slot: &mut inner })?;
        *self.slot = inner.map(|inner| Format::Option(Box::new(inner)));
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let mut slots = vec![Slot::default(); usize::from(self.tracer.repeats() == 0)];
        let value = visitor.visit_seq(Values { tracer: self.tracer, slots: slots.iter_mut() })?;
        *self.slot = slots.into_iter().flatten().next().map(|inner| Format::Seq(Box::new(inner)));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let mut slots = vec![Slot::default(); if self.tracer.repeats() == 0 { 2 } else { 0 }];
        let value = visitor.visit_map(Values { tracer: self.tracer, slots: slots.iter_mut() })?;
        if let [Some(key), Some(value)] = &slots[..] {
            *self.slot = Some(Format::Map(Box::new(key.clone()), Box::new(value.clone())));
        }
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        let (value, slots) = visit_values(self.tracer, len, visitor)?;
        *self.slot = Some(Format::Tuple(or_known(self.tracer, slots)?));
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        *self.slot = Some(Format::Named(name.to_string()));
        self.tracer.learn_struct(name, Fields::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        let mut inner = Slot::default();
        *self.slot = Some(Format::Named(name.to_string()));
        self.tracer.enter(name)?;
        let value = visitor.visit_newtype_struct(Recorder { tracer: self.tracer, slot: &mut inner })?;
        self.leave_struct(name, vec![inner], Fields::Tuple)?;
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        *self.slot = Some(Format::Named(name.to_string()));
        self.tracer.enter(name)?;
        let (value, slots) = visit_values(self.tracer, len, visitor)?;
        self.leave_struct(name, slots, Fields::Tuple)?;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        *self.slot = Some(Format::Named(name.to_string()));
        self.tracer.enter(name)?;
        let probe = self.tracer.probe_of(name, None);
        let (value, slots) = visit_fields(self.tracer, fields, probe, visitor)?;
        self.leave_struct(name, slots, |formats| named(fields, formats))?;
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        *self.slot = Some(Format::Named(name.to_string()));
        let tracer = self.tracer;
        if tracer.structs.contains_key(name) || tracer.variants.get(name).is_some_and(|known| *known != variants) {
            return Err(two_types(name));
        }
        tracer.enter(name)?;
        tracer.variants.insert(name, variants);
        let depth = tracer.repeats();
        let seen = tracer.enums.entry(name).or_insert_with(|| vec![None; variants.len()]);
        // The outermost visit explores what is new; inside itself the enum tries one variant after another, so that
        // it comes to one that does not contain it.
        let explored = seen.iter().position(Option::is_none).unwrap_or(0);
        let index = if depth == 0 { explored } else { (explored + depth) % variants.len().max(1) };
        let mut fields = None;
        let value = visitor.visit_enum(Variant { tracer, index, fields: &mut fields })?;
        tracer.path.pop();
        if depth == 0 {
            let seen = tracer.enums.get_mut(name).expect("inserted above");
            match (&seen[index], fields) {
                (Some(known), Some(fields)) if *known != fields => return Err(two_types(name)),
                (None, Some(fields)) => seen[index] = Some(fields),
                _ => {}
            }
        }
        Ok(value)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Recorder<'_, '_> {
    /// Writes a struct's fields down; inside itself they may be unknown, and are known from further out.
    fn leave_struct(
        self,
        name: &'static str,
        slots: Vec<Slot>,
        fields: impl FnOnce(Vec<Format>) -> Fields,
    ) -> Result<(), Refusal> {
        let repeated = self.tracer.repeats() > 0;
        self.tracer.path.pop();
        if repeated { Ok(()) } else { self.tracer.learn_struct(name, fields(all(slots)?)) }
    }
}

fn named(names: &[&str], formats: Vec<Format>) -> Fields {
    Fields::Named(names.iter().map(ToString::to_string).zip(formats).collect())
}

/// Formats of a tuple or a variant; where the container repeats itself its formats are of no interest.
fn or_known(tracer: &Tracer<'_>, slots: Vec<Slot>) -> Result<Vec<Format>, Refusal> {
    if tracer.repeats() > 0 { Ok(slots.into_iter().flatten().collect()) } else { all(slots) }
}

fn visit_values<'de, V: Visitor<'de>>(
    tracer: &mut Tracer<'_>,
    len: usize,
    visitor: V,
) -> Result<(V::Value, Vec<Slot>), Refusal> {
    let mut slots = vec![Slot::default(); len];
    let value = visitor.visit_seq(Values { tracer, slots: slots.iter_mut() })?;
    Ok((value, slots))
}

/// Hands out a made-up value for each slot.
struct Values<'a, 'p, I> {
    tracer: &'a mut Tracer<'p>,
    slots: I,
}

impl<'de, 's, I: Iterator<Item = &'s mut Slot>> Values<'_, '_, I> {
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some(slot) = self.slots.next() else { return Ok(None) };
        seed.deserialize(Recorder { tracer: self.tracer, slot }).map(Some)
    }
}

impl<'de, 's, I: Iterator<Item = &'s mut Slot>> de::SeqAccess<'de> for Values<'_, '_, I> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        self.next(seed)
    }
}

impl<'de, 's, I: Iterator<Item = &'s mut Slot>> de::MapAccess<'de> for Values<'_, '_, I> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.next(seed)?.ok_or_else(|| Refusal("it reads a value without a key".to_string()))
    }
}

/// One variant of an enum.
struct Variant<'a, 'p> {
    tracer: &'a mut Tracer<'p>,
    index: usize,
    fields: &'a mut Option<Fields>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refusal> {
        let index = u32::try_from(self.index).expect("variants are numbered by u32");
        Ok((seed.deserialize(index.into_deserializer())?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        *self.fields = Some(Fields::Unit);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refusal> {
        let mut slot = Slot::default();
        let value = seed.deserialize(Recorder { tracer: self.tracer, slot: &mut slot })?;
        *self.fields = Some(Fields::Tuple(or_known(self.tracer, vec![slot])?));
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        let (value, slots) = visit_values(self.tracer, len, visitor)?;
        *self.fields = Some(Fields::Tuple(or_known(self.tracer, slots)?));
        Ok(value)
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        let name = *self.tracer.path.last().expect("a variant is inside its enum");
        let variant = self.tracer.variants[name].get(self.index).copied();
        let probe = variant.and_then(|variant| self.tracer.probe_of(name, Some(variant)));
        let (value, slots) = visit_fields(self.tracer, names, probe, visitor)?;
        *self.fields = Some(named(names, or_known(self.tracer, slots)?));
        Ok(value)
    }
}
