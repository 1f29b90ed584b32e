//! The backend as its store uses it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_core::{Result, clock::Clock, key::KeyHash};
use millrace_state::{
    BytesBackend, KeyedBackend, KeyedBackendContext, StateBackend,
    backend::{BytesSnapshot, FileBackend, SnapshotFiles, StateKey},
};

use rocksdb::{BottommostLevelCompaction, CompactOptions, IteratorMode, properties::AGGREGATED_TABLE_PROPERTIES};

use crate::{
    LEAST_MEMORY_SIZE, RocksDBStateBackend,
    backend::Process,
    database::{Database, Dead},
    encoding::{encode_key, encode_value},
    error::LOCAL_DIRECTORY,
    local_dir::LocalDirectory,
    memory::SharedMemory,
    run::Run,
    state::RocksDBBackend,
};

pub(crate) const GROUPS: u32 = 4;

fn context(clock: Clock) -> KeyedBackendContext {
    KeyedBackendContext { clock, ..KeyedBackendContext::alone("operator", GROUPS) }
}

fn open(backend: &RocksDBStateBackend, clock: &Clock) -> Box<dyn BytesBackend> {
    match backend.open(&context(clock.clone())).unwrap() {
        KeyedBackend::Bytes(bytes) => bytes,
        KeyedBackend::Heap => panic!("RocksDB holds bytes"),
    }
}

fn small() -> RocksDBStateBackend {
    RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE)
}

/// A filter of megabytes would push everything else out of a small cache, again and again.
#[test]
fn filters_are_in_pieces_once_they_would_take_too_much_of_the_cache() {
    let database = database(Clock::system());
    (1..16).for_each(|_| database.memory().join());
    let most = database.memory().filter_share() as u32 * 8 / 10;
    let mut numbers = 0..;
    let mut ingest = || {
        let mut run = Run::default();
        numbers.by_ref().take(most as usize * 2 / 3).for_each(|number: u32| run.push(&number.to_be_bytes(), Some(b"")));
        database.ingest(&run).unwrap();
    };
    let in_pieces = || {
        let properties = database.db().property_value(AGGREGATED_TABLE_PROPERTIES).unwrap().unwrap();
        properties.contains("index partitions")
    };
    ingest();
    ingest();
    assert!(!in_pieces(), "there was room");
    ingest();
    assert!(in_pieces(), "a file that is added");
    let mut all = CompactOptions::default();
    all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    database.db().compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
    assert!(in_pieces(), "and one that was compacted");
}

/// A database of its own.
pub(crate) fn database(clock: Clock) -> Database {
    let memory = Arc::new(SharedMemory::new(LEAST_MEMORY_SIZE).unwrap());
    let process = Arc::new(LocalDirectory::open(None).unwrap());
    let files = process.attempt("a", 0).unwrap();
    let dead = Dead::new(&context(clock));
    Database::open(files, Process { memory, directory: process }, dead, false).unwrap()
}

pub(crate) fn at(key: &[u8]) -> StateKey<'_> {
    StateKey { state: 1, key_group: KeyHash::of(key).key_group(GROUPS), key, sub_key: None }
}

fn value(state: &mut dyn BytesBackend, key: &[u8]) -> Option<Vec<u8>> {
    state.get(at(key)).unwrap().map(|stored| stored.value)
}

fn entries(snapshot: &mut dyn BytesSnapshot) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for key_group in 0..GROUPS as u16 {
        snapshot.scan(1, key_group, &mut |at, value, _| {
            all.insert(at.key.to_vec(), value.to_vec());
            Ok(())
        })?;
    }
    Ok(all)
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, extension)),
            false if path.extension().is_some_and(|its| its == extension) => found.push(path),
            false => {}
        }
    }
    found
}

