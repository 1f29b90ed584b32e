//! Any bytes as the data in flight of an unaligned checkpoint, and as the payload in its frame, whose length and checksum
//! are made right.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millrace_state::in_flight::{IN_FLIGHT_FORMAT_VERSION, decode, encode};

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    let mut framed = b"MLRFLOW\n".to_vec();
    framed.extend_from_slice(&IN_FLIGHT_FORMAT_VERSION.to_le_bytes());
    framed.extend_from_slice(&(data.len() as u64).to_le_bytes());
    framed.extend_from_slice(data);
    framed.extend_from_slice(&crc32fast::hash(&framed).to_le_bytes());
    read(framed);
});

fn read(bytes: Vec<u8>) {
    if let Ok(edges) = decode("in-flight.state", &Bytes::from(bytes)) {
        let again = encode(&edges).expect("what was read can be written").concat();
        let again = decode("in-flight.state", &Bytes::from(again));
        assert_eq!(again.expect("what was written can be read"), edges);
    }
}
