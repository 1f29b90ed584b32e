//! What the hardware can do: a keyed count by hand, without an engine. One thread makes strings and hashes them, batches
//! cross a bounded channel, another thread counts in a flat table whose slots it prefetches. No partitioning by key
//! group, no state that could be checkpointed, no user function, keys of at most 15 bytes.

use std::{sync::mpsc::sync_channel, time::Instant};

const BATCH: usize = 1024;
/// How many slots are asked for before the first of them is used.
const AHEAD: usize = 32;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: [u8; 15],
    len: u8,
    count: i64,
}

/// Records a second.
pub fn rate(records: u64, keys: u64) -> f64 {
    let started = Instant::now();
    let (sender, batches) = sync_channel::<Vec<(String, u64)>>(8);
    let source = std::thread::spawn(move || {
        for start in (0..records).step_by(BATCH) {
            let end = (start + BATCH as u64).min(records);
            let batch = (start..end).map(|index| make(index, keys)).collect();
            if sender.send(batch).is_err() {
                return;
            }
        }
    });
    let mut table = vec![Slot::default(); (keys as usize * 2).next_power_of_two()];
    let mut counted = 0;
    for batch in batches {
        for window in batch.chunks(AHEAD) {
            window.iter().for_each(|(_, hash)| prefetch(&table, *hash));
            for (key, hash) in window {
                count(&mut table, key.as_bytes(), *hash);
                counted += 1;
            }
        }
    }
    source.join().expect("the source does not panic");
    assert_eq!(table.iter().map(|slot| slot.count).sum::<i64>(), counted);
    records as f64 / started.elapsed().as_secs_f64()
}

fn make(index: u64, keys: u64) -> (String, u64) {
    let mut key = String::with_capacity(16);
    key.push_str("key-");
    key.push_str(itoa::Buffer::new().format(mix(index) % keys));
    let hash = hash(key.as_bytes());
    (key, hash)
}

fn count(table: &mut [Slot], key: &[u8], hash: u64) {
    let mask = table.len() - 1;
    let mut at = hash as usize & mask;
    loop {
        let slot = &mut table[at];
        if slot.len == 0 {
            slot.key[..key.len()].copy_from_slice(key);
            (slot.len, slot.count) = (key.len() as u8, 1);
            return;
        }
        if &slot.key[..usize::from(slot.len)] == key {
            slot.count += 1;
            return;
        }
        at = (at + 1) & mask;
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn prefetch(table: &[Slot], hash: u64) {
    let slot: *const Slot = &table[hash as usize & (table.len() - 1)];
    // SAFETY: a prefetch reads nothing that the program can observe, and the pointer is of a live slot.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(slot.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_table: &[Slot], _hash: u64) {}

fn hash(key: &[u8]) -> u64 {
    let mut bytes = [0; 16];
    bytes[..key.len()].copy_from_slice(key);
    let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let product = u128::from(half(0) ^ 0x9E37_79B9_7F4A_7C15) * u128::from(half(8) ^ 0x243F_6A88_85A3_08D3);
    mix(product as u64 ^ (product >> 64) as u64 ^ key.len() as u64)
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub fn mix(index: u64) -> u64 {
    let z = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
