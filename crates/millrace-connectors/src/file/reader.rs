//! Reads files: one at a time, in turn, as long as any has something to read.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    Error, Result,
    ids::CheckpointId,
    source::{ReadStatus, SourceReader},
};

use super::{
    FileSplit, Settings,
    enumerator::cannot_read,
    line::{LineReader, Next},
};
use crate::undecodable::UndecodableRecords;

/// How long to wait at least before looking at all files again.
const PAUSE: Duration = Duration::from_millis(5);
/// A batch ends after so many bytes, whatever the number of records.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// After so many bytes it is the next file's turn.
const TURN_BYTES: u64 = 32 * 1024 * 1024;

pub(super) struct FileReader {
    settings: Settings,
    files: Vec<TrackedFile>,
    /// The file that is open, by its index.
    open: Option<(usize, LineReader)>,
    /// The file to look at first.
    turn: usize,
    turn_bytes: u64,
    no_more_splits: bool,
    undecodable: UndecodableRecords,
    last_read: (usize, u64, u64),
}

struct TrackedFile {
    split: FileSplit,
    /// Up to where the file was read without finding a complete line; there is nothing new before.
    seen: u64,
    is_gone: bool,
}

impl TrackedFile {
    fn is_done(&self) -> bool {
        self.is_gone || self.split.stop.is_some_and(|stop| self.split.offset >= stop)
    }
}

impl FileReader {
    pub(super) fn new(settings: Settings) -> Self {
        let undecodable =
            UndecodableRecords::new(settings.undecodable, format!("files {}", settings.directory.display()));
        Self {
            settings,
            files: Vec::new(),
            open: None,
            turn: 0,
            turn_bytes: 0,
            no_more_splits: false,
            undecodable,
            last_read: (0, 0, 0),
        }
    }

    /// Reads a batch from the first file, in turn, that has a complete line. Returns whether one had.
    fn read_any(&mut self, max: usize, out: &mut Vec<String>) -> Result<bool> {
        let turn = self.turn;
        for index in (turn..self.files.len()).chain(0..turn) {
            if self.has_more(index)? && self.read_file(index, max, out)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is something behind what was seen of a file.
    fn has_more(&mut self, index: usize) -> Result<bool> {
        let file = &mut self.files[index];
        if file.split.stop.is_some_and(|stop| file.split.offset >= stop) {
            return Ok(false);
        }
        if let Some((_, lines)) = self.open.as_ref().filter(|(open, _)| *open == index)
            && lines.length().is_ok_and(|length| length > file.seen)
        {
            return Ok(true);
        }
        let path = self.settings.directory.join(&file.split.file);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return file_is_gone(&self.settings, file).map(|()| false);
            }
            Err(error) => return Err(cannot_read(&path, &error)),
        };
        let needed = file.split.stop.unwrap_or(file.seen).max(file.seen);
        if length < needed {
            return Err(truncated(&path, length, needed));
        }
        file.is_gone = false;
        if length > file.seen {
            // Had the file that is open grown, it would have been noticed above: another one has taken its place.
            self.open.take_if(|(open, _)| *open == index);
        }
        Ok(length > file.seen)
    }

    /// Reads a batch from a file. Returns whether it had a complete line.
    fn read_file(&mut self, index: usize, max: usize, out: &mut Vec<String>) -> Result<bool> {
        let path = self.settings.directory.join(&self.files[index].split.file);
        let failed = |error: io::Error| cannot_read(&path, &error);
        let file = &mut self.files[index];
        let lines = match &mut self.open {
            Some((open, lines)) if *open == index => lines,
            other => {
                let split = &file.split;
                let lines = LineReader::open(&path, split.offset, split.stop, self.settings.max_line_bytes);
                (self.turn, self.turn_bytes) = (index, 0);
                &mut other.insert((index, lines.map_err(failed)?)).1
            }
        };

        let start = file.split.offset;
        let mut is_at_end = false;
        for _ in 0..max {
            let line_start = file.split.offset;
            if line_start - start >= BATCH_BYTES {
                break;
            }
            let (bytes, line) = match lines.next().map_err(failed)? {
                Next::End => {
                    is_at_end = true;
                    break;
                }
                Next::Line(bytes) => (bytes, std::str::from_utf8(lines.line()).map_err(|error| error.to_string())),
                Next::TooLong(bytes) => {
                    let limit = self.settings.max_line_bytes;
                    (bytes, Err(format!("the line is longer than {limit} bytes (see FileSource::max_line_bytes)")))
                }
            };
            match line {
                Ok(line) => out.push(line.to_string()),
                Err(why) => {
                    let end = line_start + bytes;
                    let position = format_args!("{}@{line_start}..{end}", file.split.file);
                    self.undecodable.handle(position, why)?;
                }
            }
            file.split.offset += bytes;
        }
        file.seen = if is_at_end { lines.position() } else { file.split.offset };
        self.turn_bytes += file.split.offset - start;
        self.last_read = (index, start, file.split.offset);
        if is_at_end || file.is_done() || self.turn_bytes >= TURN_BYTES {
            (self.turn, self.turn_bytes) = ((index + 1) % self.files.len(), 0);
        }
        Ok(self.last_read.2 > start)
    }
}

fn truncated(path: &Path, length: u64, needed: u64) -> Error {
    Error::external(format!(
        "{} is {length} bytes long, but at least {needed} bytes were there before: it was truncated or replaced. The \
         file source reads files that are only appended to; restore the file, or start the job anew without its \
         checkpoint",
        path.display()
    ))
    .fatal()
}

/// A file of a directory that is still there was deleted. What is sure to be unread is an error.
fn file_is_gone(settings: &Settings, file: &mut TrackedFile) -> Result<()> {
    let (path, offset) = (settings.directory.join(&file.split.file), file.split.offset);
    if !settings.directory.is_dir() {
        return Err(cannot_read(&settings.directory, &io::Error::from(ErrorKind::NotFound)));
    }
    if let Some(stop) = file.split.stop {
        let path = path.display();
        return Err(Error::external(format!(
            "{path} is gone, with bytes {offset} to {stop} unread: put it back, or start the job anew without its \
             checkpoint"
        ))
        .fatal());
    }
    if !file.is_gone {
        tracing::warn!("{} was deleted; it is read up to byte {offset}", path.display());
    }
    file.is_gone = true;
    Ok(())
}

impl SourceReader<String, FileSplit> for FileReader {
    fn add_splits(&mut self, splits: Vec<FileSplit>) -> Result<()> {
        let track = |split: FileSplit| TrackedFile { seen: split.offset, split, is_gone: false };
        self.files.extend(splits.into_iter().map(track));
        Ok(())
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<String>) -> Result<ReadStatus> {
        let start = Instant::now();
        loop {
            let looked = Instant::now();
            if self.read_any(max, out)? {
                return Ok(ReadStatus::More);
            }
            if self.settings.bounded && self.no_more_splits && self.files.iter().all(TrackedFile::is_done) {
                return Ok(ReadStatus::Finished);
            }
            // Looking at very many files takes long: it shall not take all of the time.
            let pause = PAUSE.max(looked.elapsed() * 4);
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(ReadStatus::Idle);
            }
            thread::sleep(pause.min(left));
        }
    }

    fn position(&self) -> String {
        let (index, start, end) = self.last_read;
        let file = self.files.get(index).map_or("", |file| &file.split.file);
        format!("{file}@{start}..{end}")
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<FileSplit>> {
        Ok(self.files.iter().map(|file| file.split.clone()).collect())
    }

    fn notify_checkpoint_complete(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }
}
