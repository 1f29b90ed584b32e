//! From JSON to the encoding.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Fields, Format, MAX_DEPTH, Schema, Type};
use crate::codec;

type Encoded = Result<(), String>;

pub(super) fn encode(schema: &Schema, json: &Value) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder { schema, out: Vec::new() };
    encoder.value(&schema.root, json, 0)?;
    Ok(encoder.out)
}

struct Encoder<'a> {
    schema: &'a Schema,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Encoded {
        codec::encode_into(value, &mut self.out).map_err(|error| error.message)
    }

    fn value(&mut self, format: &Format, json: &Value, depth: usize) -> Encoded {
        if depth > MAX_DEPTH {
            return Err("the type is nested too deeply".to_string());
        }
        let expected = |what: &dyn Display| Err(format!("{json} stands where {what} is wanted"));
        match (format, json) {
            (Format::Unit, Value::Null) => Ok(()),
            (Format::Bool, Value::Bool(value)) => self.put(value),
            (Format::Int(bits), _) => self.signed(*bits, json),
            (Format::Uint(bits), _) => self.unsigned(*bits, json),
            (Format::Float(bits), _) => self.float(*bits, json),
            (Format::Char, Value::String(text)) => match text.chars().collect::<Vec<_>>()[..] {
                [value] => self.put(&value),
                _ => expected(&"one character"),
            },
            (Format::Str, Value::String(text)) => self.put(text),
            (Format::Bytes, Value::Array(items)) => {
                let bytes = items.iter().map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok()));
                match bytes.collect::<Option<Vec<u8>>>() {
                    // A sequence of bytes has the same encoding as bytes.
                    Some(bytes) => self.put(&bytes),
                    None => expected(&"an array of bytes"),
                }
            }
            (Format::Option(_), Value::Null) => self.put(&0u8),
            (Format::Option(inner), _) => {
                self.put(&1u8)?;
                match json {
                    Value::Object(object) if self.schema.may_be_null(inner, depth) => match object.get("Some") {
                        Some(some) if object.len() == 1 => self.value(inner, some, depth + 1),
                        _ => expected(&"{\"Some\": …}"),
                    },
                    _ => self.value(inner, json, depth + 1),
                }
            }
            (Format::Seq(inner), Value::Array(items)) => {
                self.put(&(items.len() as u64))?;
                items.iter().try_for_each(|item| self.value(inner, item, depth + 1))
            }
            (Format::Map(key, value), Value::Object(object)) if self.schema.is_text(key, depth) => {
                self.put(&(object.len() as u64))?;
                object.iter().try_for_each(|(name, item)| {
                    self.value(key, &Value::String(name.clone()), depth + 1)?;
                    self.value(value, item, depth + 1)
                })
            }
            (Format::Map(key, value), Value::Array(pairs)) if !self.schema.is_text(key, depth) => {
                self.put(&(pairs.len() as u64))?;
                pairs.iter().try_for_each(|pair| match pair.as_array().map(Vec::as_slice) {
                    Some([first, second]) => {
                        self.value(key, first, depth + 1)?;
                        self.value(value, second, depth + 1)
                    }
                    _ => Err(format!("{pair} stands where a pair is wanted")),
                })
            }
            (Format::Tuple(formats), _) => self.list(formats, json, depth),
            (Format::Named(name), _) => self.named(name, json, depth),
            _ => expected(format),
        }
    }

    fn list(&mut self, formats: &[Format], json: &Value, depth: usize) -> Encoded {
        match json {
            Value::Array(items) if items.len() == formats.len() => {
                formats.iter().zip(items).try_for_each(|(format, item)| self.value(format, item, depth + 1))
            }
            _ => Err(format!("{json} stands where an array of {} is wanted", formats.len())),
        }
    }

    fn named(&mut self, name: &str, json: &Value, depth: usize) -> Encoded {
        let schema = self.schema;
        match schema.types.get(name).ok_or_else(|| format!("the schema does not describe {name}"))? {
            Type::Struct(fields) => self.fields(name, fields, json, depth),
            Type::Enum(variants) => {
                let (variant, inner) = match json {
                    Value::String(variant) => (variant, &Value::Null),
                    Value::Object(object) => match object.iter().next() {
                        Some(only) if object.len() == 1 => only,
                        _ => return Err(format!("{json} stands where one variant of {name} is wanted")),
                    },
                    _ => return Err(format!("{json} stands where a variant of {name} is wanted")),
                };
                let known = variants.iter().position(|(known, _)| known == variant);
                let Some(index) = known else { return Err(format!("{name} has no variant {variant:?}")) };
                self.put(&(index as u32))?;
                self.fields(name, &variants[index].1, inner, depth)
            }
        }
    }

    fn fields(&mut self, of: &str, fields: &Fields, json: &Value, depth: usize) -> Encoded {
        match (fields, json) {
            (Fields::Unit, Value::Null) => Ok(()),
            (Fields::Tuple(formats), _) if formats.len() == 1 => self.value(&formats[0], json, depth + 1),
            (Fields::Tuple(formats), _) => self.list(formats, json, depth),
            (Fields::Named(fields), Value::Object(object)) => self.named_fields(of, fields, object, depth),
            _ => Err(format!("{json} stands where the fields of {of} are wanted")),
        }
    }

    fn named_fields(
        &mut self,
        of: &str,
        fields: &[(String, Format)],
        object: &Map<String, Value>,
        depth: usize,
    ) -> Encoded {
        if let Some(name) = object.keys().find(|name| fields.iter().all(|(known, _)| known != *name)) {
            return Err(format!("{of} has no field {name:?}"));
        }
        for (name, format) in fields {
            let json = object.get(name).ok_or_else(|| format!("field {name:?} of {of} is missing"))?;
            self.value(format, json, depth + 1)?;
        }
        Ok(())
    }

    fn signed(&mut self, bits: u8, json: &Value) -> Encoded {
        let value: i128 = integer(json)?;
        let too_large = |_| format!("{json} is out of range for i{bits}");
        match bits {
            8 => self.put(&i8::try_from(value).map_err(too_large)?),
            16 => self.put(&i16::try_from(value).map_err(too_large)?),
            32 => self.put(&i32::try_from(value).map_err(too_large)?),
            64 => self.put(&i64::try_from(value).map_err(too_large)?),
            128 => self.put(&value),
            _ => Err(format!("the schema has a number of {bits} bits")),
        }
    }

    fn unsigned(&mut self, bits: u8, json: &Value) -> Encoded {
        let value: u128 = integer(json)?;
        let too_large = |_| format!("{json} is out of range for u{bits}");
        match bits {
            8 => self.put(&u8::try_from(value).map_err(too_large)?),
            16 => self.put(&u16::try_from(value).map_err(too_large)?),
            32 => self.put(&u32::try_from(value).map_err(too_large)?),
            64 => self.put(&u64::try_from(value).map_err(too_large)?),
            128 => self.put(&value),
            _ => Err(format!("the schema has a number of {bits} bits")),
        }
    }

    fn float(&mut self, bits: u8, json: &Value) -> Encoded {
        let value = match json {
            Value::String(text) if text == "NaN" => Some(f64::NAN),
            Value::String(text) if text == "Infinity" => Some(f64::INFINITY),
            Value::String(text) if text == "-Infinity" => Some(f64::NEG_INFINITY),
            other => other.as_f64(),
        };
        let value = value.ok_or_else(|| format!("{json} stands where a number is wanted"))?;
        match bits {
            32 => self.put(&(value as f32)),
            64 => self.put(&value),
            _ => Err(format!("the schema has a number of {bits} bits")),
        }
    }
}

/// A whole number, as a number or as text: JSON's own numbers don't hold 128 bits.
fn integer<T: std::str::FromStr>(json: &Value) -> Result<T, String> {
    let text = match json {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    text.parse().map_err(|_| format!("{json} stands where a whole number is wanted, or is out of range"))
}
