//! Which changes of a spec need a restart.

use millrace_api::{JobState, StreamJobSpec, UpgradeMode};
use xxhash_rust::xxh3::xxh3_128;

/// A hash of all in a spec whose change takes effect only when the job is restarted.
pub fn deployment_hash(spec: &StreamJobSpec) -> String {
    let mut spec = spec.clone();
    spec.state = JobState::default();
    spec.upgrade_mode = UpgradeMode::default();
    spec.checkpointing.retained = None;
    spec.checkpointing.retain_on_cancellation = None;
    if spec.parallelism.is_some() {
        // Then taskmanagers come and go without the job changing.
        spec.task_manager.replicas = 1;
    }
    let text = serde_json::to_vec(&spec).expect("a spec is JSON");
    format!("{:032x}", xxh3_128(&text))
}
