use millrace_core::{operator_state::OperatorStateStore, schema::Schema};

use super::*;
use crate::{SOURCE_SPLITS, SharedState, StateFile};

pub(crate) fn lists(name: &str, items: &[i64]) -> Vec<OperatorListSnapshot> {
    let mut store = OperatorStateStore::default();
    store.list::<i64>(name).unwrap().update(items.to_vec());
    store.snapshot().unwrap()
}

fn subtask(uid: &str, range: (u16, u16), data: StateHandle) -> OperatorSubtaskState {
    let range = KeyGroupRange { start: range.0, end: range.1 };
    OperatorSubtaskState {
        uid: OperatorUid(uid.into()),
        keyed: Some(KeyedStateHandle { range, data }),
        lists: vec![],
        in_flight: None,
        ahead: vec![],
    }
}

pub(crate) fn file(directory: &str, name: &str) -> StateHandle {
    StateHandle::File { directory: directory.into(), name: name.into(), size: 4_000_000_000, crc32: 0xdead_beef }
}

pub(crate) fn sample(directory: &str) -> CheckpointMetadata {
    let source = OperatorSubtaskState {
        uid: OperatorUid("source".into()),
        keyed: None,
        lists: lists(SOURCE_SPLITS, &[1, 2]),
        in_flight: None,
        ahead: vec![],
    };
    CheckpointMetadata {
        job: JobId(0xbeef),
        checkpoint: CheckpointId(7),
        generation: Generation(2),
        attempt: Attempt(3),
        created_at_ms: 1_700_000_000_000,
        mode: CheckpointingMode::ExactlyOnce,
        max_parallelism: 128,
        is_final: false,
        operators: vec![
            OperatorStateMeta { uid: source.uid.clone(), name: "Kafka".into(), parallelism: 1, subtasks: vec![source] },
            OperatorStateMeta {
                uid: OperatorUid("count".into()),
                name: "Count".into(),
                parallelism: 2,
                subtasks: vec![
                    subtask("count", (0, 63), file(directory, "count-0.state")),
                    subtask("count", (64, 127), StateHandle::Inline(vec![1, 2, 3])),
                ],
            },
        ],
    }
}

/// With a subtask whose state is in shared files.
pub(crate) fn sharing(directory: &str) -> CheckpointMetadata {
    let mut metadata = sample(directory);
    let beside = directory.rsplit_once('/').map_or(String::new(), |(job, _)| format!("{job}/shared"));
    let file = |directory: &str, name: &str| StateFile {
        directory: directory.into(),
        name: name.into(),
        size: 4_000_000_000,
        crc32: 0xdead_beef,
    };
    let shared = |local: &str, name: &str| SharedFile { local_name: local.into(), file: file(&beside, name) };
    metadata.operators[1].subtasks[0].keyed.as_mut().unwrap().data = StateHandle::Shared(Box::new(SharedState {
        snapshot: OwnState::File(file(directory, "count-0.state")),
        format: "rocksdb".into(),
        expiring: vec![1],
        files: vec![shared("000012.sst", "5-ab-000012.sst"), shared("CURRENT", "7-cd-CURRENT")],
    }));
    metadata
}

/// With data in flight to both subtasks.
pub(crate) fn overtaken(directory: &str) -> CheckpointMetadata {
    let mut metadata = sharing(directory);
    metadata.operators[1].subtasks[0].in_flight = Some(file(directory, "count-0.in-flight"));
    metadata.operators[1].subtasks[1].in_flight = Some(StateHandle::Inline(vec![4, 5]));
    metadata
}

/// With files ahead of the first subtask's later checkpoints.
pub(crate) fn going_ahead(directory: &str) -> CheckpointMetadata {
    let mut metadata = overtaken(directory);
    let subtask = &mut metadata.operators[1].subtasks[0];
    let table = subtask.keyed.as_ref().unwrap().data.shared_files()[0].clone();
    let file = StateFile { name: "8-ef-000013.sst".into(), ..table.file };
    subtask.ahead = vec![SharedFile { local_name: "000013.sst".into(), file }];
    metadata
}

fn decode(bytes: &[u8]) -> Result<CheckpointMetadata> {
    CheckpointMetadata::decode("chk-7/_metadata", bytes, "s3://b/job/chk-7")
}

/// Frames any payload as a valid file.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&FRAME.header(1, payload.len() as u64), payload].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

