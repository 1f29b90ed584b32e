//! What can go wrong with a cluster of processes.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::services;

/// Why something could not be done, or did not happen.
#[derive(thiserror::Error)]
pub enum Error {
    /// The program is not built.
    #[error("{} is not built: run `cargo build{profile} -p millrace-examples -p millrace-worker`", path.display())]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
        /// The flag that builds it there.
        profile: &'static str,
    },
    /// A process could not be started or signalled.
    #[error(transparent)]
    Process(#[from] services::Error),
    /// A process ended that was still needed.
    #[error("{name} has ended while waiting for {awaited}\n{logs}")]
    Ended {
        /// The process.
        name: String,
        /// What was waited for.
        awaited: String,
        /// The end of all processes' output.
        logs: String,
    },
    /// What was waited for did not happen.
    #[error("no {awaited} within {limit:?}; last seen: {last}\n{logs}")]
    TimedOut {
        /// What was waited for.
        awaited: String,
        /// For how long.
        limit: Duration,
        /// What was seen last.
        last: String,
        /// The end of all processes' output.
        logs: String,
    },
    /// The jobmanager's REST server refused a request, or could not be asked.
    #[error("{request}: {why}")]
    Rest {
        /// Method and address.
        request: String,
        /// What it answered.
        why: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// As [`Display`](fmt::Display) says it: what `unwrap` prints in a failing test should be read, not deciphered.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of everything that concerns a cluster.
pub type Result<T, E = Error> = std::result::Result<T, E>;
