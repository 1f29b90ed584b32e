//! The checkpoint store over memory and over a directory. S3 and faults are tested in `millrace-testkit`.

use std::collections::BTreeSet;

use millrace_core::ErrorDomain;
use tempfile::TempDir;

use super::*;
use crate::{
    StateHandle,
    log::{Claim, JobLog, LogError, TerminalRecord, TerminalResult},
    metadata::{CheckpointMetadata, tests::sample},
};

pub(super) const JOB: JobId = JobId(0xbeef);

pub(super) fn options() -> StorageOptions {
    StorageOptions::default()
}

pub(super) fn directory() -> (TempDir, CheckpointStorage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = CheckpointStorage::open(&format!("file://{}/new/checkpoints", dir.path().display()), &options());
    (dir, storage.unwrap())
}

/// One of each kind, with what keeps it alive.
fn all() -> Vec<(Option<TempDir>, CheckpointStorage)> {
    let (dir, local) = directory();
    vec![(None, CheckpointStorage::open("memory:", &options()).unwrap()), (Some(dir), local)]
}

fn metadata(id: u64) -> CheckpointMetadata {
    CheckpointMetadata { checkpoint: CheckpointId(id), operators: Vec::new(), ..sample("") }
}

async fn written(storage: &CheckpointStorage, id: u64) -> crate::log::CheckpointRecord {
    storage.write_state(JOB, CheckpointId(id), &format!("s{id}.state"), Bytes::from_static(b"state")).await.unwrap();
    match storage.write_metadata(&metadata(id), false).await.unwrap() {
        MetadataWrite::Written(record) => record,
        MetadataWrite::Conflict => panic!("conflict"),
    }
}

pub(super) async fn files(storage: &CheckpointStorage) -> Vec<String> {
    let job = storage.job_path(JOB, "");
    let mut files = storage.list(&job, None).await.unwrap();
    files.sort();
    let relative = |path: &Path| path.prefix_match(&job).unwrap().map(|p| p.as_ref().to_string()).collect::<Vec<_>>();
    files.iter().map(|path| relative(path).join("/")).collect()
}

pub(super) async fn leader(storage: &CheckpointStorage) -> JobLog {
    let mut log = JobLog::open(storage, JOB, RetryPolicy::NEVER);
    assert!(matches!(log.claim("test", 0).await.unwrap(), Claim::Leader(_)));
    log
}

