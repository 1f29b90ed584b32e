//! Deals records out to part files.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use millrace_core::{Error, Record, Result, sink::SinkWriter};
use uuid::Uuid;

use super::{
    FileSink,
    buckets::checked,
    format::PartEncoder,
    store::{FileCommittable, OpenPart, PartStore},
};

/// So many bytes are handed to the store at once.
const CHUNK: usize = 64 << 10;

pub(super) struct FileWriter<T> {
    sink: FileSink<T>,
    store: Box<dyn PartStore>,
    subtask: u32,
    /// Makes the names of this start's files unique.
    unique: String,
    begun: u64,
    open: BTreeMap<String, Part<T>>,
    /// Finished since the last barrier.
    finished: Vec<FileCommittable>,
}

struct Part<T> {
    encoder: Box<dyn PartEncoder<T>>,
    file: Box<dyn OpenPart>,
    buffer: Vec<u8>,
    size: u64,
}

impl<T: 'static> FileWriter<T> {
    pub fn new(sink: FileSink<T>, store: Box<dyn PartStore>, subtask: u32) -> Self {
        let unique = Uuid::new_v4().simple().to_string();
        Self { sink, store, subtask, unique, begun: 0, open: BTreeMap::new(), finished: Vec::new() }
    }

    fn begin(&mut self, bucket: &str) -> Result<Part<T>> {
        let name = format!("part-{}-{}-{}{}", self.subtask, self.unique, self.begun, self.sink.format.extension());
        self.begun += 1;
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
}
