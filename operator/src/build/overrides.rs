//! The engine's settings that a spec makes: what it says explicitly, and what the operator decides. What it leaves open
//! stays open, so that the program can say it.

use kube::ResourceExt;
use millrace_api::{
    CheckpointingSpec, Duration, RestartStrategySpec, S3Spec, StateBackendSpec, StreamJob, StreamJobSpec,
};

use super::{
    DeploymentRef,
    labels::{Component, name_of},
    pod::{CA_BUNDLE_PATH, DATA_PORT, METRICS_PORT, REST_PORT, RPC_PORT},
};

/// Settings by key, in the order that they are handed over in.
pub type Settings = Vec<(String, String)>;

/// The engine's settings for a deployment.
pub fn overrides(job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef) -> Settings {
    let mut settings = owned(job, spec, deployment);
    settings.extend(explicit(spec));
    settings.extend(spec.configuration.iter().map(|(key, value)| (key.clone(), value.clone())));
    settings
}

/// What the operator decides.
fn owned(job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef) -> Settings {
    let jobmanager = format!("{}.{}", name_of(job, Component::JobManager), job.namespace().unwrap_or_default());
    let everywhere = "0.0.0.0";
    let settings = [
        ("job.id", deployment.job_id.clone()),
        ("job.deployment", deployment.number.to_string()),
        // The jobmanager of a job that has ended goes on answering until the operator has read how it ended.
        ("execution.shutdown-on-application-finish", "false".to_owned()),
        ("parallelism.default", spec.effective_parallelism().to_string()),
        ("jobmanager.rpc.address", jobmanager.clone()),
        ("jobmanager.rpc.port", RPC_PORT.to_string()),
        ("jobmanager.bind-host", everywhere.to_owned()),
        ("rest.address", jobmanager),
        ("rest.port", REST_PORT.to_string()),
        ("rest.bind-address", everywhere.to_owned()),
        ("taskmanager.bind-host", everywhere.to_owned()),
        ("taskmanager.data.port", DATA_PORT.to_string()),
        ("taskmanager.numberOfTaskSlots", spec.task_manager.slots.to_string()),
        ("metrics.port", METRICS_PORT.to_string()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).into()
}

/// What the spec's fields say. Each key is that of one field.
pub(crate) fn explicit(spec: &StreamJobSpec) -> Settings {
    let mut settings = Vec::new();
    set(&mut settings, "pipeline.max-parallelism", spec.max_parallelism);
    checkpointing(&mut settings, &spec.checkpointing);
    let initial = spec.initial_checkpoint.as_ref();
    set(&mut settings, "execution.state-recovery.path", initial);
    set(&mut settings, "execution.state-recovery.ignore-unclaimed-state", spec.allow_non_restored_state);
    if let Some(backend) = &spec.state_backend {
        state_backend(&mut settings, backend);
    }
    if let Some(s3) = &spec.s3 {
        object_store(&mut settings, s3);
    }
    if let Some(strategy) = &spec.restart_strategy {
        restart_strategy(&mut settings, strategy);
    }
    settings
}

fn checkpointing(settings: &mut Settings, spec: &CheckpointingSpec) {
    let retention = |retain| if retain { "RETAIN_ON_CANCELLATION" } else { "DELETE_ON_CANCELLATION" };
    set(settings, "execution.checkpointing.interval", duration(&spec.interval));
    set(settings, "execution.checkpointing.timeout", duration(&spec.timeout));
    set(settings, "execution.checkpointing.min-pause", duration(&spec.min_pause));
    set(settings, "execution.checkpointing.mode", spec.mode.map(|mode| mode.as_str()));
    set(settings, "execution.checkpointing.num-retained", spec.retained);
    let retention = spec.retain_on_cancellation.map(retention);
    set(settings, "execution.checkpointing.externalized-checkpoint-retention", retention);
    set(settings, "state.checkpoints.dir", spec.storage.as_ref());
}

fn state_backend(settings: &mut Settings, spec: &StateBackendSpec) {
    set(settings, "state.backend", Some(&spec.type_));
    settings.extend(spec.options.iter().map(|(key, value)| (key.clone(), value.clone())));
}

fn object_store(settings: &mut Settings, spec: &S3Spec) {
    set(settings, "s3.endpoint", spec.endpoint.as_ref());
    set(settings, "s3.region", spec.region.as_ref());
    set(settings, "s3.path.style.access", spec.path_style);
    set(settings, "s3.ssl.ca-bundle", spec.ca_bundle.as_ref().map(|_| CA_BUNDLE_PATH));
}

fn restart_strategy(settings: &mut Settings, spec: &RestartStrategySpec) {
    set(settings, "restart-strategy.type", Some(spec.type_.as_str()));
    if let Some(fixed) = &spec.fixed_delay {
        set(settings, "restart-strategy.fixed-delay.attempts", fixed.attempts);
        set(settings, "restart-strategy.fixed-delay.delay", duration(&fixed.delay));
    }
    if let Some(exponential) = &spec.exponential_delay {
        let mut set = |key: &str, value| set(settings, &format!("restart-strategy.exponential-delay.{key}"), value);
        set("initial-backoff", duration(&exponential.initial_backoff));
        set("max-backoff", duration(&exponential.max_backoff));
        set("backoff-multiplier", exponential.backoff_multiplier.as_ref().map(ToString::to_string));
        set("reset-backoff-threshold", duration(&exponential.reset_backoff_threshold));
    }
    if let Some(rate) = &spec.failure_rate {
        set(settings, "restart-strategy.failure-rate.max-failures-per-interval", rate.max_failures_per_interval);
        let interval = duration(&rate.failure_rate_interval);
        set(settings, "restart-strategy.failure-rate.failure-rate-interval", interval);
        set(settings, "restart-strategy.failure-rate.delay", duration(&rate.delay));
    }
}

fn set(settings: &mut Settings, key: &str, value: Option<impl ToString>) {
    settings.extend(value.map(|value| (key.to_owned(), value.to_string())));
}

/// A duration as the engine's documentation writes it: minutes are `min`.
fn duration(duration: &Option<Duration>) -> Option<String> {
    let text = duration.as_ref()?.as_str();
    let minutes = text.strip_suffix('m').filter(|number| number.ends_with(|last: char| last.is_ascii_digit()));
    Some(minutes.map_or_else(|| text.to_owned(), |number| format!("{number}min")))
}
