//! Where a setting's value came from.

use std::{fmt, path::PathBuf};

use serde::{Serialize, Serializer};

/// Who set a value. A later one wins over an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The file that `MILLRACE_CONF` names.
    File,
    /// A variable `MILLRACE_<KEY>`.
    Environment,
    /// The job's program.
    Program,
    /// `-D`, or whoever started the process.
    Explicit,
}

impl Layer {
    /// All, the weakest first.
    pub const ALL: [Self; 4] = [Self::File, Self::Environment, Self::Program, Self::Explicit];
}

/// The exact place that a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The job's program.
    Program,
    /// `-D`, or whoever started the process.
    Explicit,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Program => f.write_str("program"),
            Self::Explicit => f.write_str("-D"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
