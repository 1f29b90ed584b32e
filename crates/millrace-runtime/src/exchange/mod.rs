//! What happens on an edge: records are dealt out to the consumer's subtasks, batches move by ownership inside a
//! process and are encoded, a batch at a time, between processes.

mod deal;
mod hash;
mod typed;
mod wire;

pub use hash::{ByItself, HashExchange, KeySelector};
pub use typed::{BroadcastExchange, ForwardExchange, RebalanceExchange};
pub(crate) use wire::encoded_records;

use millrace_core::{Batch, Result, schema::Schema};

/// The record type's way through an edge.
pub trait Exchange: Send + Sync {
    /// Makes the partitioner of one producing subtask.
    fn partitioner(&self, subtask: u32, targets: u32, max_parallelism: u32) -> Box<dyn Partitioner>;

    /// Appends the encoding of a batch, its keys and its origin.
    fn encode(&self, batch: &Batch, buffer: Vec<u8>) -> Result<Vec<u8>>;

    /// Reads a batch. Bytes from a peer are not trusted: anything wrong is an error.
    fn decode(&self, bytes: &[u8]) -> Result<Batch>;

    /// The record type and the kind of edge, for the fingerprint.
    fn type_name(&self) -> String;

    /// The record type's schema; an error where it has none.
    fn schema(&self) -> Result<Schema>;
}

/// Deals out the batches of one producing subtask.
pub trait Partitioner {
    /// Appends what goes to each target; a target may appear once.
    fn partition(&mut self, batch: Batch, out: &mut Vec<(u32, Batch)>) -> Result<()>;
}
