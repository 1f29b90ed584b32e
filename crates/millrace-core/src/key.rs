//! Keys, their hash, and the key groups they fall into.
//!
//! A key group is the unit in which keyed state moves when the parallelism changes (as in Flink). Which group a key
//! falls into is part of the checkpoint format: it follows from MurmurHash3 (x64, 128 bits, seed 0, first half) of the
//! key's encoded bytes and never from `std::hash::Hash`.

use serde::{Deserialize, Serialize};

use crate::{Error, Record, Result, codec};

/// The default for a job's maximum parallelism, the number of its key groups.
pub const DEFAULT_MAX_PARALLELISM: u32 = 128;
/// The highest maximum parallelism (as in Flink).
pub const HIGHEST_MAX_PARALLELISM: u32 = 1 << 15;

/// What a stream can be keyed by. Two keys are equal when their encodings are.
pub trait Key: Record {}
impl<K: Record> Key for K {}

/// The hash of a key's encoded bytes: the upper half picks the key group, the lower half a slot in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Hashes an encoded key.
    pub fn of(encoded_key: &[u8]) -> Self {
        Self(murmur3_x64_128(encoded_key).0)
    }

    /// The key group among `max_parallelism` groups.
    pub fn key_group(self, max_parallelism: u32) -> u16 {
        (((self.0 >> 32) * u64::from(max_parallelism)) >> 32) as u16
    }
}

/// A contiguous range of key groups, both ends inclusive, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group.
    pub start: u16,
    /// The last group.
    pub end: u16,
}

impl KeyGroupRange {
    /// The range of a subtask. Every group belongs to exactly one subtask; ranges differ in size by at most one.
    pub fn of_subtask(max_parallelism: u32, parallelism: u32, subtask: u32) -> Self {
        debug_assert!(subtask < parallelism && parallelism <= max_parallelism);
        let (max, all, index) = (u64::from(max_parallelism), u64::from(parallelism), u64::from(subtask));
        Self { start: (index * max).div_ceil(all) as u16, end: (((index + 1) * max - 1) / all) as u16 }
    }

    /// All groups.
    pub fn all(max_parallelism: u32) -> Self {
        Self::of_subtask(max_parallelism, 1, 0)
    }

    /// Whether a group is in the range.
    pub fn contains(self, key_group: u16) -> bool {
        (self.start..=self.end).contains(&key_group)
    }

    /// Whether the two ranges share a group.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The groups in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.start..=self.end
    }

    /// How many groups there are.
    pub fn count(self) -> usize {
        usize::from(self.end - self.start) + 1
    }
}

