//! How entries are laid out in RocksDB, whose order of keys is the order of entries.
//!
//! ```text
//! key:   state u16 | key group u16 | key, 00 as 00 01 | 00 00 | 01 and sub key, where there is one
//! value: 00 | value,  or  01 | expiry u64 | value
//! ```
//!
//! Numbers of keys are big-endian. All states are in one column family: files and cuts are then shared by them, where
//! each column family would have its own.

use millrace_core::{Error, Result};
use millrace_state::backend::{StateKey, StoredValue};

const HEAD: usize = 4;
const SUB_KEY: u8 = 1;

/// Replaces `out` by the key of an entry.
pub(crate) fn encode_key(at: StateKey<'_>, out: &mut Vec<u8>) {
    encode_prefix(at, out);
    if let Some(sub_key) = at.sub_key {
        out.push(SUB_KEY);
        out.extend_from_slice(sub_key);
    }
}

/// Replaces `out` by what the keys of all entries of a state's key begin with.
pub(crate) fn encode_prefix(at: StateKey<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&at.state.to_be_bytes());
    out.extend_from_slice(&at.key_group.to_be_bytes());
    let mut parts = at.key.split(|byte| *byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0, 0]);
}

/// The bounds of the entries with sub keys behind a prefix.
pub(crate) fn sub_key_bounds(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([prefix, &[SUB_KEY]].concat(), [prefix, &[SUB_KEY + 1]].concat())
}

/// The sub key in a key that lies between [`sub_key_bounds`] of this prefix.
pub(crate) fn sub_key_behind<'a>(prefix: &[u8], key: &'a [u8]) -> &'a [u8] {
    key.get(prefix.len() + 1..).unwrap_or_default()
}

/// The first key of a state's key group.
pub(crate) fn key_group_start(state: u16, key_group: u16) -> [u8; HEAD] {
    let ([a, b], [c, d]) = (state.to_be_bytes(), key_group.to_be_bytes());
    [a, b, c, d]
}

/// The first key behind a state's key group; group numbers end far below the highest.
pub(crate) fn key_group_end(state: u16, key_group: u16) -> [u8; HEAD] {
    u32::from_be_bytes(key_group_start(state, key_group)).saturating_add(1).to_be_bytes()
}

/// The key group in a key; `None` if it is none of our keys.
pub(crate) fn key_group_of(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(2..HEAD)?.try_into().ok()?))
}

/// The end of the part of a key that is the same for all entries of a state's key; `None` if it is none of our keys.
fn prefix_length(key: &[u8]) -> Option<usize> {
    let mut at = HEAD;
    loop {
        at += key.get(at..)?.iter().position(|byte| *byte == 0)?;
        match key.get(at + 1)? {
            0 => return Some(at + 2),
            _ => at += 2,
        }
    }
}

/// That part; for RocksDB's prefix filters.
pub(crate) fn prefix_of(key: &[u8]) -> &[u8] {
    &key[..prefix_length(key).unwrap_or(key.len())]
}

/// Whether a key has it.
pub(crate) fn has_prefix(key: &[u8]) -> bool {
    prefix_length(key).is_some()
}

/// The key (put into `scratch`) and the sub key of an entry.
pub(crate) fn decode_key<'a>(key: &'a [u8], scratch: &mut Vec<u8>) -> Result<Option<&'a [u8]>> {
    let foreign = || Error::external("the local state is damaged: it has a key that Millrace didn't write");
    let end = prefix_length(key).ok_or_else(foreign)?;
    scratch.clear();
    let mut escaped = &key[HEAD..end - 2];
    while let Some(zero) = escaped.iter().position(|byte| *byte == 0) {
        scratch.extend_from_slice(&escaped[..=zero]);
        escaped = &escaped[zero + 2..];
    }
    scratch.extend_from_slice(escaped);
    match &key[end..] {
        [] => Ok(None),
        [SUB_KEY, sub_key @ ..] => Ok(Some(sub_key)),
        _ => Err(foreign()),
    }
}

