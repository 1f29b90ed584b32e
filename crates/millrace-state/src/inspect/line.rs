//! An entry as a line of JSON.

use millrace_core::schema::{Schema, WrittenValue};
use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::snapshot::{Cursor, Entry, StateKind, StateMeta};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryLine<'a> {
    operator: &'a str,
    state: &'a str,
    key_group: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<WrittenValue<'a>>,
    /// Where the key's schema is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bytes: Option<&'a [u8]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_bytes: Option<&'a [u8]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map_key: Option<WrittenValue<'a>>,
    /// When a timer fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<Expiry>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    One(WrittenValue<'a>),
    List(List<'a>),
}

/// Milliseconds since the epoch.
#[derive(Serialize)]
#[serde(untagged)]
enum Expiry {
    One(u64),
    /// Of each element.
    List(Vec<u64>),
}

/// The line of an entry; where it does not fit its state, why not.
pub(super) fn entry(operator: &str, meta: &StateMeta, key_group: u16, entry: &Entry<'_>) -> Result<String, String> {
    let has_sub_key = matches!(meta.kind, StateKind::Map | StateKind::Timer);
    if entry.sub_key.is_some() != has_sub_key {
        let with = if has_sub_key { "without a" } else { "with a" };
        return Err(format!("an entry of a {} state is {with} sub key", meta.kind));
    }
    // As many as the kind has: the header's reader sees to it.
    let schema = |of: usize| meta.schemas.get(of).ok_or_else(|| format!("a {} state has too few schemas", meta.kind));
    let mut line = EntryLine {
        operator,
        state: &meta.name,
        key_group,
        key: meta.key_schema.as_ref().map(|schema| schema.written(entry.key)),
        key_bytes: meta.key_schema.is_none().then_some(entry.key),
        namespace_bytes: entry.namespace,
        map_key: None,
        timer: None,
        value: None,
        expiry: entry.expiry.map(Expiry::One),
    };
    match meta.kind {
        StateKind::Value | StateKind::Reducing | StateKind::Aggregating => {
            line.value = Some(Value::One(schema(0)?.written(entry.value)));
        }
        StateKind::List => {
            let list = List::new(schema(0)?, entry)?;
            line.expiry = entry.expiry.is_some().then_some(Expiry::List(list.expiries.clone()));
            line.value = Some(Value::List(list));
        }
        StateKind::Map => {
            line.map_key = entry.sub_key.map(|key| Ok::<_, String>(schema(0)?.written(key))).transpose()?;
            line.value = Some(Value::One(schema(1)?.written(entry.value)));
        }
        StateKind::Timer => {
            let time = entry.sub_key.and_then(|time| time.try_into().ok()).map(u64::from_be_bytes);
            line.timer = Some(time.ok_or("a timer has no time")?);
        }
    }
    serde_json::to_string(&line).map_err(|why| why.to_string())
}

/// The elements of a list, where it expires with the time of each.
struct List<'a> {
    schema: &'a Schema,
    elements: Vec<&'a [u8]>,
    expiries: Vec<u64>,
}

impl<'a> List<'a> {
    fn new(schema: &'a Schema, entry: &Entry<'a>) -> Result<Self, String> {
        let mut list = Self { schema, elements: Vec::new(), expiries: Vec::new() };
        let mut cursor = Cursor::new(entry.value);
        while !cursor.is_empty() {
            if entry.expiry.is_some() {
                list.expiries.push(cursor.u64("an element's expiry").map_err(|error| error.message)?);
            }
            list.elements.push(cursor.bytes("a list's element").map_err(|error| error.message)?);
        }
        Ok(list)
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.elements.len()))?;
        for element in &self.elements {
            list.serialize_element(&self.schema.written(element))?;
        }
        list.end()
    }
}