/// More than the memory holds, so that entries go to the database and come back from it.
#[test]
fn state_larger_than_its_memory_is_all_there() {
    let (backend, clock) = (small(), Clock::system());
    let mut state = open(&backend, &clock);
    let padding = [7u8; 400];
    for number in 0u32..40_000 {
        state.put(at(&number.to_be_bytes()), &[&number.to_le_bytes(), &padding[..]].concat(), None).unwrap();
    }
    for number in (0u32..40_000).step_by(3) {
        state.delete(at(&number.to_be_bytes())).unwrap();
    }
    let mut snapshot = state.snapshot().unwrap();
    for number in 0u32..40_000 {
        let found = value(&mut *state, &number.to_be_bytes());
        let expected = (number % 3 != 0).then(|| [&number.to_le_bytes(), &padding[..]].concat());
        assert_eq!(found, expected, "{number}");
    }
    assert_eq!(entries(&mut *snapshot).unwrap().len(), 40_000 - 13_334);
}

/// So many that each has the least share: all together they stay within the setting, and all is there.
#[test]
fn many_databases_stay_within_the_memory_setting() {
    const DATABASES: u32 = 40;
    const KEYS: u32 = 400;
    let memory = u64::from(DATABASES) * (512 << 10);
    let (backend, clock) = (RocksDBStateBackend::configured().with_memory_size(memory), Clock::system());
    let mut states: Vec<_> = (0..DATABASES).map(|_| open(&backend, &clock)).collect();
    let padding = [7u8; 1000];
    let mut highest = 0;
    for number in 0..KEYS {
        for state in &mut states {
            let sub_key = StateKey { sub_key: Some(&number.to_be_bytes()), ..at(b"k") };
            state.put(sub_key, &number.to_le_bytes(), None).unwrap();
            state.put(at(&number.to_be_bytes()), &[&number.to_le_bytes(), &padding[..]].concat(), None).unwrap();
        }
        highest = highest.max(backend.managed_memory().unwrap().used);
    }
    // What each has written is more than its share.
    assert!(highest > memory / 4, "{highest} of {memory} bytes");
    assert!(highest <= memory, "{highest} of {memory} bytes");
    for state in &mut states {
        for number in 0..KEYS {
            assert!(value(&mut **state, &number.to_be_bytes()).unwrap().starts_with(&number.to_le_bytes()));
        }
    }
}

/// The task goes on between the two parts of a snapshot, and writes so much that it must link the cut itself.
#[test]
fn what_is_written_after_a_snapshot_began_is_not_in_it() {
    let (backend, clock) = (small(), Clock::system());
    let mut state = open(&backend, &clock);
    for number in 0u32..1000 {
        state.put(at(&number.to_be_bytes()), b"before", None).unwrap();
    }
    let mut first = state.snapshot().unwrap();
    let mut same = state.snapshot().unwrap();
    state.put(at(&5u32.to_be_bytes()), b"between", None).unwrap();
    let mut second = state.snapshot().unwrap();
    for number in 0u32..100_000 {
        state.put(at(&number.to_be_bytes()), b"after", None).unwrap();
    }
    let third = state.snapshot().unwrap();
    drop(third);
    drop(state);
    let second = std::thread::spawn(move || entries(&mut *second).unwrap()).join().unwrap();
    assert_eq!(second.len(), 1000);
    assert_eq!(second.values().filter(|value| *value == b"before").count(), 999);
    assert_eq!(second[&5u32.to_be_bytes().to_vec()], b"between");
    assert_eq!(entries(&mut *same).unwrap().len(), 1000);
    drop(same);
    assert!(entries(&mut *first).unwrap().values().all(|value| value == b"before"), "also after the state is gone");
}

#[test]
fn a_snapshot_and_a_state_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, clock) = (small().with_local_directory(directory.path()), Clock::system());
    let mut state = open(&backend, &clock);
    state.put(at(b"a"), b"1", None).unwrap();
    let mut snapshot = state.snapshot().unwrap();
    assert_eq!(entries(&mut *snapshot).unwrap().len(), 1);
    assert_eq!(files(directory.path(), "sst").len(), 2, "the file and its link");
    drop(snapshot);
    assert_eq!(files(directory.path(), "sst").len(), 1);
    drop(state);
    assert_eq!(fs::read_dir(directory.path().join("attempts")).unwrap().count(), 0);
}