/// Replaces `out` by an entry's value.
pub(crate) fn encode_value(value: &[u8], expiry: Option<u64>, out: &mut Vec<u8>) {
    out.clear();
    match expiry {
        None => out.push(0),
        Some(expiry) => {
            out.push(1);
            out.extend_from_slice(&expiry.to_le_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// The value and the expiry of an entry.
pub(crate) fn decode_value(stored: &[u8]) -> Result<(&[u8], Option<u64>)> {
    match stored {
        [0, value @ ..] => Ok((value, None)),
        [1, rest @ ..] if rest.len() >= 8 => {
            let (expiry, value) = rest.split_at(8);
            Ok((value, Some(u64::from_le_bytes(expiry.try_into().unwrap_or_default()))))
        }
        _ => Err(Error::external("the local state is damaged: it has a value that Millrace didn't write")),
    }
}

/// Reads an entry of a database as it stands in its files, and panics where it would be written otherwise. For fuzzing:
/// checkpoints carry such files.
#[doc(hidden)]
pub fn check_entry(key: &[u8], value: &[u8]) -> Result<()> {
    let (mut state_key, mut again) = (Vec::new(), Vec::new());
    let (prefix, sub_key) = (prefix_of(key), decode_key(key, &mut state_key)?);
    let state = u16::from_be_bytes([key[0], key[1]]);
    let key_group = key_group_of(key).ok_or_else(|| Error::internal("a key without a key group"))?;
    encode_key(StateKey { state, key_group, key: &state_key, sub_key }, &mut again);
    // Of a zero in a key, what escapes it is not looked at.
    assert_eq!(again.len(), key.len());
    assert!(has_prefix(key) && key.starts_with(prefix));
    let (plain, expiry) = decode_value(value)?;
    encode_value(plain, expiry, &mut again);
    assert_eq!(again, value);
    Ok(())
}

pub(crate) fn stored_value(stored: &[u8]) -> Result<StoredValue> {
    let (value, expiry) = decode_value(stored)?;
    Ok(StoredValue { value: value.to_vec(), expiry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(at: StateKey<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(at, &mut out);
        out
    }

    #[test]
    fn the_order_of_keys_is_the_order_of_entries() {
        let keys: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"\0\x01", b"\x01", b"a", b"a\0", b"a\0b", b"aa"];
        let sub_keys: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"\0"), Some(b"\0\0x")];
        let mut all = Vec::new();
        for (state, key_group) in [(0, 0), (0, 1), (0, 256), (1, 0), (u16::MAX, u16::MAX)] {
            for key in keys {
                all.extend(sub_keys.map(|sub_key| StateKey { state, key_group, key, sub_key }));
            }
        }
        for a in &all {
            for b in &all {
                assert_eq!(encoded(*a).cmp(&encoded(*b)), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for key in [b"".as_slice(), b"\0", b"\0\0\x01\0", b"abc", b"a\0"] {
            for sub_key in [None, Some(b"".as_slice()), Some(b"\0\0")] {
                let at = StateKey { state: 7, key_group: 300, key, sub_key };
                let (bytes, mut read, mut prefix) = (encoded(at), vec![9], Vec::new());
                assert_eq!(decode_key(&bytes, &mut read).unwrap(), sub_key);
                assert_eq!(read, key);
                encode_prefix(at, &mut prefix);
                assert!(has_prefix(&bytes));
                assert_eq!(prefix_of(&bytes), prefix);
                let (start, end) = (key_group_start(7, 300), key_group_end(7, 300));
                assert_eq!(key_group_of(&bytes), Some(300));
                assert!(start.as_slice() < &bytes[..] && bytes[..] < end[..]);
            }
        }
    }

    #[test]
    fn foreign_keys_and_values_are_refused() {
        for key in [b"".as_slice(), b"abc", b"abcd", b"abcdef\0", b"abcd\0\x01", b"abcd\0\0\x02"] {
            assert!(decode_key(key, &mut Vec::new()).is_err(), "{key:?}");
        }
        for value in [b"".as_slice(), b"\x02", b"\x01short"] {
            assert!(decode_value(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_value_keeps_its_expiry() {
        for expiry in [None, Some(0), Some(u64::MAX)] {
            let mut bytes = Vec::new();
            encode_value(b"value", expiry, &mut bytes);
            assert_eq!(stored_value(&bytes).unwrap(), StoredValue { value: b"value".to_vec(), expiry });
        }
    }
}
