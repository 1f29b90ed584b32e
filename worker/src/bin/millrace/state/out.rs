//! Standard output, line by line.

use std::io::{self, BufWriter, StdoutLock, Write};

use millrace_core::{Error, Result};

/// Standard output. Nobody may be there to read it any more; then nothing needs to be found out either.
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a line; returns whether anybody reads.
    pub fn line(&mut self, text: &str) -> Result<bool> {
        is_read(writeln!(self.0, "{text}"))
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<()> {
        is_read(self.0.flush()).map(drop)
    }
}

fn is_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::external(format!("standard output: {error}"))),
    }
}
