//! Any bytes as a key and a value in RocksDB's files, which checkpoints carry. What is accepted is written as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_state_rocksdb::check_entry;

fuzz_target!(|entry: (&[u8], &[u8])| {
    let _ = check_entry(entry.0, entry.1);
});
