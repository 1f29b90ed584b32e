//! Reading a snapshot, all of which is untrusted.

use std::ops::Range;

use bytes::Bytes;
use crc32fast::Hasher;
use millrace_core::{Error, Result, key::KeyGroupRange};

use super::{
    END_MAGIC, Entry, HAS_EXPIRY, HAS_NAMESPACE, HAS_SUB_KEY, HAS_TIMER_DOMAIN, HEADER_START, MAGIC, SAME_KEY,
    SECTION_SIZE, Section, SnapshotBytes, SnapshotHeader, TRAILER_SIZE, VERSION, damaged, wire::Cursor,
};

/// An open snapshot: its header and index were read and verified, its sections are read when they are asked for.
pub struct SnapshotReader {
    bytes: Box<dyn SnapshotBytes>,
    header: SnapshotHeader,
    sections: Vec<Section>,
}

impl SnapshotReader {
    /// Reads header, footer and trailer.
    pub fn open(bytes: impl SnapshotBytes + 'static) -> Result<Self> {
        let frame = Frame::read(&bytes)?;
        let header = SnapshotHeader::decode(&frame.header[HEADER_START..])?;
        let sections = read_sections(&frame, &header)?;
        Ok(Self { bytes: Box::new(bytes), header, sections })
    }

    /// Whose state it holds.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The sections of one state in some key groups, in order.
    pub fn sections(&self, state: u16, range: KeyGroupRange) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.state == state && range.contains(section.key_group))
    }

    /// Says that all sections of one state in some key groups are read next, in order.
    pub fn expect(&self, state: u16, range: KeyGroupRange) {
        let mut sections = self.sections(state, range);
        if let Some(first) = sections.next() {
            let last = sections.last().unwrap_or(first);
            self.bytes.expect(first.offset..last.offset + last.length);
        }
    }

    /// Reads and verifies one section.
    pub fn read(&self, section: &Section) -> Result<SectionReader> {
        let bytes = read_exactly(&*self.bytes, section.offset..section.offset + section.length)?;
        let name = self.header.states.iter().find(|state| state.id == section.state).map(|state| state.name.as_str());
        let what = format!("key group {} of state {:?}", section.key_group, name.unwrap_or_default());
        if crc32fast::hash(&bytes) != section.crc32 {
            return Err(damaged(format_args!("the checksum of {what} is wrong")));
        }
        Ok(SectionReader { bytes, what, at: 0, left: section.entries, last: None })
    }
}

fn read_exactly(bytes: &(impl SnapshotBytes + ?Sized), range: Range<u64>) -> Result<Bytes> {
    let read = bytes.read(range.clone())?;
    if read.len() as u64 != range.end - range.start {
        let (wanted, got) = (range.end - range.start, read.len());
        return Err(damaged(format_args!("{got} bytes were read at {} instead of {wanted}", range.start)));
    }
    Ok(read)
}

/// What is around the sections, verified by its checksum.
struct Frame {
    header: Bytes,
    footer: Bytes,
    footer_offset: u64,
}

impl Frame {
    fn read(bytes: &impl SnapshotBytes) -> Result<Self> {
        let size = bytes.size();
        let trailer_at = size.checked_sub(TRAILER_SIZE as u64).filter(|at| *at >= HEADER_START as u64);
        let trailer_at = trailer_at.ok_or_else(|| damaged(format_args!("{size} bytes are too few")))?;
        let header_end = read_start(&read_exactly(bytes, 0..HEADER_START as u64)?)?;
        let trailer = read_exactly(bytes, trailer_at..size)?;
        let mut cursor = Cursor::new(&trailer);
        let footer_offset = cursor.u64("the trailer")?;
        let checksum = cursor.u32("the trailer")?;
        if cursor.take(END_MAGIC.len() as u64, "the trailer")? != END_MAGIC {
            return Err(damaged("its end is missing (was it cut off?)"));
        }
        if header_end > footer_offset || footer_offset > trailer_at {
            return Err(damaged(format_args!(
                "its header ends at {header_end} and its footer starts at {footer_offset} of {size} bytes"
            )));
        }
        let header = read_exactly(bytes, 0..header_end)?;
        let footer = read_exactly(bytes, footer_offset..trailer_at)?;
        let mut crc = Hasher::new();
        crc.update(&header);
        crc.update(&footer);
        crc.update(&footer_offset.to_le_bytes());
        if crc.finalize() != checksum {
            return Err(damaged("the checksum of its header and footer is wrong"));
        }
        Ok(Self { header, footer, footer_offset })
    }
}

/// Checks magic and version and returns where the header ends.
fn read_start(start: &[u8]) -> Result<u64> {
    let mut cursor = Cursor::new(start);
    if cursor.take(MAGIC.len() as u64, "the header")? != MAGIC {
        return Err(damaged("it does not begin as a snapshot of keyed state does: this is another file"));
    }
    let version = cursor.u32("the header")?;
    if version != VERSION {
        return Err(Error::invalid(format!(
            "the snapshot has version {version} and this Millrace reads version {VERSION}: it was written by another \
             Millrace, or is damaged"
        )));
    }
    Ok(HEADER_START as u64 + u64::from(cursor.u32("the header")?))
}

