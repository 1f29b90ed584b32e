//! Any bytes as an entry of a job's log, and as the text in its frame, whose checksum is made right: fuzzing does not find
//! one by itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::ids::JobId;
use millrace_state::log::LogEntry;

const JOB: JobId = JobId(0xbeef);
const POSITION: u64 = 7;

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Ok(entry) = std::str::from_utf8(data) {
        let crc = crc32fast::hash(data);
        read(format!("{{\"millrace_log\":1,\"crc32\":\"{crc:08x}\",\"entry\":{entry}}}\n").as_bytes());
    }
});

fn read(bytes: &[u8]) {
    if let Ok(entry) = LogEntry::decode(JOB, POSITION, bytes) {
        let again = LogEntry::decode(JOB, POSITION, &entry.encode()).expect("what was written can be read");
        assert_eq!(again, entry);
    }
}
