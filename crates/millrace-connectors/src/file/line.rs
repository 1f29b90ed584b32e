//! Lines out of a file that may still grow.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const BUFFER: usize = 256 * 1024;

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line of so many bytes, its end included; [`LineReader::line`] has it.
    Line(u64),
    /// A line that is too long, of so many bytes.
    TooLong(u64),
    /// The file ends here, for now; the line that has begun is kept.
    End,
}

/// Reads lines from a position on.
pub(super) struct LineReader {
    input: BufReader<File>,
    /// Behind the last byte that was read.
    position: u64,
    stop: Option<u64>,
    limit: u64,
    /// The line that has begun, or the one that was returned.
    line: Vec<u8>,
    /// Bytes of a too long line that were thrown away.
    dropped: u64,
    returned: bool,
}

impl LineReader {
    pub(super) fn open(path: &Path, offset: u64, stop: Option<u64>, limit: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let input = BufReader::with_capacity(BUFFER, file);
        Ok(Self { input, position: offset, stop, limit, line: Vec::new(), dropped: 0, returned: false })
    }

    /// The file's length now.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.input.get_ref().metadata()?.len())
    }

    /// Behind the last byte that was read, which may be within a line.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The line that was returned last, without its end.
    pub(super) fn line(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Reads the next line. At the stop position the rest is a line, also without an end.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if self.returned {
            (self.returned, self.dropped) = (false, 0);
            self.line.clear();
        }
        loop {
            let left = self.stop.map_or(u64::MAX, |stop| stop.saturating_sub(self.position));
            // One byte more than the limit, and the line's end, tell a line that is too long.
            let room = self.limit.saturating_add(3).saturating_sub(self.line.len() as u64);
            let read = self.input.by_ref().take(room.min(left)).read_until(b'\n', &mut self.line)? as u64;
            self.position += read;
            let is_complete = self.line.ends_with(b"\n") || (read == left && self.begun() > 0);
            if is_complete {
                self.returned = true;
                let too_long = self.dropped > 0 || self.line().len() as u64 > self.limit;
                return Ok(if too_long { Next::TooLong(self.begun()) } else { Next::Line(self.begun()) });
            }
            if read == 0 {
                return Ok(Next::End);
            }
            if self.line().len() as u64 > self.limit {
                self.dropped += self.line.len() as u64;
                self.line.clear();
            }
        }
    }

    /// How much of the line has been read.
    fn begun(&self) -> u64 {
        self.dropped + self.line.len() as u64
    }
}
