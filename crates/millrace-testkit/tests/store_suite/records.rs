//! Checkpoints with nothing in them.

use millrace_core::{
    checkpoint::CheckpointingMode,
    ids::{Attempt, CheckpointId, Generation, JobId},
};
use millrace_state::{
    log::CheckpointRecord,
    metadata::CheckpointMetadata,
    storage::{CheckpointStorage, MetadataWrite},
};

pub const JOB: JobId = JobId(0xbeef);

pub fn metadata(checkpoint: u64, generation: u64) -> CheckpointMetadata {
    CheckpointMetadata {
        job: JOB,
        checkpoint: CheckpointId(checkpoint),
        generation: Generation(generation),
        attempt: Attempt(0),
        created_at_ms: 1,
        mode: CheckpointingMode::ExactlyOnce,
        max_parallelism: 128,
        is_final: false,
        operators: Vec::new(),
    }
}

pub async fn record(storage: &CheckpointStorage, checkpoint: u64) -> CheckpointRecord {
    match storage.write_metadata(&metadata(checkpoint, 1), false).await.unwrap() {
        MetadataWrite::Written(record) => record,
        MetadataWrite::Conflict => panic!("conflict"),
    }
}
