//! A batch as bytes, for edges that cross processes. All numbers but one are postcard varints:
//!
//! ```text
//! flags: u8            2 = an origin follows, 4 = keys follow; 1 = keys follow, each behind its length
//! count: varint        how many records
//! origin: varint + UTF-8                    where flagged
//! section: u32 LE      the length of the records' section, at least `count`
//! records              postcard, one after another, padded with zeros up to `count` bytes
//! keys: count x varint, then their bytes    where flagged
//! ```
//!
//! Keys behind their lengths are in checkpoints of earlier versions, and are read only.
//!
//! The padding matters only for records that encode to nothing, such as `()`: with it a count is always bounded by
//! bytes that really arrived. Hashes are computed again: murmur3 of a key is cheaper than eight more bytes a record on
//! the wire, and a hash that disagrees with its key can't arrive.

use std::sync::Arc;

use millrace_core::{
    Batch, Error, Record, RecordBatch, Result, codec,
    key::{KeyColumn, KeyHash},
};

const KEYS_BEHIND_LENGTHS: u8 = 1;
const WITH_ORIGIN: u8 = 2;
const KEYED: u8 = 4;
const EITHER: u8 = KEYED | KEYS_BEHIND_LENGTHS;

pub(super) fn encode<T: Record>(batch: &Batch, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
    let typed = batch.as_typed::<T>().ok_or_else(|| {
        let wanted = std::any::type_name::<T>();
        Error::internal(format!("an edge of {wanted} was given a {batch:?}")).fatal()
    })?;
    let count = u32::try_from(typed.records.len())
        .map_err(|_| Error::invalid(format!("a batch of {} records is too large to be sent", typed.records.len())))?;
    let keyed = if typed.keys.is_some() { KEYED } else { 0 };
    buffer.push(keyed | if typed.origin.is_some() { WITH_ORIGIN } else { 0 });
    codec::encode_into(&count, &mut buffer)?;
    if let Some(origin) = &typed.origin {
        codec::encode_into(&**origin, &mut buffer)?;
    }
    encode_records(&typed.records, &mut buffer)?;
    if let Some(keys) = &typed.keys {
        encode_keys(keys, &mut buffer)?;
    }
    Ok(buffer)
}

/// How many records an encoded batch says it has.
pub(crate) fn encoded_records(bytes: &[u8]) -> usize {
    let count = bytes.get(1..).and_then(|bytes| codec::decode_front::<u32>(bytes).ok());
    count.map_or(0, |(count, _)| count as usize)
}

fn encode_records<T: Record>(records: &[T], buffer: &mut Vec<u8>) -> Result<()> {
    let start = buffer.len() + 4;
    buffer.extend_from_slice(&[0; 4]);
    for record in records {
        codec::encode_into(record, buffer)?;
    }
    let end = buffer.len().max(start + records.len());
    buffer.resize(end, 0);
    let length = u32::try_from(end - start)
        .map_err(|_| Error::invalid(format!("a batch of {} bytes is too large to be sent", end - start)))?;
    buffer[start - 4..start].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn encode_keys(keys: &KeyColumn, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.reserve(keys.len() + keys.encoded().len());
    let mut begin = 0;
    for &end in keys.ends() {
        match u8::try_from(end - begin) {
            // A varint of one byte.
            Ok(length) if length < 128 => buffer.push(length),
            _ => codec::encode_into(&(end - begin), buffer)?,
        }
        begin = end;
    }
    buffer.extend_from_slice(keys.encoded());
    Ok(())
}

pub(super) fn decode<T: Record>(bytes: &[u8]) -> Result<RecordBatch<T>> {
    let (&flags, bytes) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
    let known = flags & !(KEYS_BEHIND_LENGTHS | WITH_ORIGIN | KEYED) == 0;
    if !known || flags & EITHER == EITHER {
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
    let (keys, rest) = match flags & EITHER {
        0 => (None, rest),
        KEYED => decode_keys(records.len(), rest).map(|(keys, rest)| (Some(keys), rest))?,
        _ => decode_keys_behind_lengths(records.len(), rest).map(|(keys, rest)| (Some(keys), rest))?,
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
    let (mut ends, mut end) = (Vec::with_capacity(count.min(bytes.len())), 0u32);
    for _ in 0..count {
        let length = match bytes {
            // A varint of one byte.
            [length @ 0..128, rest @ ..] => {
                bytes = rest;
                u32::from(*length)
            }
            _ => {
                let (length, rest) = codec::decode_front(bytes)?;
                bytes = rest;
                length
            }
        };
        end = end.checked_add(length).ok_or_else(|| damaged("its keys are larger than 4 GiB"))?;
        ends.push(end);
    }
    let (keys, rest) = take(end as usize, bytes)?;
    Ok((KeyColumn::from_encoded(ends, keys.to_vec()), rest))
}

fn decode_keys_behind_lengths(count: usize, mut bytes: &[u8]) -> Result<(KeyColumn, &[u8])> {
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
    fn keys_of_earlier_versions_are_read() {
        let keys: Vec<_> = ["", "a", &"b".repeat(200)].map(|key| codec::encode(key).unwrap()).into();
        let mut column = KeyColumn::default();
        keys.iter().for_each(|key| column.push_encoded(KeyHash::of(key), key).unwrap());
        let batch = RecordBatch { records: vec![1u8, 2, 3], keys: Some(column.clone()), origin: None };
        let mut bytes = encode::<u8>(&Batch::new(batch), Vec::new()).unwrap();
        assert_eq!(decode::<u8>(&bytes).unwrap().keys, Some(column.clone()));
        bytes.truncate(bytes.len() - column.encoded().len() - 4);
        bytes[0] = KEYS_BEHIND_LENGTHS;
        for key in &keys {
            codec::encode_into(&(key.len() as u32), &mut bytes).unwrap();
            bytes.extend_from_slice(key);
        }
        assert_eq!(decode::<u8>(&bytes).unwrap().keys, Some(column));
        bytes[0] |= KEYED;
        assert!(decode::<u8>(&bytes).unwrap_err().message.contains("flags"));
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
