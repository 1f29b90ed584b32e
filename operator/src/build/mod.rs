//! The objects that make up a deployed job. Pure: the same spec gives the same objects.

mod budgets;
mod hash;
mod labels;
mod network;
mod overrides;
mod pod;
mod services;
mod sets;
mod template;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::Service,
    networking::v1::{NetworkPolicy, NetworkPolicyPeer},
    policy::v1::PodDisruptionBudget,
};
use millrace_api::{StreamJob, StreamJobSpec};

pub use hash::deployment_hash;
pub(crate) use labels::labels;
pub use labels::{Component, DEPLOYMENT_ANNOTATION, JOB_LABEL, MANAGER, labels_of_job, name_of, selector};
pub(crate) use overrides::explicit;
pub use overrides::overrides;
pub(crate) use pod::{CA_PATH, CA_VOLUME, DATA_PATH, DATA_VOLUME, TMP_PATH, TMP_VOLUME, ports};
pub use pod::{CONTAINER, DATA_PORT, METRICS_PORT, REST_PORT, RPC_PORT};
pub(crate) use template::{ParsedTemplate, parse};

/// What the operator's own settings give.
#[derive(Clone, Debug, Default)]
pub struct BuildContext {
    /// The namespace that the operator runs in.
    pub operator_namespace: String,
    /// The labels of the operator's pods.
    pub operator_labels: BTreeMap<String, String>,
    /// Who else may read the metrics of jobs.
    pub metrics_from: Vec<NetworkPolicyPeer>,
}

/// Which deployment of a job is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRef {
    /// The job's id, 32 hexadecimal digits.
    pub job_id: String,
    /// The deployment's number, `status.deployment.number`.
    pub number: i64,
    /// How many taskmanagers there are to be; with an explicit parallelism that changes without a deployment.
    pub replicas: u32,
}

/// All objects of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// Who may reach the job's pods.
    pub network_policy: NetworkPolicy,
    /// The jobmanager's address.
    pub job_manager_service: Service,
    /// The taskmanagers' names.
    pub task_manager_service: Service,
    /// The jobmanager's disruption budget.
    pub job_manager_budget: PodDisruptionBudget,
    /// The taskmanagers' disruption budget.
    pub task_manager_budget: PodDisruptionBudget,
    /// The jobmanager.
    pub job_manager: StatefulSet,
    /// The taskmanagers.
    pub task_manager: StatefulSet,
}

/// The objects of a job: `job` gives the name, namespace and owner, `spec` what is deployed (of which `validate` found
/// no fault).
pub fn children(context: &BuildContext, job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef) -> Children {
    Children {
        network_policy: network::policy(context, job),
        job_manager_service: services::service(job, Component::JobManager),
        task_manager_service: services::service(job, Component::TaskManager),
        job_manager_budget: budgets::budget(job, Component::JobManager),
        task_manager_budget: budgets::budget(job, Component::TaskManager),
        job_manager: sets::set(job, spec, deployment, Component::JobManager),
        task_manager: sets::set(job, spec, deployment, Component::TaskManager),
    }
}