fn read_sections(frame: &Frame, header: &SnapshotHeader) -> Result<Vec<Section>> {
    if !frame.footer.len().is_multiple_of(SECTION_SIZE) {
        return Err(damaged(format_args!("its footer has {} bytes", frame.footer.len())));
    }
    let mut cursor = Cursor::new(&frame.footer);
    let mut sections: Vec<Section> = Vec::with_capacity(frame.footer.len() / SECTION_SIZE);
    let mut offset = frame.header.len() as u64;
    while !cursor.is_empty() {
        let what = "the footer";
        let (state, key_group) = (cursor.u16(what)?, cursor.u16(what)?);
        let (length, entries, crc32) = (cursor.u64(what)?, cursor.u64(what)?, cursor.u32(what)?);
        let known = header.states.iter().any(|s| s.id == state) && header.range.contains(key_group);
        let ordered = sections.last().is_none_or(|last| (last.state, last.key_group) < (state, key_group));
        let end = offset.checked_add(length).filter(|end| *end <= frame.footer_offset);
        let (true, true, Some(end)) = (known, ordered, end) else {
            return Err(damaged(format_args!(
                "its footer places {length} bytes of key group {key_group}, state {state} at {offset}"
            )));
        };
        sections.push(Section { state, key_group, offset, length, entries, crc32 });
        offset = end;
    }
    if offset != frame.footer_offset {
        return Err(damaged(format_args!(
            "its sections end at {offset}, its footer starts at {}",
            frame.footer_offset
        )));
    }
    Ok(sections)
}

/// The entries of a section, in order.
pub struct SectionReader {
    bytes: Bytes,
    what: String,
    at: usize,
    left: u64,
    last: Option<LastEntry>,
}

/// Where the address of the entry before lies in the section.
struct LastEntry {
    key: Range<usize>,
    namespace: Option<Range<usize>>,
    timer_domain: Option<u8>,
    sub_key: Option<Range<usize>>,
}

impl SectionReader {
    /// The next entry, or `None` behind the last.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows from the reader, which Iterator can't say")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        if self.at == self.bytes.len() && self.left == 0 {
            return Ok(None);
        }
        let wrong = |why: &str| damaged(format_args!("{}: {why}", self.what));
        self.left = self.left.checked_sub(1).ok_or_else(|| wrong("more entries than its footer says"))?;
        let mut cursor = Cursor::at(&self.bytes, self.at);
        let (entry, place) = read_entry(&mut cursor, &self.bytes, self.last.as_ref())
            .map_err(|error| error.context(format_args!("in {}", self.what)))?;
        if let Some(last) = &self.last {
            let slice = |range: &Range<usize>| &self.bytes[range.clone()];
            let before = (
                slice(&last.key),
                last.namespace.as_ref().map(slice),
                last.timer_domain,
                last.sub_key.as_ref().map(slice),
            );
            if before >= (entry.key, entry.namespace, entry.timer_domain, entry.sub_key) {
                return Err(wrong("its entries are out of order"));
            }
        }
        self.at = cursor.position();
        self.last = Some(place);
        Ok(Some(entry))
    }
}

fn read_entry<'a>(
    cursor: &mut Cursor<'a>,
    section: &'a [u8],
    last: Option<&LastEntry>,
) -> Result<(Entry<'a>, LastEntry)> {
    let flags = cursor.u8("an entry's flags")?;
    if flags & !(HAS_NAMESPACE | HAS_TIMER_DOMAIN | HAS_SUB_KEY | HAS_EXPIRY | SAME_KEY) != 0 {
        return Err(damaged(format_args!("an entry has the unknown flags {flags:#04x}")));
    }
    let key = if flags & SAME_KEY != 0 {
        last.map(|last| last.key.clone()).ok_or_else(|| damaged("its first entry has no key"))?
    } else {
        let key = range_of(cursor, "a key")?;
        if last.is_some_and(|last| section[last.key.clone()] == section[key.clone()]) {
            return Err(damaged("a key is written twice"));
        }
        key
    };
    let namespace = if flags & HAS_NAMESPACE != 0 { Some(range_of(cursor, "a namespace")?) } else { None };
    let timer_domain = if flags & HAS_TIMER_DOMAIN != 0 { Some(cursor.u8("a timer's domain")?) } else { None };
    let sub_key = if flags & HAS_SUB_KEY != 0 { Some(range_of(cursor, "a sub key")?) } else { None };
    let expiry = if flags & HAS_EXPIRY != 0 { Some(cursor.u64("an expiry")?) } else { None };
    let value = cursor.bytes("a value")?;
    let slice = |range: &Range<usize>| &section[range.clone()];
    let entry = Entry {
        key: slice(&key),
        namespace: namespace.as_ref().map(slice),
        timer_domain,
        sub_key: sub_key.as_ref().map(slice),
        expiry,
        value,
    };
    Ok((entry, LastEntry { key, namespace, timer_domain, sub_key }))
}

/// Where the bytes lie that are next.
fn range_of(cursor: &mut Cursor<'_>, what: &str) -> Result<Range<usize>> {
    let length = cursor.bytes(what)?.len();
    Ok(cursor.position() - length..cursor.position())
}