/// The subtask that owns a key group.
pub fn subtask_of_key_group(max_parallelism: u32, parallelism: u32, key_group: u16) -> u32 {
    (u64::from(key_group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

/// Checks a parallelism against the maximum, and the maximum against its bounds.
pub fn check_parallelism(parallelism: u32, max_parallelism: u32) -> Result<()> {
    if max_parallelism == 0 || max_parallelism > HIGHEST_MAX_PARALLELISM {
        return Err(Error::invalid(format!(
            "maximum parallelism {max_parallelism} is out of range: choose 1 to {HIGHEST_MAX_PARALLELISM}"
        )));
    }
    if parallelism == 0 || parallelism > max_parallelism {
        return Err(Error::invalid(format!(
            "parallelism {parallelism} is out of range: choose 1 to the maximum parallelism, {max_parallelism}, \
             or raise the maximum before the job's first checkpoint"
        )));
    }
    Ok(())
}

/// The keys of a batch: encoded once where the records are partitioned, hashed once, and used by every keyed state
/// access behind the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyColumn {
    hashes: Vec<KeyHash>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl KeyColumn {
    /// An empty column with room for `records` keys.
    pub fn with_capacity(records: usize) -> Self {
        Self {
            hashes: Vec::with_capacity(records),
            ends: Vec::with_capacity(records),
            bytes: Vec::with_capacity(records * 16),
        }
    }

    /// Appends a key and returns its hash.
    pub fn push<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<KeyHash> {
        let start = self.bytes.len();
        codec::encode_into(key, &mut self.bytes)?;
        let hash = KeyHash::of(&self.bytes[start..]);
        self.seal(hash)
    }

    /// The column of these encoded keys, one after another, each of which ends at one of `ends`.
    pub fn from_encoded(ends: Vec<u32>, bytes: Vec<u8>) -> Self {
        let mut column = Self { hashes: Vec::with_capacity(ends.len()), ends, bytes };
        for index in 0..column.ends.len() {
            column.hashes.push(KeyHash::of(column.key(index)));
        }
        column
    }

    /// All encoded keys, one after another.
    pub fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each key ends in [`encoded`](Self::encoded).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Appends a key that is encoded and hashed already.
    pub fn push_encoded(&mut self, hash: KeyHash, key: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(key);
        self.seal(hash).map(drop)
    }

    fn seal(&mut self, hash: KeyHash) -> Result<KeyHash> {
        let end = u32::try_from(self.bytes.len())
            .map_err(|_| Error::invalid("the keys of one batch are larger than 4 GiB"))?;
        self.hashes.push(hash);
        self.ends.push(end);
        Ok(hash)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// All hashes in order.
    pub fn hashes(&self) -> &[KeyHash] {
        &self.hashes
    }

    /// The encoded key at `index`.
    pub fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// Keeps the first `at` keys and returns the others.
    pub fn split_off(&mut self, at: usize) -> Self {
        let cut = if at == 0 { 0 } else { self.ends[at - 1] };
        let mut ends = self.ends.split_off(at);
        ends.iter_mut().for_each(|end| *end -= cut);
        Self { hashes: self.hashes.split_off(at), ends, bytes: self.bytes.split_off(cut as usize) }
    }
}

/// MurmurHash3 x64 128 with seed 0 (Austin Appleby, public domain), as two halves.
pub fn murmur3_x64_128(data: &[u8]) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let scramble1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let scramble2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= scramble1(read_u64(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= scramble2(read_u64(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    if tail.len() > 8 {
        h2 ^= scramble2(read_u64(&tail[8..]));
    }
    if !tail.is_empty() {
        h1 ^= scramble1(read_u64(&tail[..tail.len().min(8)]));
    }
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finalize(h1);
    h2 = finalize(h2);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

/// Up to eight bytes as a little-endian number. Reads that overlap spare short keys a copy of unknown length.
fn read_u64(bytes: &[u8]) -> u64 {
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    if let Some(all) = bytes.first_chunk() {
        u64::from_le_bytes(*all)
    } else if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        half(low) | half(high) << (8 * (bytes.len() - 4))
    } else {
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

fn finalize(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published vectors of the algorithm.
    #[test]
    fn murmur3_agrees_with_published_vectors() {
        assert_eq!(murmur3_x64_128(b""), (0, 0));
        assert_eq!(murmur3_x64_128(b"hello"), (0xcbd8_a7b3_41bd_9b02, 0x5b1e_906a_48ae_1d19));
        let fox = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(murmur3_x64_128(fox), (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
    }

    /// These numbers are in every checkpoint: they must never change.
    #[test]
    fn key_groups_are_frozen() {
        let group = |key: &str| KeyHash::of(&codec::encode(key).unwrap()).key_group(128);
        assert_eq!(["a", "b", "key-1", "key-2", ""].map(group), FROZEN_STRING_GROUPS);
        let number = |key: i32| KeyHash::of(&codec::encode(&key).unwrap()).key_group(128);
        assert_eq!([0, 1, -1, i32::MAX].map(number), FROZEN_NUMBER_GROUPS);
    }
    const FROZEN_STRING_GROUPS: [u16; 5] = [55, 119, 75, 53, 35];
    const FROZEN_NUMBER_GROUPS: [u16; 4] = [35, 49, 61, 78];

    #[test]
    fn ranges_cover_every_group_once_and_agree_with_their_owner() {
        for max in [1u32, 2, 7, 128, 1000, HIGHEST_MAX_PARALLELISM] {
            for parallelism in [1u32, 2, 3, 7, 127, 128].into_iter().filter(|p| *p <= max) {
                let mut next = 0u32;
                for subtask in 0..parallelism {
                    let range = KeyGroupRange::of_subtask(max, parallelism, subtask);
                    assert_eq!(u32::from(range.start), next);
                    assert!(range.iter().all(|g| subtask_of_key_group(max, parallelism, g) == subtask));
                    next = u32::from(range.end) + 1;
                }
                assert_eq!(next, max);
            }
        }
    }

    #[test]
    fn a_column_splits_where_it_is_told() {
        let mut column = KeyColumn::default();
        for key in ["a", "bb", "ccc", "dddd"] {
            column.push(key).unwrap();
        }
        let whole = column.clone();
        let tail = column.split_off(1);
        assert_eq!((column.len(), tail.len()), (1, 3));
        for index in 0..4 {
            let (part, at) = if index < 1 { (&column, index) } else { (&tail, index - 1) };
            assert_eq!(part.key(at), whole.key(index));
            assert_eq!(part.hashes()[at], whole.hashes()[index]);
        }
    }

    #[test]
    fn wrong_parallelism_is_refused_with_its_bounds() {
        assert!(check_parallelism(129, 128).unwrap_err().message.contains("parallelism 129"));
        assert!(check_parallelism(0, 128).is_err());
        assert!(check_parallelism(1, 0).is_err());
        assert!(check_parallelism(1, HIGHEST_MAX_PARALLELISM + 1).is_err());
        assert!(check_parallelism(128, 128).is_ok());
    }
}
