//! Writing a snapshot as a stream.

use std::io;

use crc32fast::Hasher;
use millrace_core::{Error, Result};

use super::{
    END_MAGIC, Entry, HAS_EXPIRY, HAS_NAMESPACE, HAS_SUB_KEY, HAS_TIMER_DOMAIN, HEADER_START, MAGIC, SAME_KEY, Section,
    SnapshotHeader, VERSION,
    wire::{put_bytes, put_varint},
};

/// Entries are gathered up to this many bytes before they are handed to the sink.
const BUFFER: usize = 64 << 10;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The size in bytes.
    pub size: u64,
    /// The CRC-32 of all bytes.
    pub crc32: u32,
}

/// A bound on the entries of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSizeLimit {
    /// In bytes.
    pub bytes: u64,
    /// The operator's name, for the message.
    pub operator: String,
    /// The subtask, for the message.
    pub subtask: u32,
}

/// Writes a snapshot: entries in order, then [`Self::finish`].
pub struct SnapshotWriter<'a> {
    sink: &'a mut dyn io::Write,
    uid: String,
    names: Vec<(u16, String)>,
    limit: Option<StateSizeLimit>,
    written: u64,
    file: Hasher,
    /// Over header, footer and the trailer's start.
    frame: Hasher,
    sections: Vec<Section>,
    open: Option<OpenSection>,
    /// Bytes of all sections of the open section's state.
    state_bytes: u64,
}

/// The section that is being written.
struct OpenSection {
    state: u16,
    key_group: u16,
    offset: u64,
    length: u64,
    entries: u64,
    crc: Hasher,
    buffer: Vec<u8>,
    last: Last,
}

/// The address of the entry before.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Last {
    key: Vec<u8>,
    namespace: Option<Vec<u8>>,
    timer_domain: Option<u8>,
    sub_key: Option<Vec<u8>>,
}