#[tokio::test]
async fn states_are_read_as_they_were_written() {
    for (_dir, storage) in all() {
        for size in [0, 1, 100_000, 16 << 20, (40 << 20) + 7] {
            let bytes: Bytes = (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
            let name = unique_state_name("Flat Map/1");
            let handle = storage.write_state(JOB, CheckpointId(1), &name, bytes.clone()).await.unwrap();
            assert_eq!(handle.size(), size as u64);
            assert!(storage.read_state(&handle).await.unwrap() == bytes, "{size}");
            let middle = size as u64 / 3..size as u64 / 2;
            let part = storage.read_state_range(&handle, middle.clone()).await.unwrap();
            assert!(part == bytes.slice(middle.start as usize..middle.end as usize));
            assert!(storage.read_state_range(&handle, 0..size as u64 + 1).await.is_err());
        }
        let inline = StateHandle::Inline(vec![1, 2, 3]);
        assert_eq!(storage.read_state(&inline).await.unwrap(), [1u8, 2, 3].as_slice());
        assert_eq!(storage.read_state_range(&inline, 1..2).await.unwrap(), [2u8].as_slice());
    }
}

#[tokio::test]
async fn a_state_written_in_pieces_appears_when_it_is_whole() {
    for (_dir, storage) in all() {
        let mut writer = storage.state_writer(JOB, CheckpointId(1), "big.state").unwrap();
        let piece = vec![7u8; 5 << 20];
        for _ in 0..8 {
            writer.write(&piece).await.unwrap();
        }
        assert!(!files(&storage).await.contains(&"chk-1/big.state".to_string()));
        let handle = writer.finish().await.unwrap();
        assert_eq!(handle.size(), 40 << 20);
        assert!(storage.read_state(&handle).await.unwrap().iter().all(|byte| *byte == 7));
        assert_eq!(files(&storage).await, ["chk-1/big.state"]);
    }
}

#[tokio::test]
async fn damaged_states_are_refused_by_name() {
    let (dir, storage) = directory();
    let bytes = Bytes::from_static(b"0123456789");
    let handle = storage.write_state(JOB, CheckpointId(1), "a.state", bytes).await.unwrap();
    let file = dir.path().join(format!("new/checkpoints/{JOB}/chk-1/a.state"));
    let refused = async |what: &str| {
        let error = storage.read_state(&handle).await.unwrap_err();
        assert!(error.message.contains("chk-1/a.state") && error.message.contains(what), "{error}");
        assert_eq!((error.domain, error.retryable), (ErrorDomain::External, false));
    };
    std::fs::write(&file, b"012345678").unwrap();
    refused("9 bytes instead of 10").await;
    std::fs::write(&file, b"0123456780").unwrap();
    refused("checksum").await;
    std::fs::remove_file(&file).unwrap();
    refused("missing").await;
}

#[tokio::test]
async fn a_handle_cannot_lead_out_of_its_directory() {
    let (dir, storage) = directory();
    std::fs::write(dir.path().join("secret"), b"x").unwrap();
    for name in ["../../../../secret", "..", "", "a/b"] {
        let file = StateHandle::File {
            directory: storage.checkpoint_uri(JOB, CheckpointId(1)),
            name: name.to_string(),
            size: 1,
            crc32: crc32fast::hash(b"x"),
        };
        assert!(!storage.read_state(&file).await.unwrap_err().retryable, "{name:?}");
        assert!(storage.state_writer(JOB, CheckpointId(1), name).is_err());
    }
}

#[tokio::test]
async fn metadata_is_written_once() {
    for (_dir, storage) in all() {
        let first = storage.write_metadata(&metadata(1), true).await.unwrap();
        let MetadataWrite::Written(record) = &first else { panic!("{first:?}") };
        assert!(record.commits && record.metadata == "chk-1/_metadata");
        // The same again, as after a lost answer, is no conflict; anything else is.
        assert_eq!(storage.write_metadata(&metadata(1), true).await.unwrap(), first);
        let other = CheckpointMetadata { generation: millrace_core::ids::Generation(9), ..metadata(1) };
        assert_eq!(storage.write_metadata(&other, true).await.unwrap(), MetadataWrite::Conflict);
        assert_eq!(storage.read_metadata(JOB, record).await.unwrap(), metadata(1));
    }
}

#[tokio::test]
async fn damaged_metadata_is_refused_by_name() {
    let (dir, storage) = directory();
    let record = written(&storage, 1).await;
    let refused = async |record: &crate::log::CheckpointRecord, what: &str| {
        let error = storage.read_metadata(JOB, record).await.unwrap_err();
        assert!(error.message.contains("chk-1/_metadata") && error.message.contains(what), "{error}");
        assert!(!error.retryable);
    };
    refused(&crate::log::CheckpointRecord { metadata_crc32: 1, ..record.clone() }, "checksum 00000001").await;
    // Whole and in its place, but another job's.
    let foreign = CheckpointMetadata { job: JobId(1), ..metadata(1) }.encode().unwrap();
    let file = dir.path().join(format!("new/checkpoints/{JOB}/chk-1/_metadata"));
    std::fs::write(&file, &foreign).unwrap();
    let (metadata_size, metadata_crc32) = (foreign.len() as u64, crc32fast::hash(&foreign));
    refused(&crate::log::CheckpointRecord { metadata_size, metadata_crc32, ..record.clone() }, "foreign").await;
    std::fs::write(&file, &foreign[..10]).unwrap();
    refused(&record, "damaged").await;
    std::fs::remove_file(&file).unwrap();
    refused(&record, "missing").await;
}

#[tokio::test]
async fn a_damaged_newest_checkpoint_is_gone_back_behind_only_where_nothing_was_committed() {
    for commits in [false, true] {
        let (dir, storage) = directory();
        let mut log = leader(&storage).await;
        assert_eq!(storage.latest_checkpoint(JOB, log.view(), &[], false).await.unwrap(), None);
        for id in [1, 2] {
            let record = crate::log::CheckpointRecord { commits, ..written(&storage, id).await };
            log.append_checkpoint(record, 3).await.unwrap();
        }
        let latest = async |allow: bool| storage.latest_checkpoint(JOB, log.view(), &[], allow).await;
        assert_eq!(latest(false).await.unwrap().unwrap().checkpoint, CheckpointId(2));
        std::fs::write(dir.path().join(format!("new/checkpoints/{JOB}/chk-2/_metadata")), b"torn").unwrap();
        assert_eq!(latest(true).await.unwrap().unwrap().checkpoint, CheckpointId(1));
        match latest(false).await {
            Ok(found) => assert!(!commits && found.unwrap().checkpoint == CheckpointId(1)),
            Err(error) => assert!(commits && error.message.contains("chk-2/_metadata"), "{error}"),
        }
        // Gone with its whole directory: that may pass, and is no reason to go back.
        std::fs::rename(dir.path().join("new"), dir.path().join("away")).unwrap();
        assert!(latest(true).await.unwrap_err().retryable);
    }
}

#[tokio::test]
async fn checkpoints_are_listed_deleted_and_swept() {
    for (_dir, storage) in all() {
        let mut log = leader(&storage).await;
        for id in [1, 2, 3, 5, 6, 8] {
            let record = written(&storage, id).await;
            if [3, 6].contains(&id) {
                log.append_checkpoint(record, 2).await.unwrap();
            }
        }
        let ids = |ids: &[u64]| ids.iter().copied().map(CheckpointId).collect::<Vec<_>>();
        let listed = async || storage.list_checkpoints(JOB).await.unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(listed().await, ids(&[1, 2, 3, 5, 6, 8]));
        storage.delete_checkpoint(JOB, CheckpointId(1)).await.unwrap();
        storage.delete_checkpoint(JOB, CheckpointId(1)).await.unwrap();
        assert_eq!(listed().await, ids(&[2, 3, 5, 6, 8]));
        // Spared: what the log names (3, 6), what is under way (5), what is newer than the newest (8).
        let live = BTreeSet::from([CheckpointId(5)]);
        assert_eq!(storage.sweep(JOB, log.view(), &live).await.unwrap(), ids(&[2]));
        assert_eq!(listed().await, ids(&[3, 5, 6, 8]));
        assert_eq!(files(&storage).await.iter().filter(|file| file.starts_with("chk-6/")).count(), 2);
    }
}

#[tokio::test]
async fn nothing_is_swept_before_a_checkpoint_is_complete() {
    let storage = CheckpointStorage::open("memory:", &options()).unwrap();
    let log = leader(&storage).await;
    written(&storage, 1).await;
    assert_eq!(storage.sweep(JOB, log.view(), &BTreeSet::new()).await.unwrap(), []);
    assert_eq!(storage.list_checkpoints(JOB).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_ended_job_keeps_its_log_until_all_of_it_is_deleted() {
    for (_dir, storage) in all() {
        let mut log = leader(&storage).await;
        log.append_checkpoint(written(&storage, 1).await, 3).await.unwrap();
        let end = TerminalRecord { result: TerminalResult::Canceled, checkpoints_retained: false, deployment: 0 };
        log.append_terminal(end.clone()).await.unwrap();
        storage.delete_checkpoints(JOB).await.unwrap();
        assert!(files(&storage).await.iter().all(|file| file.starts_with("log/")));
        let mut next = JobLog::open(&storage, JOB, RetryPolicy::NEVER);
        assert_eq!(next.claim("next", 0).await.unwrap(), Claim::Ended(end));
        storage.delete_job(JOB).await.unwrap();
        assert_eq!(files(&storage).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_log_works_over_a_store() {
    for (_dir, storage) in all() {
        let mut first = leader(&storage).await;
        for id in 1..=4 {
            let appended = first.append_checkpoint(written(&storage, id).await, 2).await.unwrap();
            assert_eq!(appended.position, id + 1);
            assert_eq!(
                appended.released.iter().map(|record| record.id.0).collect::<Vec<_>>(),
                match id {
                    1 | 2 => vec![],
                    _ => vec![id - 2],
                }
            );
        }
        assert_eq!(first.trim().await.unwrap(), 2);
        let mut second = leader(&storage).await;
        assert_eq!(second.view().checkpoints().map(|record| record.id.0).collect::<Vec<_>>(), [3, 4]);
        let fenced = LogError::Fenced { generation: millrace_core::ids::Generation(2) };
        assert_eq!(first.assert_still_leader().await.unwrap_err(), fenced);
        assert_eq!(
            first
                .append_terminal(TerminalRecord {
                    result: TerminalResult::Finished,
                    checkpoints_retained: true,
                    deployment: 0
                })
                .await
                .unwrap_err(),
            fenced
        );
        second.assert_still_leader().await.unwrap();
    }
}

#[tokio::test]
async fn a_checkpoint_is_opened_from_its_directory_or_its_metadata_and_read_anywhere() {
    let (_dir, storage) = directory();
    let handle =
        storage.write_state(JOB, CheckpointId(7), "count-0.state", Bytes::from_static(b"state")).await.unwrap();
    let mut taken = sample("");
    taken.operators[1].subtasks[0].keyed.as_mut().unwrap().data = handle;
    storage.write_metadata(&taken, false).await.unwrap();
    let uri = storage.checkpoint_uri(JOB, CheckpointId(7));
    let elsewhere = CheckpointStorage::open("memory:", &options()).unwrap();
    for uri in [uri.clone(), format!("{uri}/"), format!("{uri}/_metadata")] {
        let opened = open_checkpoint(&uri, &options()).await.unwrap();
        assert_eq!(opened, taken);
        let keyed = opened.operators[1].subtasks[0].keyed.as_ref().unwrap();
        assert_eq!(elsewhere.read_state(&keyed.data).await.unwrap(), b"state".as_slice());
    }
    for (uri, what) in
        [(format!("{uri}x"), "chk-7x"), (storage.uri().to_string(), "_metadata"), ("memory:".into(), "memory")]
    {
        let error = open_checkpoint(&uri, &options()).await.unwrap_err();
        assert!(error.message.contains(what) && !error.retryable, "{error}");
    }
}

#[tokio::test]
async fn a_probe_passes_and_leaves_nothing() {
    for (_dir, storage) in all() {
        storage.probe().await.unwrap();
        assert_eq!(storage.list(&Path::default(), None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    for uri in [format!("file://{}/file", dir.path().display()), "file:///proc/nowhere".to_string()] {
        let error = CheckpointStorage::open(&uri, &options()).unwrap_err();
        assert!(error.message.contains(&uri) && !error.retryable, "{error}");
    }
}

#[test]
fn names_of_checkpoints_are_read_only_as_they_are_written() {
    assert_eq!(checkpoint_of("chk-7"), Some(CheckpointId(7)));
    for name in ["chk-07", "chk-+7", "chk-", "chk-7x", "log", "chk-99999999999999999999999"] {
        assert_eq!(checkpoint_of(name), None, "{name}");
    }
}
