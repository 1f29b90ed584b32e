//! A sink that takes everything and keeps nothing.

use std::marker::PhantomData;

use millrace_core::{
    Record, Result,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};

/// Drops every record: for measuring what stands before it.
#[derive(Clone, Debug)]
pub struct DiscardingSink<T>(PhantomData<fn() -> T>);

impl<T> DiscardingSink<T> {
    /// A sink that keeps nothing.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for DiscardingSink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Record> Sink for DiscardingSink<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(DiscardingWriter))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct DiscardingWriter;

impl<T> SinkWriter<T> for DiscardingWriter {
    fn write(&mut self, _records: Vec<T>) -> Result<()> {
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        Ok(Vec::new())
    }
}
