//! An entry of a job's log, as it lies in the store: one line of JSON with a checksum, readable by eye.
//!
//! ```text
//! {"millrace_log":1,"crc32":"8b0c1f2e","entry":{"job":"…","position":7,"writer":"…", … }}
//! ```
//!
//! The checksum covers the text of `entry` exactly as it stands.

use std::fmt;

use millrace_core::{
    Error, Result,
    ids::{Attempt, CheckpointId, Generation, JobId},
};
use serde::{Deserialize, Serialize, de};

/// The highest version of the format that this program reads. Each entry is written in the lowest that can express it.
pub const LOG_FORMAT_VERSION: u32 = 2;

const OPENING: &str = "{\"millrace_log\":";
const CRC: &str = ",\"crc32\":\"";
const ENTRY: &str = "\",\"entry\":";
const CLOSING: &str = "}\n";

/// What tells one attempt to append an entry from all others, so that a writer recognises its own entry after a lost
/// answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u128);

impl WriterId {
    /// A random one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterId({self})")
    }
}

impl Serialize for WriterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WriterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The job whose log it belongs to.
    pub job: JobId,
    /// Its number in the log, from 1.
    pub position: u64,
    /// The attempt that wrote it.
    pub writer: WriterId,
    /// The writer's generation.
    pub generation: Generation,
    /// Where that generation's own entry stands.
    pub generation_at: u64,
    /// Entries below this number are void: they may have been deleted, and one that appears there counts for nothing.
    /// Never sinks from one entry to the next.
    pub floor: u64,
    /// When it was written, milliseconds since the epoch. For people; nothing depends on it.
    pub written_at_ms: u64,
    /// What it says.
    pub body: LogBody,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogBody {
    /// A jobmanager has taken over. The first entry of each incarnation.
    Generation(GenerationRecord),
    /// A checkpoint is complete.
    Checkpoint(CheckpointRecord),
    /// The whole job starts again while all tasks of an earlier attempt may run on, unseen: no later jobmanager may go
    /// on with those. Since version 2.
    Attempt(AttemptRecord),
    /// The job has ended and is not run again. Nothing follows, unless it
    /// [failed and is deployed anew](TerminalRecord::is_taken_up_by).
    Terminal(TerminalRecord),
}

/// Who took over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// A text that tells people which process it is (its host, for example).
    pub owner: String,
}

/// A completed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Its id.
    pub id: CheckpointId,
    /// Its metadata file, relative to the job's directory.
    pub metadata: String,
    /// That file's size in bytes.
    pub metadata_size: u64,
    /// The CRC-32 of that file's bytes.
    pub metadata_crc32: u32,
    /// When it was triggered, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Whether a sink makes records visible when it completes. Once it has, going back to an older checkpoint would
    /// write them again.
    pub commits: bool,
}

/// An attempt of the whole job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its number under its jobmanager, whose generation is the entry's.
    pub attempt: Attempt,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalRecord {
    /// The result.
    pub result: TerminalResult,
    /// Whether its checkpoints are kept. Where they are not, their entries are void from here on, and their files are
    /// deleted next.
    pub checkpoints_retained: bool,
    /// The deployment that it ended under. Only a failed job's matters, and an entry without it is one of deployment 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deployment: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl TerminalRecord {
    /// Whether a jobmanager of this deployment goes on with the job all the same: one that failed for good is given
    /// another chance by a later deployment, since what it failed on may be mended. A job that finished or was
    /// cancelled is never run again.
    pub fn is_taken_up_by(&self, deployment: u64) -> bool {
        matches!(self.result, TerminalResult::Failed { .. }) && deployment > self.deployment
    }
}

/// The results that end a job for good.
///
/// Only what must keep the job from being run again is written. A job that is suspended, whose jobmanager exits or
/// loses its leadership, or that could not be *started* (a refused checkpoint, a wrong setting) writes none: the next
/// jobmanager goes on where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalResult {
    /// All input was processed; written after the last commits.
    Finished,
    /// A user cancelled it.
    Canceled,
    /// It ran, failed, and its restart strategy gave up. Its checkpoints are always retained.
    Failed {
        /// What it failed on.
        error: Error,
    },
}

