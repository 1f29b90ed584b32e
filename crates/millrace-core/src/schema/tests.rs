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

/// What a program has written, and what it has become.
mod before {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Account {
        pub id: u32,
        pub gone: Vec<Kind>,
        pub kind: Kind,
        pub limits: Option<(i8, u16)>,
        pub nested: Vec<Nested>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Kind {
        Plain,
        Company { name: String, size: u8 },
        Pair(u8, i16),
        One(u32),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Nested(pub i16, pub std::time::Duration);
}

mod after {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Account {
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        pub kind: Kind,
        pub id: i64,
        pub parent: Option<u64>,
        pub limits: Option<(i64, u32)>,
        #[serde(default = "seven")]
        pub score: i32,
        pub nested: Vec<Nested>,
    }

    fn seven() -> i32 {
        7
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Kind {
        New(String),
        Pair(u64, i32),
        Plain,
        Company {
            size: u32,
            #[serde(default)]
            vat: String,
        },
        One(u64),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Nested(pub i128, pub std::time::Duration);
}

fn migrate<Old: Serialize + DeserializeOwned, New: DeserializeOwned>(old: &Old) -> New {
    let migration = Migration::to::<New>(&Schema::of::<Old>().unwrap()).unwrap();
    assert!(migration.is_needed());
    migration.decode(&crate::codec::encode(old).unwrap()).unwrap()
}

#[test]
fn types_gain_and_lose_fields_and_widen_integers() {
    let duration = std::time::Duration::new(5, 6);
    let kinds = [
        (before::Kind::Plain, after::Kind::Plain),
        (before::Kind::Company { name: "n".into(), size: 200 }, after::Kind::Company { size: 200, vat: String::new() }),
        (before::Kind::Pair(255, -300), after::Kind::Pair(255, -300)),
        (before::Kind::One(u32::MAX), after::Kind::One(u64::from(u32::MAX))),
    ];
    let all: Vec<_> = kinds.iter().map(|(old, _)| old.clone()).collect();
    for (old, new) in kinds {
        let account = before::Account {
            id: u32::MAX,
            gone: all.clone(),
            kind: old,
            limits: Some((-128, 65_535)),
            nested: vec![before::Nested(-1, duration)],
        };
        let expected = after::Account {
            labels: BTreeMap::new(),
            kind: new,
            id: i64::from(u32::MAX),
            parent: None,
            limits: Some((-128, 65_535)),
            score: 7,
            nested: vec![after::Nested(-1, duration)],
        };
        assert_eq!(migrate::<_, after::Account>(&account), expected);
    }
    assert_eq!(migrate::<_, Vec<i64>>(&vec![i32::MIN, -1, 0, i32::MAX]), [i64::from(i32::MIN), -1, 0, 2147483647]);
    assert_eq!(migrate::<_, BTreeMap<u64, u16>>(&BTreeMap::from([(1u8, 2u8), (255, 0)])), [(1, 2), (255, 0)].into());
}

mod grown {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub struct Tree {
        #[serde(default)]
        pub name: String,
        pub value: i64,
        pub children: Vec<Tree>,
        pub parent: Option<Box<Tree>>,
    }
}

#[test]
fn recursive_types_gain_fields_too() {
    let leaf = |value| Tree { value, children: vec![], parent: None };
    let old = Tree { value: -1, children: vec![leaf(1), leaf(2)], parent: Some(Box::new(leaf(3))) };
    let leaf = |value| grown::Tree { name: String::new(), value, children: vec![], parent: None };
    let expected = grown::Tree {
        name: String::new(),
        value: -1,
        children: vec![leaf(1), leaf(2)],
        parent: Some(Box::new(leaf(3))),
    };
    assert_eq!(migrate::<_, grown::Tree>(&old), expected);
}

#[test]
fn an_unchanged_type_needs_no_migration() {
    let migration = Migration::to::<Order>(&Schema::of::<Order>().unwrap()).unwrap();
    assert!(!migration.is_needed());
}

mod changed {
    use serde::{Deserialize, Serialize};

    macro_rules! types {
        ($($module:ident { $($item:item)* })*) => {
            $(pub mod $module { use super::*; $(#[derive(Serialize, Deserialize)] $item)* })*
        };
    }

    types! {
        one { pub struct S { pub a: i32 } }
        gained { pub struct S { pub a: i32, pub b: i32 } }
        renamed { pub struct T { pub a: i32 } }
        strict { #[serde(deny_unknown_fields)] pub struct S {} }
        unnamed { pub struct S(pub i32); }
        variants { pub enum E { A, B } }
        fewer { pub enum E { A } }
        emptied { #[derive(PartialEq, Eq, PartialOrd, Ord)] pub struct K {} }
        keyed { #[derive(PartialEq, Eq, PartialOrd, Ord)] pub struct K { pub a: u8 } }
        sequence { pub struct S { pub a: Vec<u8>, pub b: i32 } }
        whole { pub struct S { #[serde(with = "serde_bytes")] pub a: Vec<u8>, pub b: i32 } }
    }
}

#[test]
fn a_sequence_of_bytes_may_become_bytes() {
    let old = changed::sequence::S { a: vec![1, 200, 3], b: -5 };
    let new = migrate::<_, changed::whole::S>(&old);
    assert_eq!((new.a, new.b), (old.a, old.b));
}

#[test]
fn what_can_not_be_read_is_refused_saying_why() {
    fn why<Old: DeserializeOwned, New: DeserializeOwned>() -> String {
        Migration::to::<New>(&Schema::of::<Old>().unwrap()).unwrap_err()
    }
    use changed::{emptied, fewer, gained, keyed, one, renamed, sequence, strict, unnamed, variants, whole};
    for (why, part) in [
        (why::<one::S, gained::S>(), "field \"b\" of S is new and has no #[serde(default)]"),
        (why::<one::S, renamed::T>(), "S can't become T"),
        (why::<one::S, strict::S>(), "field \"a\" of S is gone"),
        (why::<one::S, unnamed::S>(), "named"),
        (why::<variants::E, fewer::E>(), "no variant B"),
        (why::<i64, i32>(), "i64 can't become i32"),
        (why::<u32, i32>(), "u32 can't become i32"),
        (why::<i32, u64>(), "i32 can't become u64"),
        (why::<i32, f64>(), "i32 can't become f64"),
        (why::<(i32, i32), (i32,)>(), "had 2 unnamed fields and has 1"),
        (why::<BTreeMap<keyed::K, u8>, BTreeMap<emptied::K, u8>>(), "keys of a map can't lose fields"),
        (why::<String, Vec<u8>>(), "str can't become [u8]"),
        (why::<whole::S, sequence::S>(), "bytes can't become [u8]"),
        (why::<i32, Option<i32>>(), "i32 can't become Option<i32>"),
    ] {
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    }
}

#[test]
fn damaged_values_and_schemas_without_an_end_are_errors() {
    let migration = Migration::to::<Vec<u64>>(&Schema::of::<Vec<u32>>().unwrap()).unwrap();
    for bytes in [&[3, 1, 2][..], &[1, 1, 1], &[], &[1, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        let error = migration.decode::<Vec<u64>>(bytes).unwrap_err();
        assert!(error.message.contains("[u32]") && error.message.contains("Vec<u64>"), "{error}");
    }
    let mut endless = Schema::of::<changed::one::S>().unwrap();
    let fields = vec![("a".to_string(), Format::Int(32)), ("b".to_string(), Format::Named("S".to_string()))];
    endless.types.insert("S".to_string(), Type::Struct(Fields::Named(fields)));
    let migration = Migration::to::<changed::one::S>(&endless).unwrap();
    assert!(migration.decode::<changed::one::S>(&[0; 1000]).is_err_and(|error| error.message.contains("deeply")));
}

#[test]
fn parts_without_bytes_come_to_an_end() {
    let mut written = Schema::of::<changed::one::S>().unwrap();
    let mut fields = vec![("units".to_string(), Format::Seq(Box::new(Format::Unit)))];
    let Some(Type::Struct(Fields::Named(known))) = written.types.get("S") else { panic!("it has fields") };
    fields.extend(known.clone());
    written.types.insert("S".to_string(), Type::Struct(Fields::Named(fields)));
    let migration = Migration::to::<changed::one::S>(&written).unwrap();
    let units = crate::codec::encode(&u64::MAX).unwrap();
    let error = migration.decode::<changed::one::S>(&units).err().expect("they are more than can be");
    assert!(error.message.contains("more parts than its bytes"), "{error}");
}

#[test]
fn a_schema_that_nests_without_an_end_is_refused_when_it_is_read() {
    let nested = |times| Schema {
        root: (0..times).fold(Format::Unit, |inner, _| Format::Option(Box::new(inner))),
        types: BTreeMap::new(),
    };
    for times in [0, 1, MAX_DEPTH] {
        let bytes = crate::codec::encode(&nested(times)).unwrap();
        assert_eq!(crate::codec::decode::<Schema>(&bytes).unwrap(), nested(times));
    }
    // Options, sequences, maps and tuples of one: so many of them would take more stack than there is.
    for nesting in [&[8][..], &[9], &[10, 0], &[11, 1]] {
        let error = crate::codec::decode::<Schema>(&nesting.repeat(1_000_000)).unwrap_err();
        assert!(error.message.contains("no value of type"), "{error}");
    }
    crate::codec::decode::<Schema>(&crate::codec::encode(&nested(1)).unwrap()).unwrap();
}

#[test]
fn whatever_the_bytes_are_they_are_read_or_refused() {
    let migration = Migration::to::<after::Account>(&Schema::of::<before::Account>().unwrap()).unwrap();
    let kind = before::Kind::Company { name: "n".into(), size: 1 };
    let nested = vec![before::Nested(7, std::time::Duration::from_millis(8))];
    let account = before::Account { id: 300, gone: vec![kind.clone()], kind, limits: Some((1, 2)), nested };
    let bytes = crate::codec::encode(&account).unwrap();
    migration.decode::<after::Account>(&bytes).unwrap();
    for end in 0..bytes.len() {
        migration.decode::<after::Account>(&bytes[..end]).unwrap_err();
    }
    let mut read = 0;
    for at in 0..bytes.len() {
        for value in 0..=u8::MAX {
            let mut changed = bytes.clone();
            changed[at] = value;
            read += usize::from(migration.decode::<after::Account>(&changed).is_ok());
        }
    }
    assert!((bytes.len()..bytes.len() * 256).contains(&read), "{read}");
}
