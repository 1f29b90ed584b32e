//! A batch on a keyed edge: dealt out by its keys, and encoded and decoded between processes.

use millrace_core::{Batch, RecordBatch};
use millrace_runtime::exchange::{ByItself, Exchange, HashExchange, Partitioner};

use super::{BATCH, Workload, key};

const TARGETS: u32 = 2;
const MAX_PARALLELISM: u32 = 128;

fn exchange() -> HashExchange<String, ByItself> {
    HashExchange::new(ByItself)
}

fn batch() -> Batch {
    Batch::new(RecordBatch::new((0..BATCH as u64).map(key).collect(), None))
}

/// The batch as it comes out of the partitioner: with its keys.
fn keyed_batch() -> Batch {
    let mut parts = Vec::new();
    exchange().partitioner(0, 1, MAX_PARALLELISM).partition(batch(), &mut parts).expect("keys can be encoded");
    parts.pop().expect("one part").1
}

/// Keys are encoded and hashed, and records go to their targets.
pub struct Partition {
    partitioner: Box<dyn Partitioner>,
    made: Batch,
    ready: Option<Batch>,
    parts: Vec<(u32, Batch)>,
}

impl Partition {
    pub fn new() -> Self {
        let partitioner = exchange().partitioner(0, TARGETS, MAX_PARALLELISM);
        Self { partitioner, made: batch(), ready: None, parts: Vec::new() }
    }
}

impl Workload for Partition {
    fn prepare(&mut self) {
        self.parts.clear();
        self.ready = Some(self.made.clone());
    }

    fn round(&mut self) {
        let batch = self.ready.take().expect("it was prepared");
        self.partitioner.partition(batch, &mut self.parts).expect("keys can be encoded");
        assert_eq!(self.parts.len(), TARGETS as usize);
    }

    fn units(&self) -> usize {
        BATCH
    }
}

/// A batch to bytes.
pub struct Encode {
    batch: Batch,
    buffer: Vec<u8>,
}

impl Encode {
    pub fn new() -> Self {
        Self { batch: keyed_batch(), buffer: Vec::new() }
    }
}

impl Workload for Encode {
    fn round(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.buffer = exchange().encode(&self.batch, buffer).expect("records can be encoded");
    }

    fn units(&self) -> usize {
        BATCH
    }
}

/// Bytes to a batch.
pub struct Decode {
    bytes: Vec<u8>,
    decoded: Option<Batch>,
}

impl Decode {
    pub fn new() -> Self {
        let bytes = exchange().encode(&keyed_batch(), Vec::new()).expect("records can be encoded");
        Self { bytes, decoded: None }
    }
}

impl Workload for Decode {
    fn prepare(&mut self) {
        self.decoded = None;
    }

    fn round(&mut self) {
        self.decoded = Some(exchange().decode(&self.bytes).expect("what was encoded can be decoded"));
    }

    fn units(&self) -> usize {
        BATCH
    }
}