impl<'a> SnapshotWriter<'a> {
    /// Writes the header.
    pub fn new(sink: &'a mut dyn io::Write, header: &SnapshotHeader) -> Result<Self> {
        let mut writer = Self {
            sink,
            uid: header.uid.0.clone(),
            names: header.states.iter().map(|state| (state.id, state.name.clone())).collect(),
            limit: None,
            written: 0,
            file: Hasher::new(),
            frame: Hasher::new(),
            sections: Vec::new(),
            open: None,
            state_bytes: 0,
        };
        let header = header.encode()?;
        let length = u32::try_from(header.len())
            .map_err(|_| Error::invalid(format!("the header of the snapshot of {} exceeds 4 GiB", writer.uid)))?;
        let mut start = Vec::with_capacity(HEADER_START);
        start.extend_from_slice(&MAGIC);
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&length.to_le_bytes());
        for part in [&start[..], &header] {
            writer.frame.update(part);
            writer.write(part)?;
        }
        Ok(writer)
    }

    /// Refuses states that are larger. The size is known, and told, only once all of the state has been seen.
    pub fn limit_state_size(&mut self, limit: StateSizeLimit) {
        self.limit = Some(limit);
    }

    /// Writes an entry. Entries must be ordered by state, key group and the entry's own fields.
    pub fn entry(&mut self, state: u16, key_group: u16, entry: &Entry<'_>) -> Result<()> {
        if self.open.as_ref().is_none_or(|open| (open.state, open.key_group) != (state, key_group)) {
            self.open_section(state, key_group)?;
        }
        let Some(open) = &mut self.open else { return Err(Error::internal("a snapshot's section is not open")) };
        let same_key = open.entries > 0 && open.last.key == entry.key;
        if open.entries > 0 && !open.last.is_before(entry) {
            return Err(Error::internal(format!(
                "entries of state {state}, key group {key_group} of operator {} come out of order: {entry:?}",
                self.uid
            )));
        }
        encode_entry(entry, same_key, &mut open.buffer);
        open.entries += 1;
        open.last.set(entry);
        if open.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes what is left, footer and trailer.
    pub fn finish(mut self) -> Result<SnapshotSummary> {
        self.close_section()?;
        self.check_state_size()?;
        let mut footer = Vec::with_capacity(self.sections.len() * super::SECTION_SIZE + super::TRAILER_SIZE);
        for section in &self.sections {
            footer.extend_from_slice(&section.state.to_le_bytes());
            footer.extend_from_slice(&section.key_group.to_le_bytes());
            footer.extend_from_slice(&section.length.to_le_bytes());
            footer.extend_from_slice(&section.entries.to_le_bytes());
            footer.extend_from_slice(&section.crc32.to_le_bytes());
        }
        footer.extend_from_slice(&self.written.to_le_bytes());
        self.frame.update(&footer);
        footer.extend_from_slice(&self.frame.clone().finalize().to_le_bytes());
        footer.extend_from_slice(&END_MAGIC);
        self.write(&footer)?;
        self.sink.flush().map_err(|error| cannot_write(&self.uid, &error))?;
        Ok(SnapshotSummary { size: self.written, crc32: self.file.finalize() })
    }

    fn open_section(&mut self, state: u16, key_group: u16) -> Result<()> {
        self.close_section()?;
        if let Some(last) = self.sections.last() {
            if (last.state, last.key_group) >= (state, key_group) {
                return Err(Error::internal(format!(
                    "state {state}, key group {key_group} of operator {} comes out of order",
                    self.uid
                )));
            }
            if last.state != state {
                self.check_state_size()?;
                self.state_bytes = 0;
            }
        }
        let offset = self.written;
        let (crc, buffer, last) = (Hasher::new(), Vec::with_capacity(4 << 10), Last::default());
        self.open = Some(OpenSection { state, key_group, offset, length: 0, entries: 0, crc, buffer, last });
        Ok(())
    }

    fn close_section(&mut self) -> Result<()> {
        self.flush()?;
        let Some(open) = self.open.take() else { return Ok(()) };
        let OpenSection { state, key_group, offset, length, entries, crc, .. } = open;
        self.sections.push(Section { state, key_group, offset, length, entries, crc32: crc.finalize() });
        Ok(())
    }

    /// Hands the gathered entries to the sink, or only counts them where the state is too large anyway.
    fn flush(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let size = open.buffer.len() as u64;
        self.state_bytes += size;
        if self.limit.as_ref().is_none_or(|limit| self.state_bytes <= limit.bytes) {
            open.length += size;
            open.crc.update(&open.buffer);
            self.write(&open.buffer)?;
        }
        open.buffer.clear();
        self.open = Some(open);
        Ok(())
    }

    fn check_state_size(&self) -> Result<()> {
        let (Some(limit), Some(last)) = (&self.limit, self.sections.last()) else { return Ok(()) };
        if self.state_bytes <= limit.bytes {
            return Ok(());
        }
        let name = self.names.iter().find(|(id, _)| *id == last.state).map_or("", |(_, name)| name);
        Err(Error::invalid(format!(
            "state {name:?} of operator {:?} (uid {}), subtask {}, has {} bytes, more than the {} bytes that a snapshot \
             in the jobmanager's memory may have: raise state.backend.memory.max-state-size, or use the filesystem \
             state backend (state.backend: filesystem)",
            limit.operator, self.uid, limit.subtask, self.state_bytes, limit.bytes
        )))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|error| cannot_write(&self.uid, &error))?;
        self.file.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn cannot_write(uid: &str, error: &io::Error) -> Error {
    Error::external(format!("the snapshot of operator {uid} can't be written: {error}"))
}

fn encode_entry(entry: &Entry<'_>, same_key: bool, out: &mut Vec<u8>) {
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    out.push(
        flag(entry.namespace.is_some(), HAS_NAMESPACE)
            | flag(entry.timer_domain.is_some(), HAS_TIMER_DOMAIN)
            | flag(entry.sub_key.is_some(), HAS_SUB_KEY)
            | flag(entry.expiry.is_some(), HAS_EXPIRY)
            | flag(same_key, SAME_KEY),
    );
    if !same_key {
        put_bytes(out, entry.key);
    }
    if let Some(namespace) = entry.namespace {
        put_bytes(out, namespace);
    }
    out.extend(entry.timer_domain);
    if let Some(sub_key) = entry.sub_key {
        put_bytes(out, sub_key);
    }
    if let Some(expiry) = entry.expiry {
        out.extend_from_slice(&expiry.to_le_bytes());
    }
    put_varint(out, entry.value.len() as u64);
    out.extend_from_slice(entry.value);
}

impl Last {
    fn is_before(&self, entry: &Entry<'_>) -> bool {
        let last = (&self.key[..], self.namespace.as_deref(), self.timer_domain, self.sub_key.as_deref());
        last < (entry.key, entry.namespace, entry.timer_domain, entry.sub_key)
    }

    fn set(&mut self, entry: &Entry<'_>) {
        self.key.clear();
        self.key.extend_from_slice(entry.key);
        copy(&mut self.namespace, entry.namespace);
        self.timer_domain = entry.timer_domain;
        copy(&mut self.sub_key, entry.sub_key);
    }
}

/// Copies into the buffer that is there.
fn copy(to: &mut Option<Vec<u8>>, from: Option<&[u8]>) {
    match (to.as_mut(), from) {
        (Some(buffer), Some(bytes)) => {
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        (_, from) => *to = from.map(<[u8]>::to_vec),
    }
}
