//! RocksDB's files on a taskmanager's disk and in checkpoints: a directory that two taskmanagers are given, files that
//! are damaged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use millrace_testkit::cluster::{ClusterSpec, JobCluster, Result};
use tempfile::TempDir;

use crate::{
    Words, assert_calm, assert_says, cancel, counts, failed, job_over, restarting, stores::files, wait_for_count,
    wait_for_exception,
};

/// State in RocksDB below a directory, of which a checkpoint has what is new.
fn in_rocksdb(words: &Words, directory: &Path) -> ClusterSpec {
    job_over(words)
        .args(["--checkpoints", "100"])
        .set("state.backend", "rocksdb")
        .set("state.backend.rocksdb.localdir", directory.join("local").display().to_string())
        .set("state.checkpoints.dir", format!("file://{}", directory.join("checkpoints").display()))
        .set("execution.checkpointing.incremental", "true")
}

fn tables(directory: &Path) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    files(directory).into_iter().filter(is_table).collect()
}

/// Writes over all that a file has, and leaves its size.
fn damage(path: &Path) {
    let size = fs::metadata(path).expect("the file is there").len();
    fs::write(path, vec![0x5a; size as usize]).expect("the file can be written");
}

#[test]
fn two_taskmanagers_with_one_local_directory_are_told_of_it() -> Result<()> {
    let (words, place) = (Words::new(), tempfile::tempdir().expect("a directory can be made"));
    let spec = restarting(in_rocksdb(&words, place.path()), "200 ms").args(["--parallelism", "2"]).taskmanagers(2);
    let mut cluster = JobCluster::start(spec)?;
    let entry = wait_for_exception(&mut cluster, "is in use by process")?;
    let local = place.path().join("local").display().to_string();
    assert_says(&entry.stacktrace, &[&local, "give each taskmanager a state.backend.rocksdb.localdir of its own"]);
    cancel(&mut cluster)?;
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn local_copies_that_are_damaged_are_fetched_anew() -> Result<()> {
    let (mut words, place) = (Words::new(), tempfile::tempdir().expect("a directory can be made"));
    let mut cluster = JobCluster::start(restarting(in_rocksdb(&words, place.path()), "0 ms"))?;
    words.write_many(20, 1);
    wait_for_count(&mut cluster, 20)?;
    cluster.wait_for_new_checkpoint()?;
    let local = place.path().join("local");
    cluster.kill_taskmanager(0)?;
    for copy in tables(&local) {
        damage(&copy);
    }
    let second = cluster.start_taskmanager()?;
    words.write_many(20, 1);
    wait_for_count(&mut cluster, 40)?;
    let state = cluster.wait_until_running()?;
    assert_eq!(state.job.restarts, 1, "{state}");
    assert_says(&cluster.log(second), &["a local copy is damaged: it is fetched anew"]);
    let printed = counts(&cluster.stdout(second));
    assert!(printed.windows(2).all(|pair| pair[0] + 1 == pair[1]) && printed.last() == Some(&40), "{printed:?}");
    cancel(&mut cluster)?;
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_damaged_table_in_a_checkpoint_is_refused_by_name() -> Result<()> {
    let (mut words, place) = (Words::new(), tempfile::tempdir().expect("a directory can be made"));
    let mut cluster = JobCluster::start(in_rocksdb(&words, place.path()))?;
    words.write_many(20, 1);
    wait_for_count(&mut cluster, 20)?;
    cluster.stop()?;
    let retained = cluster.wait_end()?.retained_checkpoint.expect("a stopped job keeps its checkpoint");
    let shared = place.path().join("checkpoints").join(cluster.job().to_string()).join("shared");
    let table = tables(&shared).pop().expect("the state is in a table");
    let whole = fs::read(&table).expect("the file can be read");
    let refusal = |own: &TempDir| -> Result<String> {
        let spec = restarting(in_rocksdb(&words, own.path()), "0 ms").set("execution.state-recovery.path", &retained);
        failed(&mut JobCluster::start(spec)?)
    };
    let name = table.file_name().and_then(|name| name.to_str()).expect("a name").to_string();
    for (bytes, why) in
        [(Some(vec![0x5a; whole.len()]), "checksum"), (Some(whole[1..].to_vec()), "damaged"), (None, "missing")]
    {
        match bytes {
            Some(bytes) => fs::write(&table, bytes).expect("the file can be written"),
            None => fs::remove_file(&table).expect("the file can be removed"),
        }
        let own = tempfile::tempdir().expect("a directory can be made");
        assert_says(&refusal(&own)?, &[&name, why, "a restart can't cure it"]);
    }
    fs::write(&table, whole).expect("the file can be written");
    Ok(())
}
