//! Files that checkpoints share.

use std::{collections::BTreeSet, path::Path as FsPath};

use millrace_core::key::KeyGroupRange;

use super::{
    tests::{JOB, directory, files, leader, options},
    *,
};
use crate::{
    KeyedStateHandle, OwnState, SharedFile, SharedState, StateHandle,
    backend::BackendFile,
    log::JobLog,
    metadata::{CheckpointMetadata, tests::sample},
};

fn file(directory: &FsPath, name: &str, content: &str) -> BackendFile {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    BackendFile { name: name.into(), path, size: content.len() as u64, immutable: name.ends_with(".sst") }
}

/// Writes a checkpoint whose only state is in these files, and completes it.
async fn complete(
    storage: &CheckpointStorage,
    log: &mut JobLog,
    id: u64,
    files: &[BackendFile],
    uploaded: &UploadedFiles,
) -> Vec<SharedFile> {
    let shared = storage.write_shared(JOB, CheckpointId(id), files, uploaded).await.unwrap();
    let mut metadata = CheckpointMetadata { checkpoint: CheckpointId(id), ..sample("") };
    metadata.operators[1].subtasks[0].keyed = Some(KeyedStateHandle {
        range: KeyGroupRange::all(128),
        data: StateHandle::Shared(Box::new(SharedState {
            snapshot: OwnState::Inline(vec![1]),
            format: "files".into(),
            expiring: vec![],
            files: shared.clone(),
        })),
    });
    match storage.write_metadata(&metadata, false).await.unwrap() {
        MetadataWrite::Written(record) => log.append_checkpoint(record, 2).await.unwrap(),
        MetadataWrite::Conflict => panic!("conflict"),
    };
    uploaded.checkpoint_completed(CheckpointId(id));
    shared
}

async fn shared_names(storage: &CheckpointStorage) -> BTreeSet<String> {
    let local = |name: &String| Some(name.strip_prefix("shared/")?.rsplit_once('-')?.1.to_string());
    files(storage).await.iter().filter_map(local).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(String::from).into()
}

#[tokio::test]
async fn a_checkpoint_writes_what_no_completed_one_has_and_only_the_unneeded_is_swept() {
    let (dir, storage) = directory();
    let (mut log, uploaded) = (leader(&storage).await, UploadedFiles::default());
    let none = BTreeSet::new();
    let local = |name: &str, content: &str| file(dir.path(), name, content);
    let (a, b, c) = (local("a.sst", "a"), local("b.sst", "b"), local("c.sst", "c"));

    let first = complete(&storage, &mut log, 1, &[a.clone(), b.clone(), local("LIST", "1")], &uploaded).await;
    assert_eq!(first.iter().map(|shared| shared.local_name.as_str()).collect::<Vec<_>>(), ["a.sst", "b.sst", "LIST"]);
    let second = complete(&storage, &mut log, 2, &[a.clone(), b.clone(), local("LIST", "2")], &uploaded).await;
    assert_eq!(second[..2], first[..2], "what the first has is referred to");
    assert_ne!(second[2], first[2], "what may change is written again");

    // One that is abandoned: the next writes again what it has written, and what it has left goes.
    storage.write_shared(JOB, CheckpointId(3), &[b.clone(), c.clone()], &uploaded).await.unwrap();
    assert_eq!(storage.sweep_shared(JOB, log.view(), &none).await.unwrap(), 0, "a later checkpoint may be under way");
    let fourth = complete(&storage, &mut log, 4, &[b.clone(), c.clone()], &uploaded).await;
    assert_eq!(fourth[0], second[1]);
    assert_eq!(
        storage.sweep_shared(JOB, log.view(), &BTreeSet::from([CheckpointId(3)])).await.unwrap(),
        1,
        "LIST of 1"
    );
    assert_eq!(storage.sweep_shared(JOB, log.view(), &none).await.unwrap(), 1, "c.sst of 3");
    assert_eq!(shared_names(&storage).await, names(["a.sst", "b.sst", "c.sst", "LIST"]), "2 and 4 are retained");

    complete(&storage, &mut log, 5, std::slice::from_ref(&c), &uploaded).await;
    storage.sweep_shared(JOB, log.view(), &none).await.unwrap();
    assert_eq!(shared_names(&storage).await, names(["b.sst", "c.sst"]));
    for shared in &fourth {
        assert!(storage.is_shared_by(JOB, shared) && !storage.is_shared_by(JobId(1), shared));
    }
    // Whatever the newest one of the log needs can be fetched.
    let target = tempfile::tempdir().unwrap();
    storage.fetch_shared(&fourth, target.path(), None).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.path().join("c.sst")).unwrap(), "c");
    storage.delete_checkpoints(JOB).await.unwrap();
    assert!(shared_names(&storage).await.is_empty());
}

