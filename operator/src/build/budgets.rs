//! How many pods may be taken away at once.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use millrace_api::StreamJob;

use super::labels::{Component, label_selector, labels, metadata, name_of, selector};

/// One pod of a component at a time may be evicted.
pub(super) fn budget(job: &StreamJob, component: Component) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(job, name_of(job, component), labels(job, component)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(selector(job, component))),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
