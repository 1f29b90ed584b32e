//! Deals records out to part files.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use millrace_core::{
    Error, Record, Result,
    sink::{SinkWriter, WriterContext},
};
use uuid::Uuid;

use super::{
    FileSink,
    buckets::checked,
    format::PartEncoder,
    left_over::LeftOver,
    store::{FileCommittable, OpenPart, PartStore},
};
use crate::sweep::Sweeper;

/// So many bytes are handed to the store at once.
const CHUNK: usize = 64 << 10;

pub(super) struct FileWriter<T> {
    sink: FileSink<T>,
    pub store: Arc<dyn PartStore>,
    subtask: u32,
    /// Makes the names of this start's files unique.
    unique: String,
    begun: u64,
    open: BTreeMap<String, Part<T>>,
    /// Finished since the last barrier.
    finished: Vec<FileCommittable>,
    pub left_over: LeftOver,
    /// What is left since is looked for as long as it is there.
    _sweeper: Sweeper,
}

struct Part<T> {
    encoder: Box<dyn PartEncoder<T>>,
    file: Box<dyn OpenPart>,
    buffer: Vec<u8>,
    size: u64,
}

impl<T: 'static> FileWriter<T> {
    /// Removes what dead starts have left, and only then writes.
    pub fn new(sink: FileSink<T>, context: &WriterContext<FileCommittable>) -> Result<Self> {
        let left_over = LeftOver::new(context);
        let store = sink.location.open(left_over.label())?;
        left_over.remove(&*store)?;
        Ok(Self {
            sink,
            subtask: context.subtask,
            unique: Uuid::new_v4().simple().to_string(),
            begun: 0,
            open: BTreeMap::new(),
            finished: Vec::new(),
            _sweeper: left_over.clone().watch(Arc::clone(&store)),
            left_over,
            store,
        })
    }

    fn begin(&mut self, bucket: &str) -> Result<Part<T>> {
        let name = format!("part-{}-{}-{}{}", self.subtask, self.unique, self.begun, self.sink.format.extension());
        self.begun += 1;
        self.left_over.begun(&name);
        let path = if bucket.is_empty() { name } else { format!("{bucket}/{name}") };
        let encoder = self.sink.format.begin().map_err(Error::from_function)?;
        Ok(Part { encoder, file: self.store.begin(&path)?, buffer: Vec::new(), size: 0 })
    }

    fn write_one(&mut self, record: &T, now: i64) -> Result<()> {
        let bucket = match &self.sink.buckets {
            None => String::new(),
            Some(assigner) => {
                let bucket = assigner.bucket(record, now).map_err(Error::from_function)?;
                checked(&bucket)?;
                bucket
            }
        };
        let mut part = match self.open.remove(&bucket) {
            Some(part) => part,
            None => self.begin(&bucket)?,
        };
        part.encoder.encode(record, &mut part.buffer).map_err(Error::from_function)?;
        if part.buffer.len() >= CHUNK {
            part.write_out()?;
        }
        if part.size + part.buffer.len() as u64 >= self.sink.max_part_size {
            self.finished.push(part.finish()?);
        } else {
            self.open.insert(bucket, part);
        }
        Ok(())
    }
}

impl<T> Part<T> {
    fn write_out(&mut self) -> Result<()> {
        self.file.write(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<FileCommittable> {
        self.encoder.finish(&mut self.buffer).map_err(Error::from_function)?;
        self.write_out()?;
        self.file.finish()
    }
}

impl<T: Record> SinkWriter<T, FileCommittable> for FileWriter<T> {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        records.iter().try_for_each(|record| self.write_one(record, now))
    }

    fn prepare_commit(&mut self) -> Result<Vec<FileCommittable>> {
        while let Some((_, part)) = self.open.pop_first() {
            self.finished.push(part.finish()?);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    fn settled(&mut self, committables: &[FileCommittable]) -> Result<()> {
        self.left_over.settled(committables);
        Ok(())
    }
}
