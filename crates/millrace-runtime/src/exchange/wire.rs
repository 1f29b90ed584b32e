//! A batch as bytes, for edges that cross processes. All numbers but one are postcard varints:
//!
//! ```text
//! flags: u8            1 = keys follow, 2 = an origin follows
//! count: varint        how many records
//! origin: varint + UTF-8                    where flagged
//! section: u32 LE      the length of the records' section, at least `count`
//! records              postcard, one after another, padded with zeros up to `count` bytes
//! keys: count x (varint + bytes)            where flagged
//! ```
//!
//! The padding matters only for records that encode to nothing, such as `()`: with it a count is always bounded by
//! bytes that really arrived. Hashes are computed again: murmur3 of a key is cheaper than eight more bytes a record on
//! the wire, and a hash that disagrees with its key can't arrive.

use std::sync::Arc;

use millrace_core::{
    Batch, Error, Record, RecordBatch, Result, codec,
    key::{KeyColumn, KeyHash},
};

const KEYED: u8 = 1;
const WITH_ORIGIN: u8 = 2;

pub(super) fn encode<T: Record>(batch: &Batch, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
    let typed = batch.as_typed::<T>().ok_or_else(|| {
        let wanted = std::any::type_name::<T>();
        Error::internal(format!("an edge of {wanted} was given a {batch:?}")).fatal()
    })?;
    let count = u32::try_from(typed.records.len())
        .map_err(|_| Error::invalid(format!("a batch of {} records is too large to be sent", typed.records.len())))?;
    let keyed = if typed.keys.is_some() { KEYED } else { 0 };
    buffer.push(keyed | if typed.origin.is_some() { WITH_ORIGIN } else { 0 });
    buffer = codec::encode_into(&count, buffer)?;
    if let Some(origin) = &typed.origin {
        buffer = codec::encode_into(&**origin, buffer)?;
    }
    buffer = encode_records(&typed.records, buffer)?;
    if let Some(keys) = &typed.keys {
        for index in 0..keys.len() {
            let key = keys.key(index);
            buffer = codec::encode_into(&(key.len() as u32), buffer)?;
            buffer.extend_from_slice(key);
        }
    }
    Ok(buffer)
}

/// How many records an encoded batch says it has.
pub(crate) fn encoded_records(bytes: &[u8]) -> usize {
    let count = bytes.get(1..).and_then(|bytes| codec::decode_front::<u32>(bytes).ok());
    count.map_or(0, |(count, _)| count as usize)
}

fn encode_records<T: Record>(records: &[T], mut buffer: Vec<u8>) -> Result<Vec<u8>> {
    let start = buffer.len() + 4;
    buffer.extend_from_slice(&[0; 4]);
    for record in records {
        buffer = codec::encode_into(record, buffer)?;
    }
    let end = buffer.len().max(start + records.len());
    buffer.resize(end, 0);
    let length = u32::try_from(end - start)
        .map_err(|_| Error::invalid(format!("a batch of {} bytes is too large to be sent", end - start)))?;
    buffer[start - 4..start].copy_from_slice(&length.to_le_bytes());
    Ok(buffer)
}

pub(super) fn decode<T: Record>(bytes: &[u8]) -> Result<RecordBatch<T>> {
    let (&flags, bytes) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
    if flags & !(KEYED | WITH_ORIGIN) != 0 {
        return Err(damaged(format_args!("flags {flags:#04x} are unknown")));
    }
    let (count, bytes) = codec::decode_front::<u32>(bytes)?;
    let (origin, bytes) = if flags & WITH_ORIGIN != 0 {
        let (origin, rest) = codec::decode_front::<String>(bytes)?;
        (Some(Arc::from(origin)), rest)
    } else {
        (None, bytes)
    };
    let (length, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| damaged("it ends within its header"))?;
    let (section, rest) = take(u32::from_le_bytes(*length) as usize, bytes)?;
    let records = decode_records(count as usize, section)?;
    let (keys, rest) = if flags & KEYED != 0 {
        let (keys, rest) = decode_keys(records.len(), rest)?;
        (Some(keys), rest)
    } else {
        (None, rest)
    };
    if !rest.is_empty() {
        return Err(damaged(format_args!("{} bytes are left over", rest.len())));
    }
    Ok(RecordBatch { records, keys, origin })
}

