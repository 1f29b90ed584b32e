//! Any to any: a checkpoint of each backend at each parallelism is restored on each backend at each parallelism, and the
//! job tells what a job tells that was never interrupted.
//!
//! A cell of the matrix is a test, named by both: `cargo test --test matrix 'rocksdb@3 -> memory@7'`.

mod director;
mod job;
mod source;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use millrace::prelude::*;
use millrace_testkit::conformance::BTreeStateBackend;
use tempfile::TempDir;

use director::{Director, END, LATER, Output};
use job::{HALF, KEYS, Last, RECORDS, RULES, Told};

const PARALLELISMS: [u32; 4] = [1, 2, 3, 7];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Memory,
    FileSystem,
    /// One of the user's, registered by name.
    Own,
    #[cfg(feature = "rocksdb")]
    RocksDB {
        incremental: bool,
    },
}

const BACKENDS: &[(&str, Backend)] = &[
    ("memory", Backend::Memory),
    ("filesystem", Backend::FileSystem),
    ("own", Backend::Own),
    #[cfg(feature = "rocksdb")]
    ("rocksdb", Backend::RocksDB { incremental: false }),
    #[cfg(feature = "rocksdb")]
    ("rocksdb-incremental", Backend::RocksDB { incremental: true }),
];

/// Where a job keeps its state, and how often it is split.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    backend: Backend,
    parallelism: u32,
}

impl Place {
    fn all() -> impl Iterator<Item = Self> {
        let of_backend = |&(name, backend): &(&'static str, Backend)| {
            PARALLELISMS.into_iter().map(move |parallelism| Self { name, backend, parallelism })
        };
        BACKENDS.iter().flat_map(of_backend)
    }

    /// Checkpoints often: the writer ends with the first that has its half.
    fn environment(self, directory: &TempDir) -> StreamExecutionEnvironment {
        let mut env = StreamExecutionEnvironment::new();
        env.set_parallelism(self.parallelism).enable_checkpointing(Duration::from_millis(20));
        // Jobs that end half-way fail, as they are to.
        env.configure("log.level", "off");
        let checkpoints = format!("file://{}", directory.path().join("checkpoints").display());
        match self.backend {
            Backend::Memory => {
                env.configure("state.checkpoints.dir", checkpoints).set_state_backend(MemoryStateBackend::default())
            }
            Backend::FileSystem => env.set_state_backend(FsStateBackend::new(checkpoints)),
            Backend::Own => env
                .register_state_backend(BTreeStateBackend)
                .configure("state.backend", "btree")
                .configure("state.checkpoints.dir", checkpoints),
            #[cfg(feature = "rocksdb")]
            Backend::RocksDB { incremental } => env.set_state_backend(
                RocksDBStateBackend::new(checkpoints)
                    .with_memory_size(16 << 20)
                    .with_local_directory(directory.path().join("local"))
                    .with_incremental_checkpoints(incremental),
            ),
        };
        env
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.parallelism)
    }
}

/// A checkpoint of the job half-way, which any number of jobs start from.
struct Written {
    by: Place,
    /// Removed with it.
    _directory: TempDir,
    checkpoint: String,
    /// What the job had told.
    output: Output,
}

impl Written {
    fn new(by: Place) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (director, clock) = Director::from_start(by.parallelism, true);
        match job::run(by.environment(&directory), &director, clock) {
            Err(error) if error.message.contains(source::HALFWAY) => {}
            ended => return Err(format!("{by} did not end half-way: {ended:?}")),
        }
        let (checkpoint, output) = director.take();
        let checkpoint = checkpoint.ok_or_else(|| format!("{by} has no checkpoint"))?;
        let jobs = std::fs::read_dir(directory.path().join("checkpoints")).map_err(|error| error.to_string())?;
        let jobs: Vec<PathBuf> =
            jobs.flatten().map(|job| job.path()).filter(|path| path.join("log").is_dir()).collect();
        let [job] = &jobs[..] else { return Err(format!("{by} left the jobs {jobs:?}")) };
        let checkpoint = format!("file://{}/chk-{}", job.display(), checkpoint.0);
        Ok(Self { by, _directory: directory, checkpoint, output })
    }

    /// Goes on from the checkpoint.
    fn restore(&self, on: Place) -> Result<Output, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (director, clock) = Director::from_halfway(on.parallelism);
        let mut env = on.environment(&directory);
        env.configure("execution.state-recovery.path", &self.checkpoint);
        job::run(env, &director, clock).map_err(|error| format!("{} -> {on}: {error}", self.by))?;
        Ok(self.output.and(director.take().1))
    }
}

