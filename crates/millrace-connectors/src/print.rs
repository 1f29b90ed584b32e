//! Printing to the taskmanager's standard output.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    marker::PhantomData,
};

use millrace_core::{
    Error, Record, Result,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};

/// Prints one line per record to the standard output of the process that runs it, a taskmanager: in local mode the
/// terminal, in a cluster the taskmanager's `.out` file.
///
/// Where several subtasks print, each line begins with the number of its subtask, counted from 1, as in `2> hello`.
///
/// Printing is at least once: what was printed after the last completed checkpoint is printed again after a failure.
#[derive(Clone, Debug)]
pub struct PrintSink<T>(PhantomData<fn() -> T>);

impl<T> PrintSink<T> {
    /// A sink that prints.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for PrintSink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Record + Display> Sink for PrintSink<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, context: &mut WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(PrintWriter::new(io::stdout(), context)))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct PrintWriter<W> {
    out: W,
    prefix: String,
    lines: Vec<u8>,
}

impl<W: Write> PrintWriter<W> {
    fn new(out: W, context: &WriterContext) -> Self {
        let prefix = if context.parallelism > 1 { format!("{}> ", context.subtask + 1) } else { String::new() };
        Self { out, prefix, lines: Vec::new() }
    }
}

impl<T: Display, W: Write> SinkWriter<T> for PrintWriter<W> {
    /// Writes a batch in one piece, so that the lines of subtasks in one process don't mix.
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        self.lines.clear();
        for record in &records {
            writeln!(self.lines, "{}{record}", self.prefix).map_err(cannot_print)?;
        }
        self.out.write_all(&self.lines).and_then(|()| self.out.flush()).map_err(cannot_print)
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        self.out.flush().map_err(cannot_print)?;
        Ok(Vec::new())
    }
}

fn cannot_print(error: io::Error) -> Error {
    let cannot = Error::external(format!("printing to standard output failed: {error}"));
    // Whoever read it has gone for good.
    if error.kind() == ErrorKind::BrokenPipe { cannot.fatal() } else { cannot }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::OperatorUid;

    use super::*;

    fn context(subtask: u32, parallelism: u32) -> WriterContext {
        WriterContext::new(OperatorUid("print".into()), subtask, parallelism)
    }

    fn printed(context: &WriterContext) -> String {
        let mut writer = PrintWriter::new(Vec::new(), context);
        writer.write(vec!["a", "b"]).unwrap();
        SinkWriter::<&str>::prepare_commit(&mut writer).unwrap();
        String::from_utf8(writer.out).unwrap()
    }

    #[test]
    fn a_single_subtask_prints_lines_as_they_are() {
        assert_eq!(printed(&context(0, 1)), "a\nb\n");
    }

    #[test]
    fn several_subtasks_number_their_lines_from_1() {
        assert_eq!(printed(&context(1, 2)), "2> a\n2> b\n");
    }

    #[test]
    fn a_closed_pipe_is_an_error_that_no_restart_cures() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let error = PrintWriter::new(pipe, &context(0, 1)).write(vec!["a"]).unwrap_err();
        assert!(!error.retryable, "{error:?}");
        assert!(error.message.contains("standard output"), "{error}");
    }
}
