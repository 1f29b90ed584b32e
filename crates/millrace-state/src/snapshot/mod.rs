//! The snapshot format, version 1: the keyed state of one subtask of one operator as a stream of entries. Every backend
//! writes it and reads it, so a checkpoint of one restores on any other and at another parallelism.
//!
//! All fixed-width numbers are little-endian. A *varint* is an unsigned LEB128 number in its shortest form. *bytes* and
//! *text* are a `u32` length and that many bytes; text is UTF-8. Nothing lies between the parts, and there are no unused
//! bytes.
//!
//! | part | field | bytes |
//! |---|---|---|
//! | **header** | magic `MLRCSNAP` | 8 |
//! | | version, 1 | 4 |
//! | | length of what follows of the header | 4 |
//! | | operator uid | text |
//! | | maximum parallelism, 1 to 32768 | 4 |
//! | | first and last key group | 2 + 2 |
//! | | number of states | 2 |
//! | | *each state*, ids ascending: id | 2 |
//! | | name, unique | text |
//! | | kind: 1 value, 2 list, 3 map, 4 reducing, 5 aggregating, 6 timer; others are free | 1 |
//! | | 1 and the key's schema, or 0 | 1 (+ text) |
//! | | number of schemas: 2 for a map (key, value), 0 for timers, otherwise 1 | 1 |
//! | | the schemas, JSON | text each |
//! | **entries** | *each entry*: flags: 1 namespace, 2 timer domain, 4 sub key, 8 expiry, 16 key as before; others 0 | 1 |
//! | | key, unless flagged as the entry's before | varint + bytes |
//! | | namespace, where flagged | varint + bytes |
//! | | timer domain, where flagged | 1 |
//! | | sub key, where flagged: the key of a map's entry | varint + bytes |
//! | | expiry, where flagged: milliseconds since the epoch | 8 |
//! | | value | varint + bytes |
//! | **footer** | *each section*, the entries of one state and key group; not empty: state id | 2 |
//! | | key group | 2 |
//! | | length in bytes | 8 |
//! | | number of entries | 8 |
//! | | CRC-32 of its bytes | 4 |
//! | **trailer** | offset of the footer | 8 |
//! | | CRC-32 of header, footer and the trailer's first 8 bytes | 4 |
//! | | magic `MLRCSEND` | 8 |
//!
//! Sections follow one another without gaps from the header's end to the footer, ordered by state id and key group; so a
//! section's offset is the sum of the lengths before it, and a restore reads only the key groups that it needs. Within a
//! section entries are ordered by key, namespace, timer domain and sub key, each compared as bytes, a missing part before
//! any other; no two are equal. Keys, sub keys and values are postcard encodings of the types whose schemas stand in the
//! header. A list is one value: each element as varint length and encoding, before that its expiry (8 bytes) where the
//! entry has one. A timer's sub key is its time, big-endian. A state without entries is in the header and has no section.
//!
//! Whatever is read is untrusted: truncation, flipped bits, foreign files and absurd lengths are errors that say what is
//! damaged.

mod header;
mod reader;
mod source;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub use header::{SnapshotHeader, StateKind, StateMeta};
pub use reader::{SectionReader, SnapshotReader};
pub use source::SnapshotBytes;
pub(crate) use wire::{Cursor, put_bytes};
pub use writer::{SnapshotSummary, SnapshotWriter, StateSizeLimit};

use millrace_core::Error;

/// The version that is written.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"MLRCSNAP";
const END_MAGIC: [u8; 8] = *b"MLRCSEND";
/// Magic, version and length of the rest of the header.
const HEADER_START: usize = 16;
const SECTION_SIZE: usize = 24;
const TRAILER_SIZE: usize = 20;

const HAS_NAMESPACE: u8 = 1;
const HAS_TIMER_DOMAIN: u8 = 2;
const HAS_SUB_KEY: u8 = 4;
const HAS_EXPIRY: u8 = 8;
const SAME_KEY: u8 = 16;

/// One entry of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The encoded key.
    pub key: &'a [u8],
    /// The encoded namespace, such as a window.
    pub namespace: Option<&'a [u8]>,
    /// Whose time a timer waits for.
    pub timer_domain: Option<u8>,
    /// The encoded key of a map's entry.
    pub sub_key: Option<&'a [u8]>,
    /// When the entry expires, milliseconds since the epoch.
    pub expiry: Option<u64>,
    /// The encoded value.
    pub value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// An entry of a value, list or map state.
    pub fn new(key: &'a [u8], sub_key: Option<&'a [u8]>, value: &'a [u8]) -> Self {
        Self { key, namespace: None, timer_domain: None, sub_key, expiry: None, value }
    }
}

/// The entries of one state and key group in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The state's id in this snapshot.
    pub state: u16,
    /// The key group.
    pub key_group: u16,
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// How many entries it has.
    pub entries: u64,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
}

/// What is wrong with bytes that were read. Reading them again gives the same: not to be retried.
fn damaged(what: impl std::fmt::Display) -> Error {
    Error::external(format!("the snapshot is damaged: {what}")).fatal()
}