#[test]
fn prefetched_entries_are_those_that_are_there() {
    let (backend, clock) = (small(), Clock::system());
    let mut state = open(&backend, &clock);
    // So much that the first ones are hot no more.
    for number in 0u32..50_000 {
        state.put(at(&number.to_be_bytes()), &number.to_le_bytes(), None).unwrap();
    }
    let keys: Vec<_> = [3u32, 70_000, 3, 9, 49_999].map(u32::to_be_bytes).into();
    state.prefetch(&keys.iter().map(|key| at(key)).collect::<Vec<_>>()).unwrap();
    let found: Vec<_> = keys.iter().map(|key| value(&mut *state, key)).collect();
    let of = |number: u32| Some(number.to_le_bytes().to_vec());
    assert_eq!(found, [of(3), None, of(3), of(9), of(49_999)]);
    state.put(at(&keys[0]), b"new", None).unwrap();
    state.prefetch(&[at(&keys[0])]).unwrap();
    assert_eq!(value(&mut *state, &keys[0]), Some(b"new".to_vec()));
}

#[test]
fn a_scan_finds_what_is_written_and_what_is_not_yet() {
    let (backend, clock) = (small(), Clock::system());
    let mut state = open(&backend, &clock);
    let sub = |sub_key: &'static [u8]| StateKey { sub_key: Some(sub_key), ..at(b"k") };
    for sub_key in [b"a".as_slice(), b"c", b"e", b"g"] {
        state.put(sub(sub_key), b"old", Some(9)).unwrap();
    }
    state.put(StateKey { sub_key: Some(b"a"), ..at(b"k\0") }, b"another key's", None).unwrap();
    drop(state.snapshot().unwrap());
    for sub_key in [b"".as_slice(), b"c", b"h"] {
        state.put(sub(sub_key), b"new", None).unwrap();
    }
    state.delete(sub(b"e")).unwrap();
    state.delete(sub(b"f")).unwrap();
    state.put(at(b"k"), b"whole", None).unwrap();
    let mut found = Vec::new();
    let mut visit = |sub_key: Option<&[u8]>, value: &[u8], expiry| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
        found.push((sub_key.map(text), text(value), expiry));
        Ok(())
    };
    state.scan(at(b"k"), &mut visit).unwrap();
    let entry = |sub_key: Option<&str>, value: &str, expiry| (sub_key.map(String::from), value.to_string(), expiry);
    assert_eq!(
        found,
        [
            entry(None, "whole", None),
            entry(Some(""), "new", None),
            entry(Some("a"), "old", Some(9)),
            entry(Some("c"), "new", None),
            entry(Some("g"), "old", Some(9)),
            entry(Some("h"), "new", None),
        ]
    );
}

/// An expired entry may be shown until a compaction comes by, and goes then; the others stay.
#[test]
fn compaction_drops_what_is_dead() {
    let (clock, time) = Clock::manual(1000);
    let database = database(clock);
    let mut run = Run::default();
    let foreign = StateKey { key_group: GROUPS as u16, ..at(b"d") };
    for (at, expiry) in [(at(b"a"), None), (at(b"b"), Some(1500)), (at(b"c"), Some(1501)), (foreign, None)] {
        let (mut stored_key, mut stored) = (Vec::new(), Vec::new());
        encode_key(at, &mut stored_key);
        encode_value(b"value", expiry, &mut stored);
        run.push(&stored_key, Some(&stored));
    }
    run.sort();
    database.ingest(&run).unwrap();
    let left = || {
        database.db().flush().unwrap();
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        database.db().compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        database.db().iterator(IteratorMode::Start).count()
    };
    assert_eq!(left(), 3, "those of other subtasks at once, the others not before their time");
    time.set(1500);
    assert_eq!(left(), 2);
    time.set(u64::MAX);
    assert_eq!(left(), 1);
}

