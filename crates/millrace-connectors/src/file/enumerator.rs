//! Finds files and where to begin in them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

use millrace_core::{
    Error, Result,
    source::{Discovery, SplitEnumerator},
};

use super::{FileSplit, FileStart, Settings};

pub(super) struct FileEnumerator {
    settings: Settings,
}

impl FileEnumerator {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The split of a new file; `None` if it is gone again.
    fn split(&self, file: String, discovery: Discovery) -> Result<Option<FileSplit>> {
        let path = self.settings.directory.join(&file);
        let bounds = || -> io::Result<(u64, Option<u64>)> {
            let length = fs::metadata(&path)?.len();
            let offset = match (self.settings.start, discovery) {
                (FileStart::Latest, Discovery::Initial) => end_of_last_line(&path, length)?,
                _ => 0,
            };
            Ok((offset, self.settings.bounded.then_some(length)))
        };
        match bounds() {
            Ok((offset, stop)) => Ok(Some(FileSplit { file, offset, stop })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&path, &error)),
        }
    }
}

impl SplitEnumerator<FileSplit> for FileEnumerator {
    fn discover(&mut self, known: &BTreeSet<String>, discovery: Discovery) -> Result<Vec<FileSplit>> {
        if self.settings.bounded && discovery == Discovery::Later {
            return Ok(vec![]);
        }
        let mut files = BTreeSet::new();
        match list(&self.settings.directory, "", &mut files) {
            Err(error) if discovery == Discovery::Initial => Err(error.fatal()),
            listed => listed,
        }?;
        let new = files.into_iter().filter(|file| !known.contains(file));
        new.filter_map(|file| self.split(file, discovery).transpose()).collect()
    }

    fn discovery_interval(&self) -> Option<Duration> {
        (!self.settings.bounded).then_some(self.settings.discovery_interval)
    }
}

/// Collects the files below `directory`, whose own name within the source is `prefix`.
fn list(directory: &Path, prefix: &str, files: &mut BTreeSet<String>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // A subdirectory may go away while it is looked at.
        Err(error) if error.kind() == ErrorKind::NotFound && !prefix.is_empty() => return Ok(()),
        Err(error) => return Err(cannot_read(directory, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| cannot_read(directory, &error))?;
        let name = entry.file_name().into_string().map_err(|name| {
            let directory = directory.display();
            Error::invalid(format!("the name of file {} in {directory} is not UTF-8: rename it", name.display()))
        })?;
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(|error| cannot_read(&entry.path(), &error))?;
        // A link to a file is followed; one to a directory is not, it may lead in a circle.
        let is_file = kind.is_file() || (kind.is_symlink() && entry.path().is_file());
        if kind.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if is_file && !name.ends_with(".tmp") {
            files.insert(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

pub(super) fn cannot_read(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => Error::external(format!("{path} does not exist; create it or correct the path")),
        _ => Error::external(format!("{path} can't be read: {error}")),
    }
}

/// The byte behind the last `\n` before `length`.
fn end_of_last_line(path: &Path, length: u64) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let mut end = length;
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        file.by_ref().take(end - start).read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
