//! What stands at the head of a snapshot.

use millrace_core::{
    Error, Result,
    ids::OperatorUid,
    key::{HIGHEST_MAX_PARALLELISM, KeyGroupRange},
    schema::Schema,
};

use super::{
    damaged,
    wire::{Cursor, put_text},
};

/// What a state holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// One value.
    Value,
    /// A list.
    List,
    /// A map.
    Map,
    /// One value that others are reduced into.
    Reducing,
    /// One accumulator that values are aggregated in.
    Aggregating,
    /// The timers of an operator.
    Timer,
}

impl StateKind {
    const ALL: [Self; 6] = [Self::Value, Self::List, Self::Map, Self::Reducing, Self::Aggregating, Self::Timer];

    fn code(self) -> u8 {
        match self {
            Self::Value => 1,
            Self::List => 2,
            Self::Map => 3,
            Self::Reducing => 4,
            Self::Aggregating => 5,
            Self::Timer => 6,
        }
    }

    fn schemas(self) -> usize {
        match self {
            Self::Value | Self::List | Self::Reducing | Self::Aggregating => 1,
            Self::Map => 2,
            Self::Timer => 0,
        }
    }
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::List => "list",
            Self::Map => "map",
            Self::Reducing => "reducing",
            Self::Aggregating => "aggregating",
            Self::Timer => "timer",
        })
    }
}

/// A state as its writer knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateMeta {
    /// Its number in this snapshot.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// What it holds for a key.
    pub kind: StateKind,
    /// The schema of the key, where the writer knew it.
    pub key_schema: Option<Schema>,
    /// The schema of the value, of a list's element or of the accumulator; for a map those of its keys and of its values.
    pub schemas: Vec<Schema>,
}

impl std::fmt::Display for StateMeta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} state", self.kind)?;
        for (index, schema) in self.schemas.iter().enumerate() {
            write!(f, "{}{schema}", if index == 0 { " of " } else { " to " })?;
        }
        Ok(())
    }
}

/// Whose state a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The operator.
    pub uid: OperatorUid,
    /// The job's number of key groups.
    pub max_parallelism: u32,
    /// The key groups of the subtask that wrote it.
    pub range: KeyGroupRange,
    /// The states, ordered by id.
    pub states: Vec<StateMeta>,
}

impl SnapshotHeader {
    /// The header after its first [`super::HEADER_START`] bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        put_text(&mut out, &self.uid.0)?;
        out.extend_from_slice(&self.max_parallelism.to_le_bytes());
        out.extend_from_slice(&self.range.start.to_le_bytes());
        out.extend_from_slice(&self.range.end.to_le_bytes());
        let states = u16::try_from(self.states.len())
            .map_err(|_| Error::invalid(format!("operator {} has {} states", self.uid, self.states.len())))?;
        out.extend_from_slice(&states.to_le_bytes());
        for state in &self.states {
            encode_state(state, &mut out)?;
        }
        Ok(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let uid = OperatorUid(cursor.text("the operator's uid")?.to_string());
        let max_parallelism = cursor.u32("the maximum parallelism")?;
        let range = KeyGroupRange { start: cursor.u16("the key groups")?, end: cursor.u16("the key groups")? };
        let bounds = 1..=HIGHEST_MAX_PARALLELISM;
        if !bounds.contains(&max_parallelism) || range.start > range.end || u32::from(range.end) >= max_parallelism {
            return Err(damaged(format_args!(
                "it claims the key groups {} to {} of {max_parallelism}",
                range.start, range.end
            )));
        }
        let count = cursor.u16("the number of states")?;
        let mut states: Vec<StateMeta> = Vec::new();
        for _ in 0..count {
            let state = decode_state(&mut cursor)?;
            if states.last().is_some_and(|last| last.id >= state.id) || states.iter().any(|s| s.name == state.name) {
                return Err(damaged(format_args!("state {:?} (id {}) is there twice", state.name, state.id)));
            }
            states.push(state);
        }
        if !cursor.is_empty() {
            return Err(damaged("bytes are left over behind its states"));
        }
        Ok(Self { uid, max_parallelism, range, states })
    }
}

fn encode_state(state: &StateMeta, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&state.id.to_le_bytes());
    put_text(out, &state.name)?;
    out.push(state.kind.code());
    out.push(u8::from(state.key_schema.is_some()));
    if let Some(schema) = &state.key_schema {
        put_schema(schema, out)?;
    }
    if state.schemas.len() != state.kind.schemas() {
        let (name, count) = (&state.name, state.schemas.len());
        return Err(Error::internal(format!("{} state {name:?} has {count} schemas", state.kind)));
    }
    out.push(state.schemas.len() as u8);
    state.schemas.iter().try_for_each(|schema| put_schema(schema, out))
}

fn decode_state(cursor: &mut Cursor<'_>) -> Result<StateMeta> {
    let id = cursor.u16("a state's id")?;
    let name = cursor.text("a state's name")?.to_string();
    let code = cursor.u8("a state's kind")?;
    let Some(kind) = StateKind::ALL.into_iter().find(|kind| kind.code() == code) else {
        return Err(damaged(format_args!(
            "state {name:?} is of kind {code}, which this version of Millrace doesn't know"
        )));
    };
    let key_schema = match cursor.u8("a key's schema")? {
        0 => None,
        1 => Some(read_schema(cursor, &name)?),
        other => return Err(damaged(format_args!("state {name:?} has {other} key schemas"))),
    };
    let count = usize::from(cursor.u8("the number of schemas")?);
    if count != kind.schemas() {
        return Err(damaged(format_args!("{kind} state {name:?} has {count} schemas")));
    }
    let schemas = (0..count).map(|_| read_schema(cursor, &name)).collect::<Result<_>>()?;
    Ok(StateMeta { id, name, kind, key_schema, schemas })
}

fn put_schema(schema: &Schema, out: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_string(schema)
        .map_err(|error| Error::internal(format!("schema {schema} can't be written: {error}")))?;
    put_text(out, &json)
}

fn read_schema(cursor: &mut Cursor<'_>, state: &str) -> Result<Schema> {
    let json = cursor.text("a schema")?;
    serde_json::from_str(json)
        .map_err(|error| damaged(format_args!("a schema of state {state:?} can't be read: {error}")))
}