#[test]
fn damaged_files_are_named_and_may_be_fetched_anew() {
    let directory = tempfile::tempdir().unwrap();
    // So much memory that there is one file, which no compaction writes anew.
    let backend = RocksDBStateBackend::configured().with_local_directory(directory.path());
    let mut state = open(&backend, &Clock::system());
    for number in 0u32..20_000 {
        state.put(at(&number.to_be_bytes()), &[1; 100], None).unwrap();
    }
    let mut snapshot = state.snapshot().unwrap();
    entries(&mut *snapshot).unwrap();
    let files = files(directory.path(), "sst");
    assert_eq!(files.len(), 2, "the file and its link");
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle..middle + 200].fill(0x55);
        // In place: the links share the file.
        fs::write(&file, bytes).unwrap();
    }
    let mut again = state.snapshot().unwrap();
    let error = entries(&mut *again).unwrap_err();
    assert!(error.message.contains("is damaged") && error.retryable, "{error}");
    assert!(error.message.contains(directory.path().file_name().unwrap().to_str().unwrap()), "{error}");
}

#[test]
fn a_local_directory_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let backend = small().with_local_directory(file.path());
    let error = backend.open(&context(Clock::system())).err().unwrap();
    assert!(error.message.contains(LOCAL_DIRECTORY), "{error}");
    assert!(error.message.contains(file.path().to_str().unwrap()), "{error}");
}

/// A value of 1 MiB that does not compress.
fn megabyte(number: u32, round: u32) -> Vec<u8> {
    let mut random = u64::from(number) << 32 | u64::from(round);
    let words = (0..1 << 17).flat_map(|_| {
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        random.to_le_bytes()
    });
    words.collect()
}

/// A database all of whose files are written anew at once, again and again: its snapshots are the files that were there
/// before and the runs since. From each of them it is read, and gone on from.
#[test]
fn a_snapshot_is_a_base_and_the_runs_since() {
    let (directory, context) = (tempfile::tempdir().unwrap(), context(Clock::system()));
    let backend = small().with_local_directory(directory.path()).with_incremental_checkpoints(true);
    let open = |files, incremental| {
        let database = Database::open(files, backend.process().unwrap(), Dead::new(&context), incremental);
        RocksDBBackend::new(database.unwrap())
    };
    // As a checkpoint has them.
    let fetch = |listed: &SnapshotFiles| {
        let place = backend.directory(&context).unwrap();
        for file in &listed.files {
            fs::copy(&file.path, place.directory().join(&file.name)).unwrap();
        }
        place
    };
    let mut expected = BTreeMap::new();
    let mut state = open(backend.directory(&context).unwrap(), true);
    let (mut runs, mut ahead) = (0, 0);
    for round in 0..6 {
        // All at first, then some, of which some go.
        for number in (0u32..48).step_by(if round == 0 { 1 } else { 5 + round as usize }) {
            let key = number.to_be_bytes();
            if (number + round) % 3 == 2 {
                state.delete(at(&key)).unwrap();
                expected.remove(key.as_slice());
            } else {
                let value = megabyte(number, round);
                state.put(at(&key), &value, None).unwrap();
                expected.insert(key.to_vec(), value);
            }
        }
        let mut snapshot = state.snapshot().unwrap();
        let listed = snapshot.files().unwrap().unwrap();
        runs += listed.files.iter().filter(|file| file.name.starts_with("run-")).count();
        ahead += listed.ahead.len();
        let mut read = backend.read(&context, fetch(&listed)).unwrap();
        assert!(entries(&mut *read).unwrap() == expected, "round {round}, read");
        let mut adopted = open(fetch(&listed), round % 2 == 1);
        drop(snapshot);
        assert!(entries(&mut *adopted.snapshot().unwrap()).unwrap() == expected, "round {round}, gone on");
        if round % 2 == 1 {
            state = adopted;
        }
        let mut all = CompactOptions::default();
        all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        state.database().db().compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
    }
    assert!(runs > 0 && ahead > 0, "{runs} runs, {ahead} files ahead");
}
