//! Any bytes as a checkpoint's metadata, and as the payload in its frame, whose length and checksum are made right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_state::metadata::{CheckpointMetadata, METADATA_FORMAT_VERSION};

const DIRECTORY: &str = "file:///checkpoints/chk-1";

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut framed = b"MLRCKPT\n".to_vec();
    framed.extend_from_slice(&METADATA_FORMAT_VERSION.to_le_bytes());
    framed.extend_from_slice(&(data.len() as u64).to_le_bytes());
    framed.extend_from_slice(data);
    framed.extend_from_slice(&crc32fast::hash(&framed).to_le_bytes());
    read(&framed);
});

fn read(bytes: &[u8]) {
    if let Ok(metadata) = CheckpointMetadata::decode("chk-1/_metadata", bytes, DIRECTORY) {
        let _ = metadata.state_size();
        let again = metadata.encode().expect("what was read can be written");
        let again = CheckpointMetadata::decode("chk-1/_metadata", &again, DIRECTORY);
        assert_eq!(again.expect("what was written can be read"), metadata);
    }
}
