//! What a user asks for.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    CheckpointingSpec, JobManagerSpec, PodTemplate, RestartStrategySpec, S3Spec, StateBackendSpec, StorageUri,
    StreamJobStatus, TaskManagerSpec, crd,
};

/// The longest name of a StreamJob: the names of its pods and their labels are made from it, and have 63 characters at
/// most.
pub const MAX_NAME: usize = 40;
/// The highest parallelism there is.
pub const HIGHEST_PARALLELISM: u32 = 32_768;
/// What `maxParallelism` is where nothing is said.
pub const DEFAULT_MAX_PARALLELISM: u32 = 128;

const NAME_LENGTH: &str = "self.metadata.name.size() <= 40";
const NAME_LENGTH_MESSAGE: &str =
    "metadata.name is too long: choose a name of at most 40 characters, pods and their labels are named after it";
const NAME_FORM: &str = "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
const NAME_FORM_MESSAGE: &str = "metadata.name must be a DNS label, Services are named after it: lower-case letters, \
    digits and -, with a letter first and no - at the end";

const FITS: &str = "!has(self.parallelism) || self.parallelism <= self.taskManager.replicas * self.taskManager.slots";
const FITS_MESSAGE: &str = "parallelism needs more slots than taskManager.replicas x taskManager.slots: lower \
    parallelism, or raise replicas or slots";
const BELOW_MAX: &str = "(has(self.parallelism) ? self.parallelism : self.taskManager.replicas * \
    self.taskManager.slots) <= (has(self.maxParallelism) ? self.maxParallelism : 128)";
const BELOW_MAX_MESSAGE: &str = "parallelism (where it is not set: taskManager.replicas x taskManager.slots) is above \
    maxParallelism (where it is not set: 128): lower it, or set a higher maxParallelism, which takes upgradeMode: \
    stateless once the job exists";
const MAX_PARALLELISM_STAYS: &str = "self.upgradeMode == 'stateless' || (has(self.maxParallelism) == \
    has(oldSelf.maxParallelism) && (!has(self.maxParallelism) || self.maxParallelism == oldSelf.maxParallelism))";
const MAX_PARALLELISM_STAYS_MESSAGE: &str = "maxParallelism cannot change while state is kept: checkpoints are cut by \
    it. Leave it as it was, or set upgradeMode: stateless to start without state";
const PROGRAM: &str = "self.matches('^/[^[:space:]]*[^/[:space:]]$')";
const PROGRAM_MESSAGE: &str = "'\"' + self + '\" is no program: write its absolute path in the image, such as \
    /usr/bin/my-job, and its arguments in args'";
const NO_SAVEPOINT: &str = "self != 'savepoint'";
const NO_SAVEPOINT_MESSAGE: &str = "savepoints are not there yet: use last-state or stateless";

