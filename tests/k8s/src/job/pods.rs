//! What pods say of themselves.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// A pod's name.
pub fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Its identity: another pod of the same name has another one.
pub fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// Its address.
pub fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default()
}

fn has(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == condition && one.status == "True"))
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    has(pod, "Ready")
}

/// Whether it has a node.
pub fn is_scheduled(pod: &Pod) -> bool {
    has(pod, "PodScheduled")
}

/// Whether its container runs.
pub fn is_running(pod: &Pod) -> bool {
    container(pod).and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
}

/// Whether it is being deleted.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Its only container's status.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// How often its container was started again.
pub fn container_restarts(pod: &Pod) -> i32 {
    container(pod).map_or(0, |status| status.restart_count)
}

/// The image that its container runs.
pub fn image(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.containers.first()?.image.clone()).unwrap_or_default()
}

/// A line for a failure message.
pub fn describe(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let leaving = if is_leaving(pod) { ", leaving" } else { "" };
    let state = container(pod).map_or_else(String::new, |status| {
        let state = serde_json::to_string(&status.state).unwrap_or_default();
        let last = serde_json::to_string(&status.last_state).unwrap_or_default();
        format!("; restarts {}, state {state}, before {last}", status.restart_count)
    });
    format!("{}: {phase}{leaving}, ready {}{state}\n", name(pod), is_ready(pod))
}
