//! Checkpoints of a task with several channels.

use millrace_core::{
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    ids::CheckpointId,
};
use millrace_runtime::alignment::{AlignerAction, AlignerEvent, BarrierAligner};

use super::Workload;

const CHANNELS: usize = 8;
const CHECKPOINTS: u64 = 128;

/// Barriers that come in one after the other.
pub struct Barriers {
    aligner: BarrierAligner,
    next: u64,
}

impl Barriers {
    pub fn new() -> Self {
        Self { aligner: BarrierAligner::new(CheckpointingMode::ExactlyOnce, CHANNELS), next: 1 }
    }
}

impl Workload for Barriers {
    fn round(&mut self) {
        for id in self.next..self.next + CHECKPOINTS {
            let barrier = CheckpointBarrier { id: CheckpointId(id), triggered_at_ms: id };
            let mut last = Vec::new();
            for channel in 0..CHANNELS {
                last = self.aligner.on(AlignerEvent::Barrier { channel, barrier });
            }
            assert_eq!(last.first(), Some(&AlignerAction::Snapshot(barrier)));
        }
        self.next += CHECKPOINTS;
    }

    fn units(&self) -> usize {
        CHANNELS * CHECKPOINTS as usize
    }
}
