//! Appends records as lines to files.

use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use millrace_core::{
    Error, Record, Result,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};
use uuid::Uuid;

/// Writes each record as a line, by its `Display`, to files in a directory: each subtask to a new one at each start,
/// `part-<subtask>-<unique>`. The directory is created where it is missing.
///
/// At least once: records that were written after the last completed checkpoint are written again, to another file,
/// after a failure. When a checkpoint completes, what is before it is safe on disk.
#[derive(Clone, Debug)]
pub struct FileSink<T> {
    directory: PathBuf,
    record: PhantomData<fn() -> T>,
}

impl<T> FileSink<T> {
    /// A sink that writes to a directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: path.into(), record: PhantomData }
    }
}

impl<T: Record + Display> Sink for FileSink<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, context: &mut WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let name = format!("part-{}-{}", context.subtask, Uuid::new_v4());
        Ok(Box::new(FileWriter::create(&self.directory, name)?))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct FileWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl FileWriter {
    fn create(directory: &Path, name: String) -> Result<Self> {
        let path = directory.join(name);
        let create = || -> io::Result<File> {
            fs::create_dir_all(directory)?;
            let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            // Or a crash of the machine could leave a file without its name.
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { path, out: BufWriter::with_capacity(256 * 1024, file) })
    }
}

impl<T: Display> SinkWriter<T> for FileWriter {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        for record in records {
            writeln!(self.out, "{record}").map_err(|error| cannot_write(&self.path, &error))?;
        }
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_data());
        flushed.map_err(|error| cannot_write(&self.path, &error))?;
        Ok(Vec::new())
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    Error::external(format!("{} can't be written: {error}", path.display()))
}