/// A job: its program, how it is run, and where its checkpoints go.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "StreamJob",
    plural = "streamjobs",
    shortname = "sj",
    category = "millrace",
    namespaced,
    status = "StreamJobStatus",
    derive = "PartialEq",
    doc = "A stream processing job: a program in an image, run as a jobmanager and taskmanagers.",
    scale(
        spec_replicas_path = ".spec.taskManager.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Taskmanagers ready and wanted",
        json_path = ".status.taskManagersReady"
    ),
    printcolumn(name = "Parallelism", type_ = "integer", json_path = ".status.parallelism"),
    printcolumn(
        name = "Checkpoint",
        type_ = "date",
        description = "Age of the latest completed checkpoint",
        json_path = ".status.checkpoints.latest.completedAt"
    ),
    printcolumn(name = "Restarts", type_ = "integer", json_path = ".status.restarts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why the job is ready or not",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1),
    printcolumn(name = "JobId", type_ = "string", json_path = ".status.jobId", priority = 1),
    validation = Rule::new(NAME_LENGTH).message(NAME_LENGTH_MESSAGE),
    validation = Rule::new(NAME_FORM).message(NAME_FORM_MESSAGE)
)]
#[x_kube(
    validation = Rule::new(FITS).message(FITS_MESSAGE),
    validation = Rule::new(BELOW_MAX).message(BELOW_MAX_MESSAGE),
    validation = Rule::new(MAX_PARALLELISM_STAYS).message(MAX_PARALLELISM_STAYS_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
pub struct StreamJobSpec {
    /// The container image that holds the program.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When the image is pulled. Unset: Kubernetes' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// The program's absolute path in the image.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new(PROGRAM).message(Message::Expression(PROGRAM_MESSAGE.into())))]
    pub program: String,
    /// The program's arguments, the same for jobmanager and taskmanagers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// How many subtasks an operator has that says nothing else. Unset: taskManager.replicas x taskManager.slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32768))]
    pub parallelism: Option<u32>,
    /// The highest parallelism that the job can ever have; fixed as long as its state is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32768))]
    pub max_parallelism: Option<u32>,
    /// Whether the job runs, or is stopped with its checkpoints kept.
    #[serde(default)]
    pub state: JobState,
    /// Another number restarts the job, from its latest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_nonce: Option<i64>,
    /// Checkpoints: how often, and where they go.
    pub checkpointing: CheckpointingSpec,
    /// Where the job's state lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_backend: Option<StateBackendSpec>,
    /// The object store behind s3:// URIs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// Whether and when the job starts again after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_strategy: Option<RestartStrategySpec>,
    /// The jobmanager's pod.
    #[serde(default)]
    pub job_manager: JobManagerSpec,
    /// The taskmanagers: how many, and their pods.
    #[serde(default)]
    pub task_manager: TaskManagerSpec,
    /// Other settings of the engine, by their keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crd::configuration")]
    pub configuration: BTreeMap<String, String>,
    /// A retained checkpoint to start from, as long as the job has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_checkpoint: Option<StorageUri>,
    /// Start although the checkpoint holds state that no operator of the program claims; that state is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_non_restored_state: Option<bool>,
    /// What a changed spec starts from: the latest checkpoint, or nothing.
    #[serde(default)]
    #[x_kube(validation = Rule::new(NO_SAVEPOINT).message(NO_SAVEPOINT_MESSAGE))]
    pub upgrade_mode: UpgradeMode,
    /// A pod template that is merged into all pods of the job. The main container is called millrace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl StreamJobSpec {
    /// How many slots the taskmanagers have together.
    pub fn slots(&self) -> u32 {
        self.task_manager.replicas.saturating_mul(self.task_manager.slots)
    }

    /// The parallelism of operators that say nothing else.
    pub fn effective_parallelism(&self) -> u32 {
        self.parallelism.unwrap_or_else(|| self.slots())
    }

    /// The highest parallelism that the job can have.
    pub fn effective_max_parallelism(&self) -> u32 {
        self.max_parallelism.unwrap_or(DEFAULT_MAX_PARALLELISM)
    }

    /// Whether the job is to be stopped.
    pub fn is_suspended(&self) -> bool {
        self.state == JobState::Suspended
    }
}

/// Whether a job runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It runs.
    #[default]
    Running,
    /// It is stopped; its checkpoints stay.
    Suspended,
}

/// What a changed spec starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeMode {
    /// Nothing: a new job.
    Stateless,
    /// The latest completed checkpoint.
    #[default]
    LastState,
    /// A savepoint; not there yet.
    Savepoint,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At each start.
    Always,
    /// Where the node does not have it.
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

impl ImagePullPolicy {
    /// Its name in a pod.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_the_schema_defaults() {
        let text = r#"{ "image": "i", "program": "/p", "checkpointing": { "ephemeral": true } }"#;
        let spec: StreamJobSpec = serde_json::from_str(text).expect("a spec");
        assert_eq!((spec.slots(), spec.effective_parallelism(), spec.effective_max_parallelism()), (1, 1, 128));
        assert!(!spec.is_suspended() && spec.upgrade_mode == UpgradeMode::LastState);

        let fields = crd::crd();
        let schema = fields.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let fields = schema.expect("a schema").properties.as_ref().expect("fields")["spec"].properties.as_ref();
        let default =
            |field: &str| fields.expect("fields of the spec")[field].default.as_ref().map(|json| json.0.clone());
        assert_eq!(default("taskManager"), Some(serde_json::json!({ "replicas": 1, "slots": 1 })));
        assert_eq!(default("jobManager"), Some(serde_json::json!({})));
        assert_eq!(default("state"), Some(serde_json::json!("running")));
        assert_eq!(default("upgradeMode"), Some(serde_json::json!("last-state")));
        // A default of an engine's setting would look explicit, and beat the program.
        for field in ["parallelism", "maxParallelism", "restartStrategy", "stateBackend", "checkpointing"] {
            assert_eq!(default(field), None, "{field}");
        }
    }

    #[test]
    fn parallelism_is_what_is_set_or_else_what_fits() {
        let mut spec = StreamJobSpec::default();
        spec.task_manager.replicas = 3;
        spec.task_manager.slots = 2;
        assert_eq!(spec.effective_parallelism(), 6);
        spec.parallelism = Some(4);
        assert_eq!((spec.effective_parallelism(), spec.slots()), (4, 6));
    }
}
