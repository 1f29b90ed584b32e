//! Part files in a directory: written under a name that readers leave alone, and renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use millrace_core::{Error, Result, sink::lost};

use super::store::{FileCommittable, OpenPart, PartStore, Waiting};

const IN_PROGRESS: &str = ".inprogress";

pub(super) struct LocalStore {
    directory: PathBuf,
    label: String,
}

impl LocalStore {
    pub fn open(directory: PathBuf, label: String) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(|error| cannot("create", &directory, &error))?;
        Ok(Self { directory, label })
    }
}

impl PartStore for LocalStore {
    fn begin(&self, path: &str) -> Result<Box<dyn OpenPart>> {
        let to = self.directory.join(path);
        let (Some(directory), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(Error::internal(format!("a part file without a name: {path:?}")));
        };
        let from = directory.join(format!(".{}{}{IN_PROGRESS}", self.label, name.to_string_lossy()));
        let create = || {
            fs::create_dir_all(directory)?;
            OpenOptions::new().append(true).create_new(true).open(&from)
        };
        let file = create().map_err(|error| cannot("write", &from, &error))?;
        let out = Some(BufWriter::with_capacity(256 * 1024, file));
        Ok(Box::new(LocalPart { out, from: from.clone(), to, size: 0 }))
    }

    fn remove(&self, is_left: &dyn Fn(&Waiting<'_>) -> bool) -> Result<()> {
        let mut removed = Ok(());
        for path in in_progress(&self.directory).map_err(|error| cannot("list", &self.directory, &error))? {
            let (name, file_name) = (path.to_string_lossy(), path.file_name().unwrap_or_default().to_string_lossy());
            let labelled = file_name.strip_prefix('.').and_then(|name| name.strip_suffix(IN_PROGRESS));
            let labelled = labelled.unwrap_or_default();
            if is_left(&Waiting { name: &name, labelled }) {
                removed = removed.and(remove(&path).map_err(|error| cannot("remove", &path, &error)));
            }
        }
        removed
    }
}

struct LocalPart {
    /// There until it is finished.
    out: Option<BufWriter<File>>,
    from: PathBuf,
    to: PathBuf,
    size: u64,
}

impl OpenPart for LocalPart {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let out = self.out.as_mut().ok_or_else(|| Error::internal("a part file is written to after its end"))?;
        out.write_all(bytes).map_err(|error| cannot("write", &self.from, &error))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<FileCommittable> {
        let mut out = self.out.take().ok_or_else(|| Error::internal("a part file is finished twice"))?;
        let finish = out.flush().and_then(|()| out.get_ref().sync_all()).and_then(|()| sync_directory(&self.from));
        finish.map_err(|error| cannot("write", &self.from, &error))?;
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                Error::invalid(format!("the file sink's directory {} is not UTF-8: choose another", path.display()))
            })
        };
        Ok(FileCommittable::Rename { from: text(&self.from)?, to: text(&self.to)?, size: self.size })
    }
}

impl Drop for LocalPart {
    fn drop(&mut self) {
        if self.out.is_some()
            && let Err(error) = remove(&self.from)
        {
            tracing::warn!(file = %self.from.display(), "a part file in progress was left behind: {error}");
        }
    }
}

/// Commits a part file. One that has its name already was committed.
pub(super) fn rename(from: &str, to: &str, size: u64) -> Result<()> {
    let (from, to) = (Path::new(from), Path::new(to));
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::metadata(to) {
            Ok(found) if found.len() == size => {}
            Ok(found) => {
                return Err(lost(format!(
                    "{} has {} bytes, and the checkpoint says {size}: somebody else has written it",
                    to.display(),
                    found.len()
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(lost(format!(
                    "neither {} nor {} is there: somebody has removed it since the checkpoint",
                    from.display(),
                    to.display()
                )));
            }
            Err(error) => return Err(cannot("read", to, &error)),
        },
        Err(error) => return Err(cannot("rename", from, &error)),
    }
    sync_directory(to).map_err(|error| cannot("write", to, &error))
}

/// Or a crash of the machine could take a file's name.
fn sync_directory(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// All files in progress, in the directory and below.
fn in_progress(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(directory) {
            // A bucket that somebody has removed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(IN_PROGRESS) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // A dead start may be about to do the same.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::external(format!("the file sink can't {what} {}: {error}", path.display()))
}
