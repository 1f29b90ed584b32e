//! The `StreamJob` custom resource: what a user writes (`spec`), what the operator answers (`status`), and the
//! CustomResourceDefinition made from both. Whatever the schema can say is refused by the API server already, with a
//! sentence that says what to change.

mod checkpointing;
mod configuration;
mod crd;
mod pods;
mod restart;
mod spec;
mod status;
mod storage;
mod text;

pub use checkpointing::{CheckpointingMode, CheckpointingSpec};
pub use crd::{CRD_NAME, crd};
pub use pods::{JobManagerSpec, PodTemplate, Resources, TaskManagerSpec, VolumeClaimSpec};
pub use restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategySpec, RestartStrategyType};
pub use spec::{
    DEFAULT_MAX_PARALLELISM, HIGHEST_PARALLELISM, ImagePullPolicy, JobState, MAX_NAME, StreamJob, StreamJobSpec,
    UpgradeMode,
};
pub use status::{
    CheckpointStatus, CheckpointsStatus, DeploymentStatus, MAX_TEXT, Phase, RecoveryPhase, RecoveryStatus, SlotsStatus,
    StreamJobStatus, TaskManagersStatus, bounded,
};
pub use storage::{CaBundle, CredentialsSecretRef, S3Spec, StateBackendSpec};
pub use text::{Duration, Number, Size, StorageUri};

/// The API group.
pub const GROUP: &str = "millrace.dev";
