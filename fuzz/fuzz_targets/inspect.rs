//! Any bytes as what `millrace state` reads without the job's program: operator lists and a snapshot, whose checksums are
//! made right, in a checkpoint in a directory. All that it shows is asked for.

#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millrace_core::{
    checkpoint::CheckpointingMode,
    codec,
    ids::{Attempt, CheckpointId, Generation, JobId, OperatorUid},
    key::KeyGroupRange,
    operator_state::OperatorListSnapshot,
};
use millrace_fuzz::with_checksums;
use millrace_state::{
    BackendRegistry, KeyedStateHandle, OperatorSubtaskState, StateHandle,
    inspect::{CheckpointContents, diff_groups, list_items},
    metadata::{CheckpointMetadata, OperatorStateMeta},
    snapshot::SnapshotReader,
    storage::StorageOptions,
};
use tokio::runtime::{Builder, Runtime};

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: u16::MAX };

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// A checkpoint of this process, written anew for each input.
static CHECKPOINT: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("millrace-fuzz-{}/chk-1", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
});

fuzz_target!(|data: &[u8]| {
    // Two bytes say where the lists end and the snapshot begins.
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (lists, snapshot) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let Ok(metadata) = metadata(lists, snapshot).encode() else { return };
    fs::write(CHECKPOINT.join("_metadata"), metadata).expect("the file can be written");
    let uri = format!("file://{}", CHECKPOINT.display());
    let opened =
        RUNTIME.block_on(CheckpointContents::open(&uri, &StorageOptions::default(), BackendRegistry::default()));
    if let Ok(contents) = opened {
        show(&contents);
    }
});

fn metadata(lists: &[u8], snapshot: &[u8]) -> CheckpointMetadata {
    let snapshot = with_checksums(snapshot).unwrap_or_else(|| snapshot.to_vec());
    let keyed = SnapshotReader::open(Bytes::copy_from_slice(&snapshot)).ok();
    let (uid, max_parallelism, range) = match &keyed {
        Some(reader) => (reader.header().uid.clone(), reader.header().max_parallelism, reader.header().range),
        None => (OperatorUid("uid".to_string()), 128, KeyGroupRange::all(128)),
    };
    let subtask = OperatorSubtaskState {
        uid: uid.clone(),
        keyed: keyed.map(|_| KeyedStateHandle { range, data: StateHandle::Inline(snapshot) }),
        lists: codec::decode::<Vec<OperatorListSnapshot>>(lists).unwrap_or_default(),
        in_flight: None,
        ahead: Vec::new(),
    };
    CheckpointMetadata {
        job: JobId(0xbeef),
        checkpoint: CheckpointId(1),
        generation: Generation(1),
        attempt: Attempt(1),
        created_at_ms: 1,
        mode: CheckpointingMode::ExactlyOnce,
        max_parallelism,
        is_final: false,
        operators: vec![OperatorStateMeta { uid, name: "Name".to_string(), parallelism: 1, subtasks: vec![subtask] }],
    }
}

fn show(contents: &CheckpointContents) {
    for operator in &contents.metadata().operators {
        for item in list_items(operator) {
            let _ = item.line();
            let _ = item.json();
        }
        let Ok(snapshots) = contents.snapshots(operator, RUNTIME.handle()) else { continue };
        for state in snapshots.states() {
            for group in state.groups(ALL).unwrap_or_default() {
                let _ = diff_groups(Some(&group), Some(&group), &mut |_| Ok(true));
                let Ok(mut entries) = group.read() else { continue };
                while let Ok(Some(entry)) = entries.next() {
                    let _ = group.line(&entry);
                }
            }
        }
    }
}
