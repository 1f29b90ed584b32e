//! RocksDB passes the suite that every backend passes, and reads what the others wrote.

use std::{path::Path, sync::Arc};

use millrace_state::{FsStateBackend, StateBackend};
use millrace_state_rocksdb::{LEAST_MEMORY_SIZE, RocksDBStateBackend};
use millrace_testkit::conformance::{BTreeStateBackend, checkpoint_compatibility, state_backend_conformance};
use tempfile::TempDir;

/// The suite opens thousands of databases, each of which makes and syncs a dozen files: where there is a disk in memory it
/// takes a tenth of the time there.
fn rocksdb() -> (TempDir, Arc<dyn StateBackend>) {
    let in_memory = Path::new("/dev/shm");
    let directory = tempfile::tempdir_in(in_memory).or_else(|_| tempfile::tempdir()).expect("a directory");
    let backend = RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE);
    let backend = Arc::new(backend.with_local_directory(directory.path()));
    (directory, backend)
}

#[test]
fn rocksdb_is_a_state_backend() {
    let (_directory, backend) = rocksdb();
    state_backend_conformance(&backend);
}

#[test]
fn checkpoints_of_rocksdb_and_others_restore_on_each_other() {
    let (_directory, backend) = rocksdb();
    checkpoint_compatibility(&[backend, Arc::new(FsStateBackend::configured()), Arc::new(BTreeStateBackend)]);
}
