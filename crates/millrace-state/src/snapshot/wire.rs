//! The primitives of the format.

use millrace_core::{Error, Result};

use super::damaged;

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a `u32` length and the text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let length = u32::try_from(text.len())
        .map_err(|_| Error::invalid(format!("a name or schema of {} bytes is too long for a snapshot", text.len())))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads from the front of untrusted bytes.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn cut_off(&self, what: &str, length: u64) -> Error {
        let rest = self.bytes.len() - self.at;
        damaged(format_args!("{what} should have {length} bytes where {rest} are left"))
    }

    pub(super) fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let taken = end.and_then(|end| Some((end, self.bytes.get(self.at..end)?)));
        let (end, taken) = taken.ok_or_else(|| self.cut_off(what, length))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn varint(&mut self, what: &str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            let overflows = shift == 63 && bits > 1;
            let overlong = byte == 0 && shift > 0;
            if overflows || overlong {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged(format_args!("the length of {what} is not a number in its shortest form")))
    }

    /// A varint length and that many bytes.
    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let length = self.varint(what)?;
        self.take(length, what)
    }

    /// A `u32` length and that much UTF-8.
    pub(super) fn text(&mut self, what: &str) -> Result<&'a str> {
        let length = self.u32(what)?;
        let bytes = self.take(u64::from(length), what)?;
        std::str::from_utf8(bytes).map_err(|_| damaged(format_args!("{what} is not UTF-8")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.varint("it").unwrap(), value);
            assert!(cursor.is_empty());
        }
        for wrong in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 11], &[0x80]] {
            assert!(Cursor::new(wrong).varint("it").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        let error = Cursor::new(&bytes).bytes("a key").unwrap_err();
        assert!(error.message.contains("a key"), "{error}");
    }
}
