//! Settings of the engine that `spec.configuration` cannot make: those of the operator, and those of a field whose rules
//! they would get around.

use kube::core::Rule;

/// Settings that the operator makes, with the names that they have besides.
const OF_OPERATOR: &[&str] = &[
    "job.id",
    "job.deployment",
    "jobmanager.rpc.address",
    "jobmanager.rpc.port",
    "jobmanager.bind-host",
    "jobmanager.rpc.bind-host",
    "rest.address",
    "rest.port",
    "rest.bind-address",
    "rest.bind-host",
    "taskmanager.host",
    "taskmanager.bind-host",
    "taskmanager.data.port",
    "taskmanager.resource-id",
    "metrics.port",
    "cluster.directory",
    "security.token",
    "execution.shutdown-on-application-finish",
];

/// Settings with a field of their own that must be used.
const OF_FIELDS: &[(&str, &[&str])] = &[
    ("spec.parallelism", &["parallelism.default"]),
    ("spec.maxParallelism", &["pipeline.max-parallelism"]),
    ("spec.taskManager.slots", &["taskmanager.numberOfTaskSlots"]),
    (
        "spec.checkpointing.storage",
        &["state.checkpoints.dir", "execution.checkpointing.dir", "state.backend.fs.checkpointdir"],
    ),
    ("spec.initialCheckpoint", &["execution.state-recovery.path", "execution.savepoint.path", "from-checkpoint"]),
    ("spec.s3.credentialsSecretRef", &["s3.access-key", "s3.access.key", "s3.secret-key", "s3.secret.key"]),
];

/// The rules of `spec.configuration`.
pub(crate) fn rules() -> Vec<Rule> {
    let of_operator = Rule::new(format!("!self.exists(key, key in {OF_OPERATOR:?})"))
        .message(format!("the operator makes the settings {} itself: remove them", OF_OPERATOR.join(", ")).as_str());
    let of_field = |(field, keys): &(&str, &[&str])| {
        let message = format!("set {field} instead of {}", keys.join(" or "));
        Rule::new(format!("!self.exists(key, key in {keys:?})")).message(message.as_str())
    };
    std::iter::once(of_operator).chain(OF_FIELDS.iter().map(of_field)).collect()
}
