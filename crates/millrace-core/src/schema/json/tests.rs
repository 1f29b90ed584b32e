use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::*;
use crate::codec;

fn shown<T: Serialize + DeserializeOwned>(value: &T) -> serde_json::Value {
    let schema = Schema::of::<T>().unwrap();
    let bytes = codec::encode(value).unwrap();
    let text = serde_json::to_string(&schema.written(&bytes)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema.encode_json(&json).unwrap(), bytes, "{json} is read back as it was written");
    json
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct UserId(u64);

#[derive(Serialize, Deserialize, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

#[derive(Serialize, Deserialize, Debug)]
struct Nothing;

#[derive(Serialize, Deserialize, Debug)]
enum Shape {
    Empty,
    Circle(f64),
    Line(i32, i32),
    Box { width: u16, height: u16 },
}

#[derive(Serialize, Deserialize, Debug)]
struct Session {
    user: UserId,
    at: (i64, char),
    shapes: Vec<Shape>,
    note: Option<String>,
    before: Option<Box<Session>>,
}

#[test]
fn values_are_shown_as_serde_json_shows_their_types() {
    let session = Session {
        user: UserId(u64::MAX),
        at: (-5, 'ä'),
        shapes: vec![Shape::Empty, Shape::Circle(1.5), Shape::Line(1, -2), Shape::Box { width: 3, height: 4 }],
        note: Some("\"quoted\"\n".into()),
        before: Some(Box::new(Session { user: UserId(1), at: (0, 'x'), shapes: vec![], note: None, before: None })),
    };
    assert_eq!(shown(&session), serde_json::to_value(&session).unwrap());
    let text = serde_json::to_string(&Schema::of::<Session>().unwrap().written(&codec::encode(&session).unwrap()));
    assert!(text.unwrap().starts_with("{\"user\":18446744073709551615,\"at\":[-5,\"ä\"],\"shapes\":[\"Empty\","));
    let named = BTreeMap::from([(Name("a".into()), vec![1u8, 2]), (Name("b".into()), vec![])]);
    assert_eq!(shown(&named), json!({"a": [1, 2], "b": []}));
    assert_eq!(shown(&(true, 0.1f32, Nothing, ())).to_string(), "[true,0.1,null,null]");
}

#[test]
fn what_json_has_no_form_for_has_one_of_its_own() {
    assert_eq!(shown(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]), json!(["NaN", "Infinity", "-Infinity", 1.0]));
    assert_eq!(shown(&(f32::NEG_INFINITY, f32::NAN)), json!(["-Infinity", "NaN"]));
    assert_eq!(shown(&(u128::MAX, 5u128)), json!(["340282366920938463463374607431768211455", 5]));
    assert_eq!(shown(&(i128::MIN, -5i128)), json!(["-170141183460469231731687303715884105728", -5]));
    assert_eq!(
        shown(&BTreeMap::from([(UserId(2), "x"), (UserId(7), "y")].map(|(k, v)| (k, v.to_string())))),
        json!([[2, "x"], [7, "y"]])
    );
    assert_eq!(shown(&HashSet::from([3u32])), json!([3]));
    let nested: [Option<Option<u8>>; 3] = [None, Some(None), Some(Some(3))];
    assert_eq!(shown(&nested), json!([null, {"Some": null}, {"Some": 3}]));
    assert_eq!(shown(&[Some(Nothing), None]), json!([{"Some": null}, null]));
}

#[derive(Debug)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[test]
fn bytes_are_arrays() {
    assert_eq!(shown(&Blob(vec![0, 255])), json!([0, 255]));
}

fn refused(schema: &Schema, bytes: &[u8], why: &str) {
    let error = serde_json::to_string(&schema.written(bytes)).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn bytes_that_do_not_fit_are_refused() {
    let of = |root: Format, types: &[(&str, Type)]| Schema {
        root,
        types: types.iter().map(|(name, definition)| (name.to_string(), definition.clone())).collect(),
    };
    refused(&of(Format::Str, &[]), &[5, b'a'], "does not fit");
    refused(&of(Format::Bool, &[]), &[1, 0], "1 bytes are left over");
    refused(&of(Format::Int(7), &[]), &[1], "7 bits");
    refused(&of(Format::Option(Box::new(Format::Bool)), &[]), &[2], "begins with 2");
    refused(&of(Format::Named("X".into()), &[]), &[], "does not describe X");
    let shape = Schema::of::<Shape>().unwrap();
    refused(&shape, &[9], "no variant 9");
    // Nothing in it takes any bytes.
    let endless = of(Format::Seq(Box::new(Format::Unit)), &[]);
    refused(&endless, &[0xff, 0xff, 0xff, 0xff, 0x0f], "more parts than");
    let itself = Type::Struct(Fields::Tuple(vec![Format::Named("A".into())]));
    refused(&of(Format::Named("A".into()), &[("A", itself.clone())]), &[], "nested too deeply");
    assert!(of(Format::Named("A".into()), &[("A", itself)]).encode_json(&json!(1)).is_err());
    let twice = |name: &str| Type::Struct(Fields::Tuple(vec![Format::Named(name.into()); 2]));
    let types: Vec<_> = (0..60).map(|n| (format!("T{n}"), twice(&format!("T{}", n + 1)))).collect();
    let mut doubling = of(Format::Named("T0".into()), &[("T60", Type::Struct(Fields::Unit))]);
    doubling.types.extend(types);
    refused(&doubling, &[], "more parts than");
}

#[test]
fn json_that_does_not_fit_is_refused_by_what_is_wrong() {
    fn refused<T: DeserializeOwned>(json: serde_json::Value, why: &str) {
        let error = Schema::of::<T>().unwrap().encode_json(&json).unwrap_err();
        assert!(error.message.contains(why) && !error.retryable, "{error}");
    }
    refused::<String>(json!(5), "5 is no value of type str");
    refused::<u8>(json!(256), "out of range for u8");
    refused::<u8>(json!(-1), "whole number");
    refused::<i64>(json!(1.5), "whole number");
    refused::<f64>(json!("x"), "a number is wanted");
    refused::<char>(json!("xy"), "one character");
    refused::<(u8, u8)>(json!([1]), "an array of 2");
    refused::<Shape>(json!("Square"), "no variant \"Square\"");
    refused::<Shape>(json!({"Box": {"width": 1}}), "field \"height\" of Shape is missing");
    refused::<Shape>(json!({"Box": {"width": 1, "height": 1, "depth": 1}}), "no field \"depth\"");
    refused::<Shape>(json!({"Circle": 1, "Empty": null}), "one variant");
    refused::<BTreeMap<u8, u8>>(json!({"1": 2}), "Map<u8, u8>");
    assert_eq!(Schema::of::<u64>().unwrap().encode_json(&json!("7")).unwrap(), [7]);
}
