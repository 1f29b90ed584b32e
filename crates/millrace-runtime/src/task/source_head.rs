//! The source at the head of a task's chain.

use std::time::Duration;

use millrace_core::{
    Batch, Result,
    ids::{CheckpointId, OperatorUid},
    operator_state::OperatorListSnapshot,
    schema::Schema,
    source::{ReadStatus, ReaderContext},
};

use super::splits::encode_splits;
use crate::source::{EncodedSplit, ErasedReader};

/// A reader and what it was given.
pub(super) struct SourceHead {
    pub(super) uid: OperatorUid,
    pub(super) reader: Box<dyn ErasedReader>,
    pub(super) context: ReaderContext,
    pub(super) split_schema: Schema,
    /// It must not read yet.
    pub(super) held: bool,
    /// The reader has said that nothing follows.
    pub(super) exhausted: bool,
}

impl SourceHead {
    pub(super) fn read(&mut self, max: usize, wait: Duration) -> Result<(ReadStatus, Option<Batch>)> {
        let read = self.reader.read(max, wait)?;
        self.exhausted |= read.0 == ReadStatus::Finished;
        Ok(read)
    }

    /// Takes over splits that were found later. A reader that has finished takes none.
    pub(super) fn add_splits(&mut self, splits: &[EncodedSplit]) -> Result<()> {
        if self.exhausted { Ok(()) } else { self.reader.add_splits(splits) }
    }

    /// The splits at their positions, and the reader's own lists.
    pub(super) fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<OperatorListSnapshot>> {
        let mut lists = self.context.operator_state.snapshot()?;
        lists.push(encode_splits(&self.reader.snapshot(checkpoint)?, self.split_schema.clone())?);
        Ok(lists)
    }

    pub(super) fn notify_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.reader.notify_checkpoint_complete(checkpoint)
    }
}