#[test]
fn metadata_moves_with_its_directory() {
    let bytes = sample("file:///old/place").encode().unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("old/place"));
    assert_eq!(decode(&bytes).unwrap(), sample("s3://b/job/chk-7"));
}

/// These bytes are in every checkpoint: they must never change within version 1.
#[test]
fn the_format_is_frozen() {
    let golden = include_bytes!("../../tests/golden/metadata-v1.bin");
    assert_eq!(decode(golden).unwrap(), sample("s3://b/job/chk-7"));
    assert_eq!(sample("").encode().unwrap(), golden);
}

/// Nor these within version 2.
#[test]
fn the_format_with_shared_files_is_frozen() {
    let golden = include_bytes!("../../tests/golden/metadata-v2.bin");
    assert_eq!(decode(golden).unwrap(), sharing("s3://b/job/chk-7"));
    assert_eq!(sharing("").encode().unwrap(), golden);
    let names: Vec<_> = sharing("").shared_file_names().map(String::from).collect();
    assert_eq!(names, ["5-ab-000012.sst", "7-cd-CURRENT"]);
    assert_eq!(sharing("").state_size() - sample("").state_size(), 8_000_000_000);
    let mut older = golden.to_vec();
    older[8] = 1;
    let end = older.len() - TRAILER;
    let crc = crc32fast::hash(&older[..end]).to_le_bytes();
    older[end..].copy_from_slice(&crc);
    assert!(decode(&older).unwrap_err().message.contains("version 1 has no shared files"));
}

/// Nor these within version 3.
#[test]
fn the_format_with_data_in_flight_is_frozen() {
    let golden = include_bytes!("../../tests/golden/metadata-v3.bin");
    assert_eq!(decode(golden).unwrap(), overtaken("s3://b/job/chk-7"));
    assert_eq!(overtaken("").encode().unwrap(), golden);
    assert_eq!(overtaken("").state_size() - sharing("").state_size(), 4_000_000_002);
    assert_eq!((overtaken("").in_flight_size(), sharing("").in_flight_size()), (4_000_000_002, 0));
}

/// Nor these within version 4.
#[test]
fn the_format_with_files_ahead_is_frozen() {
    let golden = include_bytes!("../../tests/golden/metadata-v4.bin");
    assert_eq!(decode(golden).unwrap(), going_ahead("s3://b/job/chk-7"));
    assert_eq!(going_ahead("").encode().unwrap(), golden);
    let names: Vec<_> = going_ahead("").shared_file_names().map(String::from).collect();
    assert_eq!(names, ["5-ab-000012.sst", "7-cd-CURRENT", "8-ef-000013.sst"]);
    assert_eq!(going_ahead("").state_size(), overtaken("").state_size(), "it does not need them");
}

#[test]
fn torn_and_flipped_metadata_is_refused_by_name() {
    let bytes = sample("").encode().unwrap();
    for length in 0..bytes.len() {
        let error = decode(&bytes[..length]).unwrap_err();
        assert!(error.message.contains("chk-7/_metadata") && !error.retryable, "{error}");
    }
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << bit;
            assert!(decode(&flipped).is_err(), "byte {index}, bit {bit}");
        }
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(decode(&longer).unwrap_err().message.contains("torn"));
}

#[test]
fn another_format_is_refused_with_its_version() {
    let mut newer = sample("").encode().unwrap();
    newer[8] = 5;
    assert!(decode(&newer).unwrap_err().message.contains("format version 5"));
    assert!(decode(&[b'x'; 100]).unwrap_err().message.contains("not the metadata"));
}

/// A checksum only keeps accidents out: crafted payloads must neither panic nor take memory.
#[test]
fn crafted_payloads_are_refused() {
    let bytes = sample("").encode().unwrap();
    let payload = &bytes[HEADER..bytes.len() - TRAILER];
    for length in 0..payload.len() {
        assert!(decode(&framed(&payload[..length])).is_err(), "length {length}");
    }
    for index in 0..payload.len() {
        for value in [0, 0x7f, 0xff] {
            let mut changed = payload.to_vec();
            changed[index] = value;
            // Either it is refused or it is consistent.
            if let Ok(metadata) = decode(&framed(&changed)) {
                metadata.check().unwrap();
            }
        }
    }
    // A list that claims to have 2^63 elements.
    let huge = [&payload[..payload.len() / 2], &[0xff; 9], &[0x7f]].concat();
    assert!(decode(&framed(&huge)).is_err());
}