impl LogEntry {
    /// The bytes that are stored.
    pub fn encode(&self) -> Vec<u8> {
        let entry = serde_json::to_string(self).expect("entries hold nothing that JSON can't express");
        let crc = crc32fast::hash(entry.as_bytes());
        let version = self.version();
        format!("{OPENING}{version}{CRC}{crc:08x}{ENTRY}{entry}{CLOSING}").into_bytes()
    }

    /// The lowest version that can express it.
    fn version(&self) -> u32 {
        match self.body {
            LogBody::Attempt(_) => 2,
            _ => 1,
        }
    }

    /// Reads what was stored as entry `position` of the log of `job`; torn, damaged, newer and foreign entries are
    /// refused by name.
    pub fn decode(job: JobId, position: u64, bytes: &[u8]) -> Result<Self> {
        let refuse = |why: String| {
            damaged(format!(
                "log entry {}/{} is {why}. Nothing is started from a log with such an entry: bring the file back from \
                 a backup, or start a new job with --from-checkpoint from a checkpoint that you trust",
                job,
                relative_path(position)
            ))
        };
        let entry = unframe(bytes).map_err(refuse)?;
        let entry: Self = serde_json::from_str(entry).map_err(|e| refuse(format!("not understood: {e}")))?;
        if entry.job != job {
            return Err(refuse(format!("foreign: it belongs to job {}", entry.job)));
        }
        if entry.position != position {
            return Err(refuse(format!("foreign: it was written as entry {}", entry.position)));
        }
        if entry.floor > position || entry.generation_at > position || entry.generation.0 == 0 {
            return Err(refuse("foreign: its numbers contradict each other".to_string()));
        }
        if let LogBody::Checkpoint(record) = &entry.body {
            check_metadata_path(record).map_err(refuse)?;
        }
        Ok(entry)
    }

    /// The checkpoint that it records, if it does.
    pub fn checkpoint(&self) -> Option<&CheckpointRecord> {
        match &self.body {
            LogBody::Checkpoint(record) => Some(record),
            _ => None,
        }
    }

    /// The jobmanager and the attempt whose beginning it records, if it does.
    pub fn attempt(&self) -> Option<(Generation, Attempt)> {
        match &self.body {
            LogBody::Attempt(record) => Some((self.generation, record.attempt)),
            _ => None,
        }
    }

    /// The end that it records, if it does.
    pub fn terminal(&self) -> Option<&TerminalRecord> {
        match &self.body {
            LogBody::Terminal(record) => Some(record),
            _ => None,
        }
    }
}

/// An entry's file relative to the job's directory; padded so that listings sort by number.
pub fn relative_path(position: u64) -> String {
    format!("log/{position:020}")
}

/// The number of the entry that a file of the log's directory holds; `None` for anything that is no entry.
pub fn position_of(file_name: &str) -> Option<u64> {
    let digits = file_name.len() == 20 && file_name.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| file_name.parse().ok()).flatten().filter(|position| *position > 0)
}

/// The error of something that lies in the store and is not what was written: trying again cannot help.
pub(crate) fn damaged(message: String) -> Error {
    Error::external(message).fatal()
}

/// Takes the entry's text out of its frame and checks it.
fn unframe(bytes: &[u8]) -> Result<&str, String> {
    let torn = || "torn or not a log entry".to_string();
    let text = std::str::from_utf8(bytes).map_err(|_| torn())?;
    let rest = text.strip_prefix(OPENING).ok_or_else(torn)?;
    let (version, rest) = rest.split_once(CRC).ok_or_else(torn)?;
    if (1..=LOG_FORMAT_VERSION).all(|known| version != known.to_string()) {
        return Err(match version.parse::<u32>() {
            Ok(version) => format!("of format version {version}, and this program reads 1 to {LOG_FORMAT_VERSION}"),
            Err(_) => torn(),
        });
    }
    let (crc, rest) = rest.split_once(ENTRY).ok_or_else(torn)?;
    let entry = rest.strip_suffix(CLOSING).ok_or_else(torn)?;
    if crc != format!("{:08x}", crc32fast::hash(entry.as_bytes())) {
        return Err(format!("damaged: its checksum is not {crc}"));
    }
    Ok(entry)
}

fn check_metadata_path(record: &CheckpointRecord) -> Result<(), String> {
    if record.metadata == format!("chk-{}/_metadata", record.id) {
        return Ok(());
    }
    Err(format!("foreign: checkpoint {} has no metadata at {:?}", record.id, record.metadata))
}

#[cfg(test)]
pub(crate) mod tests {
    use millrace_core::ErrorDomain;

