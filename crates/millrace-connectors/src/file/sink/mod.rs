//! The file sink: part files that readers see when their checkpoint is complete.

mod buckets;
mod format;
mod left_over;
mod local;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "s3")]
mod s3;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt::Display, path::PathBuf, sync::Arc};

use millrace_core::{
    Error, Record, Result,
    checkpoint::CheckpointConfig,
    sink::{Committer, CommitterContext, Sink, SinkWriter, WriterContext},
};

pub use buckets::{BucketAssigner, DateTimeBuckets};
pub use format::{FileFormat, JsonLines, PartEncoder, TextLines};
#[cfg(feature = "parquet")]
pub use parquet::{Compression, Parquet, WriterProperties, arrow_schema};
pub use store::FileCommittable;
use store::{FileCommitter, Location};
use writer::FileWriter;

/// The size at which a part file is finished and another one begins.
const MAX_PART_SIZE: u64 = 128 << 20;

/// Writes records to part files in a directory or under an `s3://` prefix, exactly once: a part file can be seen when
/// the checkpoint that ended it is complete, and not before.
///
/// Each subtask writes one file at a time for each bucket, and finishes it with every checkpoint and at
/// [`max_part_size`](Self::max_part_size). A finished file's name is `part-<subtask>-<unique>-<number>`, with what the
/// format appends. Before it is committed it is a file whose name begins with `.` and ends in `.inprogress`; on S3 an
/// object below `.millrace/` in the sink's place, which readers must leave alone and which the store copies when it is
/// committed; and before, where it has 8 MiB or more, a multipart upload. A file may be moved or removed once the
/// checkpoint after the one that ended it is complete: until then it may be committed again, which does nothing where it
/// is.
///
/// What a failure leaves is removed when the job starts again, and what zombies and late requests leave after that while
/// it runs: it looks 10 s after its start, and then ever more rarely, each 11 minutes at last. Except that a process which is killed in the
/// moment between beginning an upload and writing down that it did leaves one without bytes, for which buckets have
/// lifecycle rules. No two jobs may write to the same place with sinks of the same uid.
///
/// ```
/// use millrace_connectors::file::{DateTimeBuckets, FileSink, JsonLines};
///
/// # fn main() -> millrace_core::Result<()> {
/// let lines = FileSink::<String>::directory("/data/out");
/// let json = FileSink::<(u64, String)>::new("file:///data/out", JsonLines)?.buckets(DateTimeBuckets::hourly());
/// # let _ = (lines, json);
/// # Ok(())
/// # }
/// ```
pub struct FileSink<T> {
    location: Location,
    format: Arc<dyn FileFormat<T>>,
    buckets: Option<Arc<dyn BucketAssigner<T>>>,
    max_part_size: u64,
}

impl<T> Clone for FileSink<T> {
    fn clone(&self) -> Self {
        let Self { location, format, buckets, max_part_size } = self;
        let (location, max_part_size) = (location.clone(), *max_part_size);
        Self { location, format: Arc::clone(format), buckets: buckets.clone(), max_part_size }
    }
}

impl<T: Record + Display> FileSink<T> {
    /// A sink that writes each record as a line, by its `Display`, to a local directory, which is created where it is
    /// missing.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(Location::Directory(path.into()), TextLines)
    }
}

impl<T: Record> FileSink<T> {
    /// A sink that writes to a place: `file:///directory`, or `s3://bucket/prefix` with the feature `s3`. Credentials,
    /// region and endpoint of S3 come from the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
    /// `AWS_ENDPOINT` and their like, and from [`s3_option`](Self::s3_option).
    pub fn new(uri: &str, format: impl FileFormat<T>) -> Result<Self> {
        Ok(Self::at(Location::parse(uri)?, format))
    }

    fn at(location: Location, format: impl FileFormat<T>) -> Self {
        Self { location, format: Arc::new(format), buckets: None, max_part_size: MAX_PART_SIZE }
    }

    /// Puts records into subdirectories.
    pub fn buckets(mut self, assigner: impl BucketAssigner<T>) -> Self {
        self.buckets = Some(Arc::new(assigner));
        self
    }

    /// The size in bytes at which a part file is finished before the checkpoint; 128 MiB by default, 256 MiB at most on S3,
    /// which copies it when it is committed.
    pub fn max_part_size(mut self, bytes: u64) -> Self {
        self.max_part_size = bytes;
        self
    }

    /// Sets an option of the S3 client by its name, such as `aws_endpoint`; it wins over the environment.
    #[cfg(feature = "s3")]
    pub fn s3_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.location.set_s3_option(name.into(), value.into());
        self
    }
}

impl<T: Record> Sink for FileSink<T> {
    type Record = T;
    type Committable = FileCommittable;

    fn create_writer(
        &self,
        context: &mut WriterContext<FileCommittable>,
    ) -> Result<Box<dyn SinkWriter<T, FileCommittable>>> {
        Ok(Box::new(FileWriter::new(self.clone(), context)?))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<FileCommittable>>> {
        Ok(Box::new(FileCommitter::new(&self.location)))
    }

    fn check(&self, _checkpoints: &CheckpointConfig) -> Result<()> {
        let most = self.location.largest_part();
        match self.max_part_size {
            0 => Err(Error::invalid("the file sink's max_part_size is 0: choose more")),
            size if size > most => Err(Error::invalid(format!(
                "the file sink's max_part_size is {size}, and on S3 a part file may have {most} bytes at most: choose less"
            ))),
            _ => Ok(()),
        }
    }
}