#[test]
fn contradictions_are_named() {
    let broken = |change: fn(&mut CheckpointMetadata)| {
        let mut metadata = sample("");
        change(&mut metadata);
        decode(&metadata.encode().unwrap()).unwrap_err().message
    };
    assert!(broken(|m| m.operators[1].parallelism = 3).contains("2 subtasks and parallelism 3"));
    assert!(broken(|m| m.operators[1].parallelism = 1000).contains("operator count"));
    assert!(broken(|m| m.operators[0] = m.operators[1].clone()).contains("twice"));
    assert!(broken(|m| m.max_parallelism = 100).contains("key groups 64 to 127 of 100"));
    assert!(broken(|m| m.operators[1].subtasks[0].uid = OperatorUid("other".into())).contains("other"));
    let escape =
        |m: &mut CheckpointMetadata| m.operators[1].subtasks[0].keyed.as_mut().unwrap().data = file("", "../x");
    assert!(broken(escape).contains("../x"));
    let backwards = |m: &mut CheckpointMetadata| {
        m.operators[1].subtasks[0].keyed.as_mut().unwrap().range = KeyGroupRange { start: 5, end: 4 };
    };
    assert!(broken(backwards).contains("5 to 4"));
    let shared = |change: fn(&mut SharedState)| {
        let mut metadata = sharing("");
        match &mut metadata.operators[1].subtasks[0].keyed.as_mut().unwrap().data {
            StateHandle::Shared(shared) => change(shared),
            other => panic!("{other:?} is not shared"),
        }
        decode(&metadata.encode().unwrap()).unwrap_err().message
    };
    let in_flight = |data: StateHandle| {
        let mut metadata = overtaken("");
        metadata.operators[1].subtasks[1].in_flight = Some(data);
        decode(&metadata.encode().unwrap()).unwrap_err().message
    };
    assert!(in_flight(file("", "../x")).contains("../x"));
    let of_keyed = sharing("").operators[1].subtasks[0].keyed.clone().unwrap().data;
    assert!(in_flight(of_keyed).contains("in shared files"));
    let payload = |version, in_flight: &[u32], ahead: &[u32]| {
        let mut payload = codec::encode(&sample("")).unwrap();
        let data = |subtask: &u32| OfSubtask { operator: 1, subtask: *subtask, data: StateHandle::Inline(vec![]) };
        codec::encode_into(&in_flight.iter().map(data).collect::<Vec<_>>(), &mut payload).unwrap();
        let files = going_ahead("").operators[1].subtasks[0].ahead.clone();
        let files = |subtask: &u32| OfSubtask { operator: 1, subtask: *subtask, data: files.clone() };
        codec::encode_into(&ahead.iter().map(files).collect::<Vec<_>>(), &mut payload).unwrap();
        CheckpointMetadata::decode_payload(version, &payload).unwrap_err().message
    };
    assert!(payload(4, &[2], &[]).contains("not in it"));
    assert!(payload(4, &[1, 1], &[]).contains("in flight to operator count is in it twice"));
    assert!(payload(4, &[], &[2]).contains("not in it"));
    assert!(payload(4, &[], &[1, 1]).contains("files ahead of operator count are in it twice"));
    assert!(payload(3, &[], &[1]).contains("bytes are no value"), "nothing is behind what is in flight");
    let mut metadata = going_ahead("");
    metadata.operators[1].subtasks[0].ahead[0].local_name = "../x".into();
    assert!(decode(&metadata.encode().unwrap()).unwrap_err().message.contains("../x"));
    assert!(shared(|s| s.files[0].local_name = "../CURRENT".into()).contains("../CURRENT"));
    assert!(shared(|s| s.files[0].local_name = "CURRENT".into()).contains("twice"));
    assert!(shared(|s| s.files[0].file.name = "a/b".into()).contains("a/b"));
    let escape = |s: &mut SharedState| {
        s.snapshot = OwnState::File(StateFile { name: "/x".into(), ..s.files[1].file.clone() });
    };
    assert!(shared(escape).contains("/x"));
}

#[test]
fn the_size_counts_files_inline_states_and_lists() {
    let items: u64 = sample("").operators[0].subtasks[0].lists[0].items.iter().map(|item| item.len() as u64).sum();
    assert_eq!(sample("").state_size(), 4_000_000_000 + 3 + items);
    assert_eq!(Schema::of::<i64>().unwrap(), sample("").operators[0].subtasks[0].lists[0].schema);
}