    use super::*;

    pub(crate) fn record(id: u64) -> CheckpointRecord {
        CheckpointRecord {
            id: CheckpointId(id),
            metadata: format!("chk-{id}/_metadata"),
            metadata_size: 100,
            metadata_crc32: 0xabcd,
            created_at_ms: 1_700_000_000_000,
            commits: false,
        }
    }

    fn entry(body: LogBody) -> LogEntry {
        LogEntry {
            job: JobId(0xbeef),
            position: 7,
            writer: WriterId(0x1234),
            generation: Generation(2),
            generation_at: 5,
            floor: 3,
            written_at_ms: 1_700_000_000_001,
            body,
        }
    }

    /// What version 1 can say.
    fn bodies() -> [LogBody; 5] {
        let failed = TerminalResult::Failed { error: Error::user("record \"x\" is no number") };
        let end = |result: &TerminalResult, checkpoints_retained, deployment| {
            LogBody::Terminal(TerminalRecord { result: result.clone(), checkpoints_retained, deployment })
        };
        [
            LogBody::Generation(GenerationRecord { owner: "host-1/4711".to_string() }),
            LogBody::Checkpoint(record(5)),
            end(&TerminalResult::Finished, false, 0),
            end(&failed, true, 0),
            end(&failed, true, 7),
        ]
    }

    /// What version 2 adds.
    fn begun() -> LogBody {
        LogBody::Attempt(AttemptRecord { attempt: Attempt(4) })
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for body in bodies().into_iter().chain([begun()]) {
            let entry = entry(body);
            assert_eq!(LogEntry::decode(entry.job, 7, &entry.encode()).unwrap(), entry);
        }
    }

    /// The texts below are in every bucket: they must never change within their version.
    #[test]
    fn the_format_is_frozen() {
        let versions = [
            (&include_bytes!("../../tests/golden/log-v1.txt")[..], bodies().to_vec()),
            (include_bytes!("../../tests/golden/log-v2.txt"), vec![begun()]),
        ];
        for (golden, bodies) in versions {
            let written: Vec<u8> = bodies.iter().flat_map(|body| entry(body.clone()).encode()).collect();
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(golden));
            for (line, body) in golden.split_inclusive(|byte| *byte == b'\n').zip(bodies) {
                assert_eq!(LogEntry::decode(JobId(0xbeef), 7, line).unwrap(), entry(body));
            }
        }
    }

    #[test]
    fn torn_and_flipped_entries_are_refused_by_name() {
        let bytes = entry(LogBody::Checkpoint(record(5))).encode();
        for length in 0..bytes.len() {
            let error = LogEntry::decode(JobId(0xbeef), 7, &bytes[..length]).unwrap_err();
            assert!(error.message.contains("log/00000000000000000007"), "{error}");
            assert!(!error.retryable && error.domain == ErrorDomain::External);
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1 << bit;
                assert!(LogEntry::decode(JobId(0xbeef), 7, &flipped).is_err(), "byte {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn foreign_and_newer_entries_are_refused_with_the_reason() {
        let entry = entry(LogBody::Checkpoint(record(5)));
        let error = |job, position, bytes: &[u8]| LogEntry::decode(job, position, bytes).unwrap_err().message;
        assert!(error(JobId(1), 7, &entry.encode()).contains("belongs to job 0000000000000000000000000000beef"));
        assert!(error(entry.job, 8, &entry.encode()).contains("written as entry 7"));
        let newer = String::from_utf8(entry.encode()).unwrap().replace("\"millrace_log\":1", "\"millrace_log\":3");
        assert!(error(entry.job, 7, newer.as_bytes()).contains("format version 3"));
        let escaping = CheckpointRecord { metadata: "../other/_metadata".to_string(), ..record(5) };
        let escaping = LogEntry { body: LogBody::Checkpoint(escaping), ..entry };
        assert!(error(escaping.job, 7, &escaping.encode()).contains("../other"));
    }

    #[test]
    fn only_padded_numbers_are_positions() {
        assert_eq!(position_of("00000000000000000042"), Some(42));
        for name in ["42", "00000000000000000000", "00000000000000000042.tmp", "+0000000000000000042", ""] {
            assert_eq!(position_of(name), None, "{name:?}");
        }
        assert_eq!(relative_path(u64::MAX).len(), "log/".len() + 20);
    }
}
