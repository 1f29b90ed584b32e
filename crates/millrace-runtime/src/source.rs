//! A source without its types, as the jobmanager and the tasks handle it: splits are encoded, records are batches.

use std::{collections::BTreeSet, marker::PhantomData, time::Duration};

use millrace_core::{
    Batch, Error, RecordBatch, Result, codec,
    ids::CheckpointId,
    schema::{Migration, Schema},
    source::{
        Boundedness, Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader, SourceSplit,
        SplitEnumerator,
    },
};

/// An encoded split with its id.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EncodedSplit {
    /// [`SourceSplit::split_id`].
    pub id: String,
    /// The split.
    pub bytes: Vec<u8>,
}

/// A source without its types.
pub trait ErasedSource: Send + Sync {
    /// Whether it ends.
    fn boundedness(&self) -> Boundedness;
    /// Makes the enumerator.
    fn create_enumerator(&self, context: &EnumeratorContext) -> Result<Box<dyn ErasedEnumerator>>;
    /// Makes a reader, on its task's thread.
    fn create_reader(&self, context: &mut ReaderContext) -> Result<Box<dyn ErasedReader>>;
    /// The schema of its splits.
    fn split_schema(&self) -> Result<Schema>;
    /// Splits that were written under a schema as the program's type of today has them; refused where it can't read them.
    fn migrate_splits(&self, written: &Schema, splits: Vec<EncodedSplit>) -> Result<Vec<EncodedSplit>>;
    /// [`Source::fingerprint`], with the names of its types.
    fn fingerprint(&self) -> Vec<u8>;
}

/// [`SplitEnumerator`] without its types.
pub trait ErasedEnumerator: Send {
    /// Returns the splits that are not among `known`.
    fn discover(&mut self, known: &BTreeSet<String>, discovery: Discovery) -> Result<Vec<EncodedSplit>>;
    /// How often to look again.
    fn discovery_interval(&self) -> Option<Duration>;
}

/// [`SourceReader`] without its types.
pub trait ErasedReader {
    /// Takes over splits.
    fn add_splits(&mut self, splits: &[EncodedSplit]) -> Result<()>;
    /// No call of [`Self::add_splits`] follows.
    fn no_more_splits(&mut self);
    /// Reads a batch of at most `max` records, waiting up to `wait` for the first.
    fn read(&mut self, max: usize, wait: Duration) -> Result<(ReadStatus, Option<Batch>)>;
    /// All splits at their positions, for a checkpoint.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<EncodedSplit>>;
    /// The checkpoint is complete.
    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()>;
    /// How many records wait that were not read yet, where that is known.
    fn pending_records(&self) -> Option<u64>;
}

/// A typed source behind the untyped interface.
pub struct TypedSource<S>(pub S);

impl<S: Source> ErasedSource for TypedSource<S> {
    fn boundedness(&self) -> Boundedness {
        self.0.boundedness()
    }

    fn create_enumerator(&self, context: &EnumeratorContext) -> Result<Box<dyn ErasedEnumerator>> {
        Ok(Box::new(TypedEnumerator(self.0.create_enumerator(context)?)))
    }

    fn create_reader(&self, context: &mut ReaderContext) -> Result<Box<dyn ErasedReader>> {
        let reader = self.0.create_reader(context)?;
        Ok(Box::new(TypedReader { reader, capacity: 0, types: PhantomData }))
    }

    fn split_schema(&self) -> Result<Schema> {
        Schema::of::<S::Split>()
    }

    fn migrate_splits(&self, written: &Schema, splits: Vec<EncodedSplit>) -> Result<Vec<EncodedSplit>> {
        let migration = Migration::to::<S::Split>(written).map_err(|why| {
            let today = self.split_schema().map_or_else(|error| error.message, |schema| schema.to_string());
            Error::invalid(format!(
                "its splits in the checkpoint are of type {written}, the program's of type {today}: {why}; use the old \
                 type, or, if this is another source, another uid"
            ))
        })?;
        if !migration.is_needed() {
            return Ok(splits);
        }
        splits.iter().map(|split| encode_split(&migration.decode::<S::Split>(&split.bytes)?)).collect()
    }

    fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = std::any::type_name::<S>().as_bytes().to_vec();
        bytes.extend(self.0.fingerprint());
        bytes
    }
}

struct TypedEnumerator<S>(Box<dyn SplitEnumerator<S>>);

impl<S: SourceSplit> ErasedEnumerator for TypedEnumerator<S> {
    fn discover(&mut self, known: &BTreeSet<String>, discovery: Discovery) -> Result<Vec<EncodedSplit>> {
        self.0.discover(known, discovery)?.iter().map(encode_split).collect()
    }

    fn discovery_interval(&self) -> Option<Duration> {
        self.0.discovery_interval()
    }
}

struct TypedReader<T, S> {
    reader: Box<dyn SourceReader<T, S>>,
    /// The size of the last batch: the next is likely to be as large.
    capacity: usize,
    types: PhantomData<(T, S)>,
}

impl<T: millrace_core::Record, S: SourceSplit> ErasedReader for TypedReader<T, S> {
    fn add_splits(&mut self, splits: &[EncodedSplit]) -> Result<()> {
        let splits = splits.iter().map(|split| codec::decode(&split.bytes)).collect::<Result<_>>()?;
        self.reader.add_splits(splits)
    }

    fn no_more_splits(&mut self) {
        self.reader.no_more_splits();
    }

    fn read(&mut self, max: usize, wait: Duration) -> Result<(ReadStatus, Option<Batch>)> {
        let mut records = Vec::with_capacity(self.capacity.min(max));
        let status = self.reader.read(max, wait, &mut records)?;
        self.capacity = records.len();
        if records.is_empty() {
            return Ok((status, None));
        }
        let origin = Some(self.reader.position().into());
        Ok((status, Some(Batch::new(RecordBatch::new(records, origin)))))
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<EncodedSplit>> {
        self.reader.snapshot(checkpoint)?.iter().map(encode_split).collect()
    }

    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.reader.notify_checkpoint_complete(checkpoint)
    }

    fn pending_records(&self) -> Option<u64> {
        self.reader.pending_records()
    }
}

fn encode_split<S: SourceSplit>(split: &S) -> Result<EncodedSplit> {
    Ok(EncodedSplit { id: split.split_id(), bytes: codec::encode(split)? })
}
