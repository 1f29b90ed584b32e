//! Sources, in the shape of Flink's FLIP-27: an enumerator on the jobmanager finds splits, readers on the taskmanagers
//! read them.

use std::{collections::BTreeSet, time::Duration};

use crate::{Record, Result, ids::CheckpointId, operator_state::OperatorStateStore};

/// Whether a source ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundedness {
    /// It ends by itself.
    Bounded,
    /// It goes on until the job is stopped.
    Unbounded,
}

/// A part of a source that one reader reads at a time, together with the position to go on from: a Kafka partition and
/// an offset, a file and a byte.
pub trait SourceSplit: Record {
    /// What names the split for ever, whatever its position.
    fn split_id(&self) -> String;
}

/// A source of records. It is created by the program, identically in every process, and must hold no open resource.
pub trait Source: Send + Sync + 'static {
    /// What it yields.
    type Record: Record;
    /// Its splits.
    type Split: SourceSplit;

    /// Whether it ends.
    fn boundedness(&self) -> Boundedness;

    /// Makes the enumerator; called on the jobmanager for every attempt.
    fn create_enumerator(&self, context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<Self::Split>>>;

    /// Makes a reader; called on its task's thread.
    fn create_reader(&self, context: &mut ReaderContext) -> Result<Box<dyn SourceReader<Self::Record, Self::Split>>>;

    /// Bytes that tell two differently configured sources apart, such as the contents of a collection. Part of the
    /// fingerprint that keeps processes of different programs from forming one job.
    fn fingerprint(&self) -> Vec<u8>;
}

/// What an enumerator is told.
#[derive(Clone, Debug)]
pub struct EnumeratorContext {
    /// The source's parallelism.
    pub parallelism: u32,
}

/// When a discovery takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// At the job's first start: start positions such as `latest` are resolved now, into concrete ones.
    Initial,
    /// Later, or after a restore: what is new has appeared under the running job and is read from its beginning.
    Later,
}

/// Finds splits. It keeps no state of its own: what is known is what readers hold.
pub trait SplitEnumerator<S>: Send {
    /// Returns the splits that are not among `known`. May block; runs on a thread of its own.
    fn discover(&mut self, known: &BTreeSet<String>, discovery: Discovery) -> Result<Vec<S>>;

    /// How often to look again; `None` for a source whose splits are all known at the start.
    fn discovery_interval(&self) -> Option<Duration>;
}

/// What a reader is told and given.
pub struct ReaderContext {
    /// The reader's subtask.
    pub subtask: u32,
    /// The source's parallelism.
    pub parallelism: u32,
    /// Operator lists, for sources that keep more than their splits.
    pub operator_state: OperatorStateStore,
}

/// What came of asking a reader for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// There may be more at once.
    More,
    /// There is nothing for now.
    Idle,
    /// All splits are at their end and no more will come. Final.
    Finished,
}

/// Reads splits. It lives on its task's thread; what is asynchronous stays behind it.
pub trait SourceReader<T, S> {
    /// Takes over splits, each at its position. Called before the first read and whenever new ones are found.
    fn add_splits(&mut self, splits: Vec<S>) -> Result<()>;

    /// No call of [`Self::add_splits`] follows.
    fn no_more_splits(&mut self);

    /// Appends up to `max` records to `out`, waiting up to `wait` for the first. A call must not last much longer than
    /// `wait`: checkpoints wait for it.
    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<T>) -> Result<ReadStatus>;

    /// Where the records of the last [`Self::read`] were read, for messages to a person: `input-topic-0@120..183`.
    fn position(&self) -> String;

    /// All splits, each at the position behind the last record that was returned. A split at its end stays among them.
    /// The positions belong to `checkpoint`, which [`Self::notify_checkpoint_complete`] may name later.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<S>>;

    /// The checkpoint is complete: its positions may be told to the outside. Called only for completed ones.
    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()>;

    /// How many records wait outside that were not read yet, where that is known without asking anybody: the source's
    /// lag, as people see it.
    fn pending_records(&self) -> Option<u64> {
        None
    }
}
