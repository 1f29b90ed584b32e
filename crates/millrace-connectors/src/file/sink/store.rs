//! Where part files lie: what is open, and what waits to be committed.

use std::{path::PathBuf, sync::Arc};

use millrace_core::{Error, Result, sink::Committer};
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

impl FileCommittable {
    /// The name of what lies there until it is committed.
    pub(super) fn waits_as(&self) -> &str {
        match self {
            Self::Rename { from, .. } | Self::Copy { from, .. } => from,
            Self::Upload { marker, .. } => marker,
        }
    }

    /// The name of the part file, without its bucket.
    pub(super) fn file_name(&self) -> &str {
        let (Self::Rename { to: path, .. } | Self::Copy { to: path, .. } | Self::Upload { key: path, .. }) = self;
        path.rsplit('/').next().unwrap_or_default()
    }
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
    pub fn largest_part(&self) -> u64 {
        match self {
            Self::Directory(_) => u64::MAX,
            #[cfg(feature = "s3")]
            Self::S3(_) => super::s3::LARGEST_PART,
        }
    }

    /// Opens it for a writer whose parts have this label.
    pub fn open(&self, label: String) -> Result<Arc<dyn PartStore>> {
        Ok(match self {
            Self::Directory(path) => Arc::new(LocalStore::open(path.clone(), label)?),
            #[cfg(feature = "s3")]
            Self::S3(location) => Arc::new(S3Store::open(location, label)?),
        })
    }
}

/// A place for part files.
pub(super) trait PartStore: Send + Sync {
    /// Begins a file that will have this path, relative to the sink's place.
    fn begin(&self, path: &str) -> Result<Box<dyn OpenPart>>;

    /// Removes those of the files that are not committed.
    fn remove(&self, is_left: &dyn Fn(&Waiting<'_>) -> bool) -> Result<()>;
}

/// Something in progress, or finished and not committed yet.
pub(super) struct Waiting<'a> {
    /// The whole name.
    pub name: &'a str,
    /// The label of the writer whose it is, and the part file's name.
    pub labelled: &'a str,
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
