//! The check that a type's serde implementation inverts: what was encoded is decoded and encoded again.

use millrace_core::{
    Error, Result, codec,
    schema::{Fields, Format, Schema, Type},
};

use super::StateValue;

/// In release builds one entry of so many is checked, the first among them.
const SAMPLE: u64 = 1024;

/// Picks the entries to check: each in debug builds, a sample otherwise.
#[derive(Default)]
pub(super) struct Sampler {
    seen: u64,
}

impl Sampler {
    pub(super) fn picks(&mut self) -> bool {
        let picked = cfg!(debug_assertions) || self.seen.is_multiple_of(SAMPLE);
        self.seen += 1;
        picked
    }
}

/// Decodes and encodes again; anything else than the same bytes is an error that names the type.
pub(super) fn check<T: StateValue>(bytes: &[u8]) -> Result<()> {
    let again = codec::decode::<T>(bytes).and_then(|value| codec::encode(&value));
    match again {
        Ok(again) if again == bytes || is_reordered::<T>(&again, bytes) => Ok(()),
        Ok(_) => Err(does_not_invert::<T>("it comes back as another value")),
        Err(error) => Err(does_not_invert::<T>(&error.message)),
    }
}

fn does_not_invert<T>(why: &str) -> Error {
    Error::invalid(format!(
        "type {} can't be kept in state: what its serde implementation serializes it does not deserialize again \
         ({why}); check its #[serde(…)] attributes, such as skip, default, with and skip_serializing_if",
        std::any::type_name::<T>()
    ))
}

/// A hash map or set has its elements in another order each time: then the bytes are the same but for their order.
fn is_reordered<T: StateValue>(again: &[u8], bytes: &[u8]) -> bool {
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    again.len() == bytes.len() && has_collection::<T>() && sorted(again) == sorted(bytes)
}

fn has_collection<T: StateValue>() -> bool {
    let Ok(schema) = Schema::of::<T>() else { return false };
    let in_fields = |fields: &Fields| match fields {
        Fields::Unit => false,
        Fields::Tuple(formats) => formats.iter().any(is_collection),
        Fields::Named(fields) => fields.iter().any(|(_, format)| is_collection(format)),
    };
    is_collection(&schema.root)
        || schema.types.values().any(|definition| match definition {
            Type::Struct(fields) => in_fields(fields),
            Type::Enum(variants) => variants.iter().any(|(_, fields)| in_fields(fields)),
        })
}

fn is_collection(format: &Format) -> bool {
    match format {
        Format::Seq(_) | Format::Map(..) => true,
        Format::Option(inner) => is_collection(inner),
        Format::Tuple(items) => items.iter().any(is_collection),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::*;

    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    struct Lossy {
        kept: u32,
        #[serde(serialize_with = "write_twice")]
        doubled: u32,
    }

    fn write_twice<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(value.wrapping_mul(2))
    }

    #[derive(Clone)]
    struct Shorter;
    impl Serialize for Shorter {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            (1u8, 2u8).serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Shorter {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u8::deserialize(deserializer).map(|_| Self)
        }
    }

    #[test]
    fn a_serializer_that_does_not_invert_is_named() {
        let error = check::<Lossy>(&codec::encode(&Lossy { kept: 1, doubled: 3 }).unwrap()).unwrap_err();
        assert!(error.message.contains("Lossy"), "{error}");
        let error = check::<Shorter>(&codec::encode(&Shorter).unwrap()).unwrap_err();
        assert!(error.message.contains("Shorter") && !error.retryable, "{error}");
    }

    #[test]
    fn hash_collections_may_come_back_in_another_order() {
        let map: HashMap<u32, String> = (0..100).map(|i| (i, format!("value {i}"))).collect();
        check::<HashMap<u32, String>>(&codec::encode(&map).unwrap()).unwrap();
        let sets = vec![(0..100).collect::<HashSet<u64>>()];
        check::<Vec<HashSet<u64>>>(&codec::encode(&sets).unwrap()).unwrap();
    }

    #[test]
    fn what_inverts_passes() {
        check::<(i64, Option<String>)>(&codec::encode(&(-5i64, Some("five".to_string()))).unwrap()).unwrap();
        check::<f64>(&codec::encode(&f64::NAN).unwrap()).unwrap();
    }
}
