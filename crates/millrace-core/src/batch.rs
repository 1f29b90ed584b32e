//! Batches: what flows between operators. Inside a process a batch is typed and moves by ownership; one dynamic call
//! moves a whole batch.

use std::{any::Any, sync::Arc};

use crate::{Error, Record, Result, key::KeyColumn};

/// Records of one type, with their keys behind a `key_by` edge.
#[derive(Clone, Debug)]
pub struct RecordBatch<T> {
    /// The records in order.
    pub records: Vec<T>,
    /// The keys, one for each record, where the stream is keyed.
    pub keys: Option<KeyColumn>,
    /// Where the records were read, for messages to a person: `input-topic-0@120..183`.
    pub origin: Option<Arc<str>>,
}

impl<T> RecordBatch<T> {
    /// A batch without keys.
    pub fn new(records: Vec<T>, origin: Option<Arc<str>>) -> Self {
        Self { records, keys: None, origin }
    }
}

/// A batch whose type is known only at its two ends.
pub struct Batch(Box<dyn ErasedBatch>);

impl Batch {
    /// Erases the type.
    pub fn new<T: Record>(batch: RecordBatch<T>) -> Self {
        Self(Box::new(batch))
    }

    /// The typed batch; an error names both types.
    pub fn into_typed<T: Record>(self) -> Result<RecordBatch<T>> {
        let actual = self.0.type_name();
        self.0.into_any().downcast::<RecordBatch<T>>().map(|batch| *batch).map_err(|_| {
            let wanted = std::any::type_name::<T>();
            Error::internal(format!("an operator that takes {wanted} was given a batch of {actual}")).fatal()
        })
    }

    /// A view of the typed batch, where it is of this type.
    pub fn as_typed<T: Record>(&self) -> Option<&RecordBatch<T>> {
        self.0.as_any().downcast_ref()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the records were read.
    pub fn origin(&self) -> Option<&Arc<str>> {
        self.0.origin()
    }

    /// Says where the records were read, unless that is known already.
    pub fn set_origin_if_absent(&mut self, origin: &Arc<str>) {
        self.0.set_origin_if_absent(origin);
    }

    /// Keeps the first `at` records and returns the others.
    pub fn split_off(&mut self, at: usize) -> Self {
        self.0.split_off(at)
    }
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        self.0.clone_batch()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch of {} {}", self.len(), self.0.type_name())
    }
}

trait ErasedBatch: Send {
    fn len(&self) -> usize;
    fn type_name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn origin(&self) -> Option<&Arc<str>>;
    fn set_origin_if_absent(&mut self, origin: &Arc<str>);
    fn split_off(&mut self, at: usize) -> Batch;
    fn clone_batch(&self) -> Batch;
}

impl<T: Record> ErasedBatch for RecordBatch<T> {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn origin(&self) -> Option<&Arc<str>> {
        self.origin.as_ref()
    }

    fn set_origin_if_absent(&mut self, origin: &Arc<str>) {
        self.origin.get_or_insert_with(|| Arc::clone(origin));
    }

    fn split_off(&mut self, at: usize) -> Batch {
        Batch::new(RecordBatch {
            records: self.records.split_off(at),
            keys: self.keys.as_mut().map(|keys| keys.split_off(at)),
            origin: self.origin.clone(),
        })
    }

    fn clone_batch(&self) -> Batch {
        Batch::new(self.clone())
    }
}
