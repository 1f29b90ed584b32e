//! Real services, started for a test on free loopback ports and ended with it.
//!
//! [`KafkaBroker`](kafka::KafkaBroker), [`Minio`](minio::Minio),
//! [`Hdfs`](hdfs::Hdfs) and [`PostgresServer`](postgres::PostgresServer) are
//! processes of their own, each with a fresh data folder. They come in two
//! ways: `start()` gives a test its own, which it can stop, kill, pause and
//! restart; `shared()`, where there is one, gives all tests of a process the
//! same one, which they keep apart with topics and buckets of their own.
//!
//! They are not installed by Cargo: `make test` brings them into the cache. A
//! test that needs one which is missing fails and says so; it never passes by
//! doing nothing.
//!
//! ```no_run
//! use millrace_testkit::services::kafka::{Isolation, KafkaBroker};
//!
//! # fn main() -> millrace_testkit::services::Result<()> {
//! let kafka = KafkaBroker::start()?;
//! kafka.create_topic("words", 2)?;
//! kafka.produce("words", [(Some("key"), "value")])?;
//! assert_eq!(kafka.consume_all("words", Isolation::ReadCommitted)?.len(), 1);
//! # Ok(())
//! # }
//! ```

pub mod hdfs;
pub mod kafka;
pub mod minio;
pub mod ports;
pub mod postgres;
pub mod process;
pub(crate) mod workdir;

use std::env;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Why a service could not be started or used.
#[derive(thiserror::Error)]
pub enum Error {
    /// The service's files are not on this machine.
    #[error("{what} is not installed ({path} does not exist): run `make test`, or `{script}`")]
    NotInstalled {
        /// The service.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// The script that brings it.
        script: &'static str,
    },
    /// The process ended while something was expected of it.
    #[error("{name} ended ({status}) before {awaited}; the end of its output:\n{output}")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What was expected of it.
        awaited: &'static str,
        /// The last lines that it wrote.
        output: String,
    },
    /// Something that was waited for did not happen.
    #[error("no {awaited} of {name} within {limit:?}; the end of its output:\n{output}")]
    TimedOut {
        /// The process.
        name: String,
        /// What was waited for.
        awaited: &'static str,
        /// For how long.
        limit: Duration,
        /// The last lines that the process wrote.
        output: String,
    },
    /// The operating system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Kafka, or the client library, refused something.
    #[error("{action}: {source}")]
    Kafka {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: rdkafka::error::KafkaError,
    },
}

/// As [`Display`](fmt::Display) says it: what `unwrap` prints in a failing test
/// should be read, not deciphered.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of everything that concerns a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// For `map_err`: an [`io::Error`] with what was tried.
pub(crate) fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Io { action, source }
}

/// The folder of everything that is fetched or built once, as in
/// `scripts/cache.sh`.
fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("MILLRACE_CACHE") {
        return cache.into();
    }
    let caches = match set("XDG_CACHE_HOME") {
        Some(caches) => caches.into(),
        None => PathBuf::from(set("HOME").unwrap_or_default()).join(".cache"),
    };
    caches.join("millrace")
}

/// Where a service is installed: as the variable says, else in the cache.
fn installed(what: &'static str, variable: &str, in_cache: &str, script: &'static str) -> Result<PathBuf> {
    let path = match env::var_os(variable) {
        Some(path) => path.into(),
        None => cache_dir().join(in_cache),
    };
    if path.exists() { Ok(path) } else { Err(Error::NotInstalled { what, path, script }) }
}

/// Java, for a server that is to be small, and quick to start rather than fast later.
fn small_java() -> Command {
    let java = match env::var_os("JAVA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/java"),
        None => "java".into(),
    };
    let mut command = Command::new(java);
    command.args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
    command
}
