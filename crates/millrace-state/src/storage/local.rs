//! A directory as an object store that keeps what it was given through a power failure.
//!
//! `object_store`'s own `LocalFileSystem` names a file only once it is written, as is needed here, but never calls
//! fsync, creates a directory that has vanished anew, and hides the half-written files that a killed process leaves
//! from every listing, so that they could never be swept. Here:
//! - a file is written beside its place as `<name>.<unique>.tmp`, synced, linked (which fails if the name is taken)
//!   and its directory synced;
//! - directories are created below the root only: a root that is gone is an error, never an empty store;
//! - `.tmp` files are listed, as the garbage that they may be.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, local::LocalFileSystem,
    path::Path,
};

/// How often a directory that a concurrent deletion takes away is created again.
const MAX_DIRECTORY_RACES: usize = 16;
/// The end of the names of files that are being written.
pub(super) const UNFINISHED: &str = ".tmp";

/// A directory as an object store.
#[derive(Debug)]
pub(super) struct LocalStore {
    root: PathBuf,
    files: LocalFileSystem,
}

impl LocalStore {
    /// The store in a directory that exists.
    pub(super) fn open(root: &FsPath) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(|error| io_error(root, error))?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_automatic_cleanup(true);
        Ok(Self { root, files })
    }

    /// The file of an object, while the root is there.
    fn file(&self, location: &Path) -> Result<PathBuf> {
        self.files.path_to_filesystem(location)
    }

    /// Fails if the root is gone, so that this is not taken for an empty store.
    async fn check_root(&self) -> Result<()> {
        let root = self.root.clone();
        blocking(move || check_root(&root)).await
    }

    fn checked_list(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = self.root.clone();
        let check = blocking(move || check_root(&root));
        check.map(|checked| checked.map(|()| listing)).into_stream().try_flatten().boxed()
    }
}

impl std::fmt::Display for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalStore({})", self.root.display())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create_only = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".to_string(),
                    implementer: self.to_string(),
                });
            }
        };
        let (root, target) = (self.root.clone(), self.file(location)?);
        blocking(move || {
            let staged = Staged::create(&root, &target)?;
            let mut offset = 0;
            for bytes in &payload {
                staged.write(bytes, offset)?;
                offset += bytes.len() as u64;
            }
            staged.publish(create_only)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (root, target) = (self.root.clone(), self.file(location)?);
        let staged = blocking(move || Staged::create(&root, &target)).await?;
        Ok(Box::new(LocalUpload { staged: Some(Arc::new(staged)), offset: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.files.get_opts(location, options).await {
            Err(error @ Error::NotFound { .. }) => {
                self.check_root().await?;
                Err(error)
            }
            other => other,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.checked_list(self.files.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.checked_list(self.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check_root().await?;
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

/// A file that is being written beside its place; removed again unless it is published.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn create(root: &FsPath, target: &FsPath) -> Result<Self> {
        check_root(root)?;
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}{UNFINISHED}", uuid::Uuid::new_v4().simple()));
        let path = PathBuf::from(name);
        for _ in 0..MAX_DIRECTORY_RACES {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, target: target.to_path_buf() }),
                Err(error) if error.kind() == ErrorKind::NotFound => create_directories(root, &path)?,
                Err(error) => return Err(io_error(&path, error)),
            }
        }
        let why = "the file can't be created: its directory keeps vanishing";
        Err(io_error(&path, io::Error::new(ErrorKind::PermissionDenied, why)))
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| io_error(&self.path, error))
    }

    /// Gives the file its name, durably.
    fn publish(self, create_only: bool) -> Result<PutResult> {
        self.file.sync_all().map_err(|error| io_error(&self.path, error))?;
        let named = match create_only {
            true => fs::hard_link(&self.path, &self.target),
            false => fs::rename(&self.path, &self.target),
        };
        named.map_err(|error| io_error(&self.target, error))?;
        sync_directory_of(&self.target)?;
        Ok(PutResult { e_tag: None, version: None })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// A file that comes in parts.
#[derive(Debug)]
struct LocalUpload {
    staged: Option<Arc<Staged>>,
    offset: u64,
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut offset = self.offset;
        self.offset += data.content_length() as u64;
        let staged = self.staged.clone();
        async move {
            let staged = staged.ok_or_else(upload_ended)?;
            blocking(move || {
                for bytes in &data {
                    staged.write(bytes, offset)?;
                    offset += bytes.len() as u64;
                }
                Ok(())
            })
            .await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().and_then(Arc::into_inner).ok_or_else(upload_ended)?;
        blocking(move || staged.publish(false)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged = None;
        Ok(())
    }
}

fn upload_ended() -> Error {
    Error::Generic { store: "LocalStore", source: "the upload has ended, or parts of it are under way".into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn check_root(root: &FsPath) -> Result<()> {
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(io_error(root, io::Error::other("the directory has become a file"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::Generic { store: "LocalStore", source: format!("directory {} is gone", root.display()).into() })
        }
        Err(error) => Err(io_error(root, error)),
    }
}

/// Creates the directories between the root and a file, durably.
fn create_directories(root: &FsPath, file: &FsPath) -> Result<()> {
    check_root(root)?;
    let mut missing: Vec<&FsPath> = file.ancestors().skip(1).take_while(|directory| *directory != root).collect();
    while let Some(directory) = missing.pop() {
        match fs::create_dir(directory) {
            Ok(()) => match sync_directory_of(directory) {
                Err(Error::NotFound { .. }) => return Ok(()),
                other => other?,
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // A concurrent deletion took the directory above away: the caller tries again.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error(directory, error)),
        }
    }
    Ok(())
}

fn sync_directory_of(path: &FsPath) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| io_error(directory, error))
}

fn io_error(path: &FsPath, error: io::Error) -> Error {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            let source = format!("{path}: {error}").into();
            Error::PermissionDenied { path, source }
        }
        _ => Error::Generic { store: "LocalStore", source: format!("{path}: {error}").into() },
    }
}

#[cfg(test)]
mod tests;
