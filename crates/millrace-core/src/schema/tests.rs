use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
};

use super::*;

#[derive(Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f64),
    Rectangle { width: u32, height: u32 },
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    shape: Option<Shape>,
    more: Vec<(Shape, NonZeroU32)>,
    prices: BTreeMap<String, i64>,
}

#[derive(Serialize, Deserialize)]
enum Expression {
    Sum(Box<Expression>, Box<Expression>),
    Number(i64),
    List(Vec<Expression>),
}

#[derive(Serialize, Deserialize)]
struct Tree {
    value: i32,
    children: Vec<Tree>,
    parent: Option<Box<Tree>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
struct Inner {
    a: i32,
}

#[derive(Serialize, Deserialize)]
struct Flattened {
    #[serde(flatten)]
    inner: Inner,
}

mod other {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Inner {
        pub b: String,
    }
}

fn text<T: DeserializeOwned>() -> String {
    Schema::of::<T>().unwrap().to_string()
}

#[test]
fn a_schema_knows_every_variant_and_field() {
    assert_eq!(
        text::<Order>(),
        "Order where Order = {id: u64, shape: Option<Shape>, more: [(Shape, u32)], prices: Map<str, i64>}, \
         Shape = Empty | Circle(f64) | Rectangle{width: u32, height: u32}"
    );
    assert_eq!(text::<HashMap<i8, Option<()>>>(), "Map<i8, Option<()>>");
    assert_eq!(text::<std::result::Result<i32, String>>(), "Result where Result = Ok(i32) | Err(str)");
}

#[test]
fn recursive_types_have_a_schema() {
    assert_eq!(
        text::<Expression>(),
        "Expression where Expression = Sum(Expression, Expression) | Number(i64) | List([Expression])"
    );
    assert_eq!(text::<Tree>(), "Tree where Tree = {value: i32, children: [Tree], parent: Option<Tree>}");
}

#[test]
fn a_schema_survives_its_encoding() {
    let schema = Schema::of::<Order>().unwrap();
    let bytes = crate::codec::encode(&schema).unwrap();
    assert_eq!(crate::codec::decode::<Schema>(&bytes).unwrap(), schema);
}

#[test]
fn types_without_a_fixed_schema_are_refused_by_name() {
    for (error, name) in [
        (Schema::of::<Untagged>().unwrap_err(), "Untagged"),
        (Schema::of::<Flattened>().unwrap_err(), "Flattened"),
        (Schema::of::<serde_json::Value>().unwrap_err(), "Value"),
        (Schema::of::<(Inner, other::Inner)>().unwrap_err(), "Inner"),
    ] {
        assert!(error.message.contains(name) && !error.retryable, "{error}");
    }
}
