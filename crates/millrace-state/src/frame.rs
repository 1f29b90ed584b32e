//! What files of a checkpoint have around what they hold.
//!
//! ```text
//! magic, 8 bytes | version u32 | payload length u64 | payload | CRC-32 u32 of all before
//! ```
//!
//! Numbers are little-endian.

use std::ops::RangeInclusive;

pub(crate) const HEADER: usize = 8 + 4 + 8;
pub(crate) const TRAILER: usize = 4;

/// A kind of file.
pub(crate) struct Frame {
    pub magic: &'static [u8; 8],
    /// What the file is, for messages.
    pub what: &'static str,
    /// The format versions that this program reads.
    pub versions: RangeInclusive<u32>,
}

impl Frame {
    /// What the file begins with.
    pub(crate) fn header(&self, version: u32, payload_length: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(self.magic);
        header[8..12].copy_from_slice(&version.to_le_bytes());
        header[12..].copy_from_slice(&payload_length.to_le_bytes());
        header
    }

    /// Takes version and payload out of a whole file. Anything else is refused with what it is: `torn: …`.
    pub(crate) fn unframe<'a>(&self, bytes: &'a [u8]) -> Result<(u32, &'a [u8]), String> {
        if bytes.len() < HEADER + TRAILER {
            return Err(format!("torn: it has {} bytes", bytes.len()));
        }
        let (framed, crc) = bytes.split_at(bytes.len() - TRAILER);
        let (header, payload) = framed.split_at(HEADER);
        let (magic, numbers) = header.split_at(self.magic.len());
        let (version, length) = numbers.split_at(4);
        if magic != self.magic {
            return Err(format!("not {}", self.what));
        }
        let version = u32::from_le_bytes(version.try_into().unwrap_or_default());
        if !self.versions.contains(&version) {
            return Err(format!("of format version {version}, and this program reads up to {}", self.versions.end()));
        }
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if length != payload.len() as u64 {
            return Err(format!("torn: {length} bytes were written, {} are there", payload.len()));
        }
        if crc != crc32fast::hash(framed).to_le_bytes() {
            return Err("damaged: its checksum is wrong".to_string());
        }
        Ok((version, payload))
    }
}
