//! Any bytes as a snapshot of keyed state, as they are and with their checksums made right.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millrace_core::key::KeyGroupRange;
use millrace_fuzz::with_checksums;
use millrace_state::snapshot::SnapshotReader;

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: u16::MAX };

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    if let Some(corrected) = with_checksums(data) {
        read(corrected);
    }
});

fn read(bytes: Vec<u8>) {
    let Ok(reader) = SnapshotReader::open(Bytes::from(bytes)) else { return };
    for state in &reader.header().states {
        for section in reader.sections(state.id, ALL) {
            let Ok(mut entries) = reader.read(section) else { continue };
            while let Ok(Some(_)) = entries.next() {}
        }
    }
}