#[tokio::test]
async fn a_damaged_shared_file_is_refused_by_name() {
    let (dir, storage) = directory();
    let files = [file(dir.path(), "a.sst", "content")];
    let shared = storage.write_shared(JOB, CheckpointId(1), &files, &UploadedFiles::default()).await.unwrap();
    let name = &shared[0].file.name;
    let path = dir.path().join(format!("new/checkpoints/{JOB}/shared/{name}"));
    for (content, what) in [("contend", "checksum"), ("conten", "6 bytes instead of 7")] {
        std::fs::write(&path, content).unwrap();
        let target = tempfile::tempdir().unwrap();
        let error = storage.fetch_shared(&shared, target.path(), None).await.unwrap_err();
        assert!(error.message.contains(name) && error.message.contains(what) && !error.retryable, "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = storage.fetch_shared(&shared, dir.path(), None).await.unwrap_err();
    assert!(error.message.contains("missing"), "{error}");
}

#[tokio::test]
async fn a_local_file_that_cannot_be_read_is_named() {
    let (dir, storage) = directory();
    let mut gone = file(dir.path(), "a.sst", "content");
    std::fs::remove_file(&gone.path).unwrap();
    let write = async |file: &BackendFile| {
        let files = std::slice::from_ref(file);
        storage.write_shared(JOB, CheckpointId(1), files, &UploadedFiles::default()).await.unwrap_err()
    };
    assert!(write(&gone).await.message.contains("a.sst"));
    gone.name = "../a".into();
    assert!(write(&gone).await.message.contains("no name"));
    assert!(CheckpointStorage::open("memory:", &options()).is_ok());
}

#[test]
fn only_completed_checkpoints_count() {
    let file = |size| BackendFile { name: "a.sst".into(), path: "a".into(), size, immutable: true };
    let in_store = |name: &str| SharedFile {
        local_name: "a.sst".into(),
        file: crate::StateFile { directory: String::new(), name: name.into(), size: 1, crc32: 0 },
    };
    let uploaded = UploadedFiles::default();
    let found = |size| uploaded.find(&file(size)).map(|file| file.name);
    uploaded.add(CheckpointId(1), &[file(1)], &[in_store("of-1")]);
    assert_eq!(found(1), None);
    uploaded.add(CheckpointId(2), &[file(1)], &[in_store("of-2")]);
    uploaded.checkpoint_completed(CheckpointId(2));
    assert_eq!(found(1).as_deref(), Some("of-2"));
    assert_eq!(found(2), None, "another size is another file");
    uploaded.checkpoint_completed(CheckpointId(1));
    assert_eq!(found(1).as_deref(), Some("of-2"), "1 was over when 2 completed");
    uploaded.start_from(&[in_store("restored")]);
    assert_eq!(found(1).as_deref(), Some("restored"));
}

#[tokio::test]
async fn what_has_a_local_copy_is_linked_and_copies_go_when_nobody_refers_to_them() {
    let (dir, storage) = directory();
    let place = tempfile::tempdir().unwrap();
    let copies = Arc::new(LocalCopies::open(place.path().join("copies")).unwrap());
    let uploaded = UploadedFiles::new(Some(Arc::clone(&copies)));
    let mut log = leader(&storage).await;
    let (a, b) = (file(dir.path(), "a.sst", "a"), file(dir.path(), "b.sst", "b"));
    let first = complete(&storage, &mut log, 1, &[a.clone(), b, file(dir.path(), "LIST", "1")], &uploaded).await;
    let in_store = dir.path().join(format!("new/checkpoints/{JOB}/shared"));
    // Gone from the store: what is fetched all the same is local.
    for shared in &first[..2] {
        std::fs::remove_file(in_store.join(&shared.file.name)).unwrap();
    }
    let fetched = async |copies: Option<&Arc<LocalCopies>>| {
        let target = tempfile::tempdir_in(place.path()).unwrap();
        storage.fetch_shared(&first, target.path(), copies).await.map(|_| target)
    };
    assert!(fetched(None).await.is_err());
    let target = fetched(Some(&copies)).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.path().join("b.sst")).unwrap(), "b");
    assert_eq!(std::fs::read_to_string(target.path().join("LIST")).unwrap(), "1");

    let copy = |shared: &SharedFile| place.path().join("copies").join(&shared.file.name);
    assert!(!copy(&first[2]).exists(), "what may change has no copy");
    let next = Arc::new(LocalCopies::open(place.path().join("copies")).unwrap());
    fetched(Some(&next)).await.unwrap();
    std::fs::write(copy(&first[1]), "x").unwrap();
    let next = Arc::new(LocalCopies::open(place.path().join("copies")).unwrap());
    assert!(fetched(Some(&next)).await.is_err(), "a copy that another process has left damaged is not used");
    assert!(!copy(&first[1]).exists());

    complete(&storage, &mut log, 2, &[a], &uploaded).await;
    assert!(copy(&first[0]).exists());
    drop(uploaded);
    let other = UploadedFiles::new(Some(Arc::clone(&copies)));
    complete(&storage, &mut log, 3, &[file(dir.path(), "c.sst", "c")], &other).await;
    assert!(!copy(&first[0]).exists());
    assert_eq!(std::fs::read_dir(place.path().join("copies")).unwrap().count(), 1);
}
