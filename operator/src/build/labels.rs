//! Names, labels and owner of a job's objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use millrace_api::StreamJob;

/// Names the StreamJob that an object belongs to.
pub const JOB_LABEL: &str = "millrace.dev/job";
/// Names the deployment that a StatefulSet or pod belongs to.
pub const DEPLOYMENT_ANNOTATION: &str = "millrace.dev/deployment";
/// The value of `app.kubernetes.io/managed-by`, and the field manager.
pub const MANAGER: &str = "millrace-operator";

/// A kind of pod of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The jobmanager.
    JobManager,
    /// The taskmanagers.
    TaskManager,
}

impl Component {
    /// Its name, as label and as role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobManager => "jobmanager",
            Self::TaskManager => "taskmanager",
        }
    }
}

/// The name of a component's StatefulSet and Service.
pub fn name_of(job: &StreamJob, component: Component) -> String {
    format!("{}-{}", job.name_any(), component.as_str())
}

/// The labels of all objects of a job.
pub fn labels_of_job(job: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "millrace"),
        ("app.kubernetes.io/instance", job),
        ("app.kubernetes.io/managed-by", MANAGER),
        (JOB_LABEL, job),
    ];
    labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()
}

/// The labels of a component.
pub(crate) fn labels(job: &StreamJob, component: Component) -> BTreeMap<String, String> {
    let mut labels = labels_of_job(&job.name_any());
    labels.insert("app.kubernetes.io/component".to_owned(), component.as_str().to_owned());
    labels
}

/// Selects a component's pods: the labels that never change.
pub fn selector(job: &StreamJob, component: Component) -> BTreeMap<String, String> {
    let component = ("app.kubernetes.io/component".to_owned(), component.as_str().to_owned());
    BTreeMap::from([(JOB_LABEL.to_owned(), job.name_any()), component])
}

pub(super) fn label_selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// The metadata of an object of the job.
pub(super) fn metadata(job: &StreamJob, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: job.namespace(),
        labels: Some(labels),
        owner_references: job.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
