//! Files: a source of text lines that follows those of a directory as they grow, and a sink of part files.

mod enumerator;
mod line;
mod reader;
mod sink;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use millrace_core::{
    Error, Result, codec,
    source::{Boundedness, EnumeratorContext, ReaderContext, Source, SourceReader, SourceSplit, SplitEnumerator},
};
use serde::{Deserialize, Serialize};

use crate::Undecodable;
use enumerator::FileEnumerator;
use reader::FileReader;
pub use sink::{
    BucketAssigner, DateTimeBuckets, FileCommittable, FileFormat, FileSink, JsonLines, PartEncoder, TextLines,
};
#[cfg(feature = "parquet")]
pub use sink::{Compression, Parquet, WriterProperties, arrow_schema};

const DISCOVERY_INTERVAL: Duration = Duration::from_millis(100);
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Where reading begins in the files that are there at the job's first start. A file that appears later is read from
/// its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileStart {
    /// At their beginning.
    #[default]
    Earliest,
    /// Behind their last complete line.
    Latest,
}

/// Yields the lines of the files of a directory and its subdirectories, without their line ends (`\n` or `\r\n`).
///
/// By default it follows the directory: new files and what is appended to files become records, once a line is complete
/// with its `\n`. [`bounded`](Self::bounded), it reads what is there at the start and ends.
///
/// Each file is a split whose position is a byte offset. So files must only ever be appended to: one that has become
/// shorter than its position is an error. A file that is deleted is let go with a warning; one that is renamed is read
/// again from its beginning, as a new one. Files and directories whose name begins with `.` and files whose name ends
/// in `.tmp` are left alone: a writer can prepare a file under such a name and rename it.
///
/// All taskmanagers and the jobmanager must see the same directory under the same path.
///
/// ```
/// use millrace_connectors::{FileSource, Undecodable};
///
/// let source = FileSource::directory("/data/in").on_undecodable(Undecodable::SkipAndCount);
/// # let _ = source;
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    settings: Settings,
}

/// What enumerator and readers go by.
#[derive(Clone, Debug)]
struct Settings {
    directory: PathBuf,
    start: FileStart,
    bounded: bool,
    discovery_interval: Duration,
    max_line_bytes: u64,
    undecodable: Undecodable,
}

impl FileSource {
    /// The files of a directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self {
            settings: Settings {
                directory: path.into(),
                start: FileStart::Earliest,
                bounded: false,
                discovery_interval: DISCOVERY_INTERVAL,
                max_line_bytes: MAX_LINE_BYTES,
                undecodable: Undecodable::Fail,
            },
        }
    }

    /// Where to begin in files that are there at the job's first start; at their beginning by default.
    pub fn start(mut self, start: FileStart) -> Self {
        self.settings.start = start;
        self
    }

    /// Ends the source where the files end at the job's first start. A last line without `\n` is a record too.
    pub fn bounded(mut self) -> Self {
        self.settings.bounded = true;
        self
    }

    /// What to do with lines that are not UTF-8 or too long; by default the job fails.
    pub fn on_undecodable(mut self, policy: Undecodable) -> Self {
        self.settings.undecodable = policy;
        self
    }

    /// How often to look for new files; every 100 ms by default.
    pub fn discovery_interval(mut self, interval: Duration) -> Self {
        self.settings.discovery_interval = interval;
        self
    }

    /// The length of the longest line that is taken; 16 MiB by default.
    pub fn max_line_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_line_bytes = bytes;
        self
    }

    fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid(format!("the file source's {what} is 0: choose more")));
        match &self.settings {
            settings if settings.discovery_interval.is_zero() => wrong("discovery interval"),
            settings if settings.max_line_bytes == 0 => wrong("max_line_bytes"),
            _ => Ok(()),
        }
    }
}

/// A file, from a position on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    /// Its path relative to the source's directory, the parts separated by `/`.
    pub file: String,
    /// The byte at which the next line begins.
    pub offset: u64,
    /// Where it ends, for a bounded source.
    pub stop: Option<u64>,
}

impl SourceSplit for FileSplit {
    fn split_id(&self) -> String {
        self.file.clone()
    }
}

impl Source for FileSource {
    type Record = String;
    type Split = FileSplit;

    fn boundedness(&self) -> Boundedness {
        if self.settings.bounded { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn create_enumerator(&self, _context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<FileSplit>>> {
        self.validate()?;
        Ok(Box::new(FileEnumerator::new(self.settings.clone())))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<String, FileSplit>>> {
        Ok(Box::new(FileReader::new(self.settings.clone())))
    }

    fn fingerprint(&self) -> Vec<u8> {
        let settings = &self.settings;
        let directory = settings.directory.to_string_lossy();
        codec::encode(&(directory, settings.start, settings.bounded, settings.max_line_bytes)).unwrap_or_default()
    }
}