/// What a job tells that is never interrupted.
fn uninterrupted() -> Result<Output, String> {
    let place = Place { name: "memory", backend: Backend::Memory, parallelism: 1 };
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (director, clock) = Director::from_start(1, false);
    job::run(place.environment(&directory), &director, clock).map_err(|error| error.to_string())?;
    let golden = director.take().1;
    assert_meaningful(&golden);
    Ok(golden)
}

fn multiples(of: u64, below: u64) -> Vec<u64> {
    (0..below).step_by(of as usize).collect()
}

/// The job that is never interrupted does what it is meant to, or all cells would be compared with nonsense.
fn assert_meaningful(golden: &Output) {
    assert_eq!(golden.told.len() as u64, RECORDS + KEYS * 3);
    assert_eq!(golden.list, multiples(5, RECORDS));
    for number in 0..KEYS {
        let records: Vec<u64> = (number..RECORDS).step_by(KEYS as usize).collect();
        let (before, after): (Vec<u64>, Vec<u64>) = records.iter().partition(|record| **record < HALF);
        let key = job::key_of(number);
        let told: Vec<_> = golden.told.iter().filter(|told| told.key == key).collect();
        let timers: Vec<_> = told.iter().filter_map(|told| told.timer).collect();
        assert_eq!(timers, [LATER, END - 1, END], "the timers of {key}");
        assert_eq!(told[before.len()].timer, Some(LATER), "{key} begins its second half with a timer");
        let record = *records.last().unwrap();
        let end = Told {
            key,
            timer: Some(END),
            last: Some(Last {
                count: records.len() as u64,
                record: Some(record),
                text: "x".repeat(record as usize % 9),
            }),
            map: records.iter().map(|record| (record % 13, record.to_string())).collect(),
            least: Some(RECORDS - record),
            average: Some(records.iter().sum::<u64>() / records.len() as u64),
            // What was last written in the first half has expired.
            expiring: if number % 2 == 0 { records.len() as u64 } else { 0 },
            expiring_map: after.iter().map(|record| (*record, record + 1)).collect(),
            rules: (0..RULES).map(|number| (number, job::rule(number))).collect(),
            list: records,
        };
        assert_eq!(**told.last().unwrap(), end);
    }
}

/// One cell of the matrix.
fn cell(golden: &Output, written: &Written, on: Place) -> Result<(), Failed> {
    let Output { told, list, union } = written.restore(on)?;
    if let Some((one, other)) = told.iter().zip(&golden.told).find(|(one, other)| one != other) {
        return Err(format!("tells {one:#?}\ninstead of {other:#?}").into());
    }
    if told.len() != golden.told.len() {
        return Err(format!("tells {} times instead of {}", told.len(), golden.told.len()).into());
    }
    if list != golden.list {
        return Err(format!("operator list {list:?} instead of {:?}", golden.list).into());
    }
    let expected = vec![multiples(9, HALF); on.parallelism as usize];
    if union != expected {
        return Err(format!("union lists {union:?} instead of {expected:?}").into());
    }
    Ok(())
}

/// Made by whoever needs it first.
type Lazy<T> = Arc<OnceLock<Result<T, String>>>;

fn get<T>(lazy: &OnceLock<Result<T, String>>, make: impl FnOnce() -> Result<T, String>) -> Result<&T, Failed> {
    lazy.get_or_init(make).as_ref().map_err(|error| Failed::from(error.clone()))
}

fn main() -> ExitCode {
    let golden: Lazy<Output> = Arc::default();
    let mut trials = Vec::new();
    for by in Place::all() {
        let written: Lazy<Written> = Arc::default();
        for on in Place::all() {
            let (golden, written) = (Arc::clone(&golden), Arc::clone(&written));
            trials.push(Trial::test(format!("{by} -> {on}"), move || {
                cell(get(&golden, uninterrupted)?, get(&written, || Written::new(by))?, on)
            }));
        }
    }
    let arguments = Arguments::from_args();
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        println!("cells {}, mismatched {}", conclusion.num_passed + conclusion.num_failed, conclusion.num_failed);
    }
    conclusion.exit_code()
}