fn decode_records<T: Record>(count: usize, mut section: &[u8]) -> Result<Vec<T>> {
    if count > section.len() {
        return Err(damaged(format_args!("{count} records can't be in {} bytes", section.len())));
    }
    let padded = section.len() == count;
    // Records in memory may be far larger than their bytes: what is reserved ahead follows from the bytes that are
    // there, beyond an ordinary batch.
    let mut records = Vec::with_capacity(count.min((section.len() / size_of::<T>().max(1)).max(4096)));
    for _ in 0..count {
        let (record, rest) = codec::decode_front(section)?;
        records.push(record);
        section = rest;
    }
    let padding = padded && section.iter().all(|&byte| byte == 0);
    if !padding && !section.is_empty() {
        return Err(damaged(format_args!("{} bytes follow its records", section.len())));
    }
    Ok(records)
}

fn decode_keys(count: usize, mut bytes: &[u8]) -> Result<(KeyColumn, &[u8])> {
    let mut keys = KeyColumn::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let (length, rest) = codec::decode_front::<u32>(bytes)?;
        let (key, rest) = take(length as usize, rest)?;
        keys.push_encoded(KeyHash::of(key), key)?;
        bytes = rest;
    }
    Ok((keys, bytes))
}

fn take(length: usize, bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    bytes
        .split_at_checked(length)
        .ok_or_else(|| damaged(format_args!("{length} bytes are promised, {} are there", bytes.len())))
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::internal(format!("a batch from a peer can't be decoded: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Event {
        name: String,
        values: Vec<i64>,
        note: Option<Box<Event>>,
    }

    fn event() -> impl Strategy<Value = Event> {
        (".{0,12}", prop::collection::vec(any::<i64>(), 0..4), any::<bool>()).prop_map(|(name, values, noted)| {
            let note = noted.then(|| Box::new(Event { name: "note".into(), values: vec![1], note: None }));
            Event { name, values, note }
        })
    }

    fn batch() -> impl Strategy<Value = RecordBatch<Event>> {
        (prop::collection::vec(event(), 0..20), any::<bool>(), prop::option::of(".{0,20}")).prop_map(
            |(records, keyed, origin)| {
                let mut keys = KeyColumn::default();
                for record in &records {
                    keys.push(&record.name).unwrap();
                }
                RecordBatch { records, keys: keyed.then_some(keys), origin: origin.map(Arc::from) }
            },
        )
    }

    fn encoded(batch: &RecordBatch<Event>) -> Vec<u8> {
        encode::<Event>(&Batch::new(batch.clone()), Vec::new()).unwrap()
    }

    fn assert_same(left: &RecordBatch<Event>, right: &RecordBatch<Event>) {
        assert_eq!(left.records, right.records);
        assert_eq!(left.keys, right.keys);
        assert_eq!(left.origin, right.origin);
    }

    proptest! {
        #[test]
        fn a_batch_is_read_as_it_was_written(batch in batch()) {
            assert_same(&batch, &decode(&encoded(&batch)).unwrap());
            prop_assert_eq!(encoded_records(&encoded(&batch)), batch.records.len());
        }

        #[test]
        fn a_truncated_batch_is_refused(batch in batch(), at in any::<prop::sample::Index>()) {
            let bytes = encoded(&batch);
            prop_assert!(decode::<Event>(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn flipped_bits_never_panic(batch in batch(), flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
            let mut bytes = encoded(&batch);
            for flip in flips {
                let bit = flip.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let _ = decode::<Event>(&bytes);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Event>(&bytes);
            let _ = decode::<()>(&bytes);
        }
    }

    #[test]
    fn records_without_bytes_are_counted() {
        let bytes = encode::<()>(&Batch::new(RecordBatch::new(vec![(); 300], None)), Vec::new()).unwrap();
        assert_eq!(decode::<()>(&bytes).unwrap().records.len(), 300);
    }

    #[test]
    fn a_count_that_its_bytes_cannot_hold_is_refused() {
        let mut bytes = vec![0];
        bytes.extend(codec::encode(&u32::MAX).unwrap());
        bytes.extend([0; 4]);
        assert!(decode::<()>(&bytes).unwrap_err().message.contains("4294967295 records"));
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = encode::<String>(&Batch::new(RecordBatch::new(vec![1u8], None)), Vec::new()).unwrap_err();
        assert!(error.message.contains("String") && error.message.contains("u8"), "{error}");
    }
}
