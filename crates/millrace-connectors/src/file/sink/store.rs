//! Where part files lie: what is open, what waits to be committed, and what a dead start has left.

use std::path::PathBuf;

use millrace_core::{
    Error, Result,
    ids::JobAttempt,
    sink::{Committer, WriterContext},
};
use serde::{Deserialize, Serialize};

use super::local::{self, LocalStore};
#[cfg(feature = "s3")]
use super::s3::{S3Location, S3Store};

/// A part file that waits to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileCommittable {
    /// A local file, to be renamed.
    Rename {
        /// Its name before.
        from: String,
        /// And after.
        to: String,
        /// How many bytes it has.
        size: u64,
    },
    /// A multipart upload, to be completed: of earlier versions.
    Upload {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
        /// The upload's id.
        upload: String,
        /// The ids of its parts, in order.
        parts: Vec<String>,
        /// How many bytes the object will have.
        size: u64,
        /// The key of the object that says that the upload is open.
        marker: String,
    },
    /// An object that is staged, to be copied.
    Copy {
        /// The bucket of both.
        bucket: String,
        /// Its key before.
        from: String,
        /// And after.
        to: String,
        /// How many bytes it has.
        size: u64,
    },
}

/// Where a sink writes to.
#[derive(Clone, Debug)]
pub(super) enum Location {
    Directory(PathBuf),
    #[cfg(feature = "s3")]
    S3(S3Location),
}

impl Location {
    pub fn parse(uri: &str) -> Result<Self> {
        match uri.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            Some(("file", _)) => {
                Err(Error::invalid(format!("{uri}: a file sink's path is absolute: file:///directory")))
            }
            #[cfg(feature = "s3")]
            Some(("s3", rest)) => S3Location::parse(uri, rest).map(Self::S3),
            #[cfg(not(feature = "s3"))]
            Some(("s3", _)) => Err(Error::invalid(format!(
                "{uri} can't be written: build the program with the feature `s3` of millrace"
            ))),
            _ => Err(Error::invalid(format!(
                "{uri:?} is no place for a file sink: it writes to file:///directory or s3://bucket/prefix"
            ))),
        }
    }

    #[cfg(feature = "s3")]
    pub fn set_s3_option(&mut self, name: String, value: String) {
        if let Self::S3(location) = self {
            location.options.push((name, value));
        }
    }

    /// The most that a part file may have here.
    pub fn max_part_size(&self) -> u64 {
        match self {
            Self::Directory(_) => u64::MAX,
            #[cfg(feature = "s3")]
            Self::S3(_) => super::s3::MAX_PART_SIZE,
        }
    }

    /// Opens it for a writer, after what dead starts have left was removed.
    pub fn open(&self, context: &WriterContext<FileCommittable>) -> Result<Box<dyn PartStore>> {
        let owner = Owner::new(context);
        Ok(match self {
            Self::Directory(path) => Box::new(LocalStore::open(path.clone(), owner, &context.restored)?),
            #[cfg(feature = "s3")]
            Self::S3(location) => Box::new(S3Store::open(location, owner, &context.restored)?),
        })
    }
}

/// Which parts are whose.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Names the sink: a digest of its uid, since that may be anything.
    sink: String,
    subtask: u32,
    parallelism: u32,
    attempt: JobAttempt,
}

impl Owner {
    fn new(context: &WriterContext<FileCommittable>) -> Self {
        // FNV-1a: it must be the same in every version.
        let digest = context
            .uid
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let WriterContext { subtask, attempt, .. } = *context;
        Self { sink: format!("{digest:016x}"), subtask, parallelism: context.parallelism.max(1), attempt }
    }

    /// What the name of something in progress begins with, behind a dot.
    pub fn label(&self) -> String {
        format!("{}-{}-{}-", self.sink, self.subtask, self.attempt)
    }

    /// Whether something with this label is this subtask's to remove: its own, and that of subtasks that are no more;
    /// but not what a later attempt has begun, which may be committed although this one does not know it yet.
    pub fn removes(&self, label: &str) -> bool {
        let Some(rest) = label.strip_prefix(&self.sink).and_then(|rest| rest.strip_prefix('-')) else { return false };
        let mut parts = rest.split('-');
        let subtask = parts.next().and_then(|subtask| subtask.parse::<u32>().ok());
        // Labels were once without attempts.
        let attempt = parts.next().and_then(|attempt| attempt.parse::<JobAttempt>().ok());
        let is_over = attempt.is_none_or(|of| of == self.attempt || self.attempt.supersedes(of));
        is_over && subtask.is_some_and(|subtask| subtask % self.parallelism == self.subtask)
    }
}

/// A place for part files.
pub(super) trait PartStore {
    /// Begins a file that will have this path, relative to the sink's place.
    fn begin(&mut self, path: &str) -> Result<Box<dyn OpenPart>>;
}

/// A part file that is being written. One that is dropped is removed.
pub(super) trait OpenPart {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// All bytes have arrived: what is missing is the commit.
    fn finish(self: Box<Self>) -> Result<FileCommittable>;
}

/// Makes part files visible.
pub(super) struct FileCommitter {
    #[cfg(feature = "s3")]
    location: Location,
    #[cfg(feature = "s3")]
    s3: super::s3::S3Committer,
}

impl FileCommitter {
    #[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "only S3 has settings"))]
    pub fn new(location: &Location) -> Self {
        Self {
            #[cfg(feature = "s3")]
            location: location.clone(),
            #[cfg(feature = "s3")]
            s3: super::s3::S3Committer::default(),
        }
    }
}

impl Committer<FileCommittable> for FileCommitter {
    fn commit(&mut self, committables: &[FileCommittable]) -> Result<()> {
        for committable in committables {
            match committable {
                FileCommittable::Rename { from, to, size } => local::rename(from, to, *size)?,
                #[cfg(feature = "s3")]
                FileCommittable::Upload { bucket, key, upload, parts, size, marker } => {
                    let Location::S3(location) = &self.location else { return Err(not_s3(bucket)) };
                    self.s3.complete(location, bucket, key, upload, parts, *size, marker)?;
                }
                #[cfg(feature = "s3")]
                FileCommittable::Copy { bucket, from, to, size } => {
                    let Location::S3(location) = &self.location else { return Err(not_s3(bucket)) };
                    self.s3.copy(location, bucket, from, to, *size)?;
                }
                #[cfg(not(feature = "s3"))]
                FileCommittable::Upload { bucket, .. } | FileCommittable::Copy { bucket, .. } => {
                    return Err(not_s3(bucket));
                }
            }
        }
        Ok(())
    }
}

fn not_s3(bucket: &str) -> Error {
    Error::invalid(format!(
        "the checkpoint holds objects of s3://{bucket} that are to be committed, and the file sink does not write to S3 \
         any more: give it its old place, let a checkpoint complete, and move it then"
    ))
}
