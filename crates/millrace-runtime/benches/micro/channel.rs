//! A batch that goes through a channel.

use std::{sync::Arc, time::Duration};

use millrace_core::{Batch, RecordBatch, ids::InputId};
use millrace_runtime::task::gate::{ChannelId, Gate, GateEvent, Offer, StreamElement};

use super::{BATCH, Workload};

const HOPS: usize = 1024;

/// The same batch again and again, without a wait: what a channel costs beside the threads' waking.
pub struct Hops {
    gate: Arc<Gate>,
    batch: Option<Batch>,
}

impl Hops {
    pub fn new() -> Self {
        let channel = ChannelId { input: InputId(0), edge: 0, producer: 0 };
        let batch = Batch::new(RecordBatch::new(vec![0u64; BATCH], None));
        Self { gate: Gate::new(vec![channel], 8, Vec::new()), batch: Some(batch) }
    }
}

impl Workload for Hops {
    fn round(&mut self) {
        for _ in 0..HOPS {
            let batch = self.batch.take().expect("it came out again");
            assert!(matches!(self.gate.offer(0, StreamElement::Batch(batch)), Offer::Taken { .. }));
            let event = self.gate.next(Some(Duration::ZERO));
            let GateEvent::Element { element: StreamElement::Batch(batch), .. } = event else {
                panic!("{event:?} instead of the batch");
            };
            self.batch = Some(batch);
        }
    }

    fn units(&self) -> usize {
        HOPS
    }
}
