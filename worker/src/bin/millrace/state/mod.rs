//! `millrace state`: what is in checkpoints, without the programs of the jobs that took them.

pub mod args;
mod cat;
mod diff;
mod list;
mod out;
mod show;
mod text;

use std::path::Path;

use millrace_core::{Error, Result};
use millrace_state::{BackendRegistry, inspect::CheckpointContents, storage::StorageOptions};
use millrace_worker::stores;
use tokio::runtime::Handle;

use crate::{
    args::Common,
    context::{Context, absolute},
};

/// Runs a command.
pub async fn execute(command: args::State) -> Result<u8> {
    let runtime = Handle::current();
    // Reading waits for the store, whose connections this thread looks after.
    let done = tokio::task::spawn_blocking(move || match command {
        args::State::List(command) => list::list(&command, &Store::new(&command.common, runtime)?),
        args::State::Show(command) => show::show(&command, &Store::new(&command.common, runtime)?),
        args::State::Cat(command) => cat::cat(&command, &Store::new(&command.common, runtime)?),
        args::State::Diff(command) => diff::diff(&command, &Store::new(&command.common, runtime)?),
    });
    done.await.unwrap_or_else(|error| Err(Error::internal(format!("millrace state: {error}"))))
}

/// How checkpoints are reached.
struct Store {
    options: StorageOptions,
    runtime: Handle,
}

impl Store {
    /// As the settings say that jobs reach theirs.
    fn new(common: &Common, runtime: Handle) -> Result<Self> {
        let settings = Context::new(common)?.config.settings()?;
        Ok(Self { options: stores::options(&settings), runtime })
    }

    fn checkpoint(&self, place: &str) -> Result<CheckpointContents> {
        self.runtime.block_on(CheckpointContents::open(&uri(place)?, &self.options, backends()))
    }
}

/// The backends whose files this program reads.
fn backends() -> BackendRegistry {
    #[cfg_attr(not(feature = "rocksdb"), expect(unused_mut, reason = "no other backend has files"))]
    let mut backends = BackendRegistry::default();
    // In a directory of its own: the settings' belongs to a taskmanager.
    #[cfg(feature = "rocksdb")]
    backends.replace(std::sync::Arc::new(millrace_state_rocksdb::RocksDBStateBackend::configured()));
    backends
}

/// A place as a URI: a path is one on this machine.
fn uri(place: &str) -> Result<String> {
    if place.contains(':') {
        return Ok(place.to_string());
    }
    Ok(format!("file://{}", absolute(Path::new(place))?.display()))
}

/// Tells what could not be shown; the exit code.
fn tell_problems(problems: &[String]) -> u8 {
    for problem in problems {
        eprintln!("millrace: {problem}");
    }
    u8::from(!problems.is_empty())
}

/// That a state's entries are where this program doesn't read them.
fn not_readable(operator: &str, state: &str, format: &str) -> String {
    format!("state {state:?} of operator {operator} is not shown: {}", in_files_of(format))
}

/// Where a state's entries are that this program does not read.
fn in_files_of(format: &str) -> String {
    let hint = if format == "rocksdb" { ": build it with the feature `rocksdb` of millrace-worker" } else { "" };
    format!(
        "its entries are in the files of an incremental snapshot of the state backend {format}, which this program does \
         not read{hint}"
    )
}
