//! A pod as plain data.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::Timestamp,
};

use crate::build::{CONTAINER, Component, DEPLOYMENT_ANNOTATION, JOB_LABEL};

/// The reason of a container that ended and was not delayed yet.
const EXIT: &str = "ContainerFailed";
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// What runs in it.
    pub component: Component,
    /// Which deployment it belongs to.
    pub deployment: i64,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// Whether its main container runs.
    pub running: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// What keeps it from running.
    pub trouble: Option<Trouble>,
    /// Until when it has to end, if it is being deleted.
    pub deleted_until: Option<Timestamp>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// Kubernetes' word for it, such as `ImagePullBackOff`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

impl Trouble {
    /// Whether the program was started, and ended.
    pub fn is_exit(&self) -> bool {
        matches!(self.reason.as_str(), "CrashLoopBackOff" | EXIT)
    }
}

impl PodFacts {
    /// The facts of a pod that one of the job's StatefulSets made. Labels alone prove nothing: others can set them.
    pub fn of(pod: &Pod, job: &str) -> Option<Self> {
        let metadata = &pod.metadata;
        let component = match metadata.labels.as_ref()?.get(COMPONENT_LABEL)?.as_str() {
            "jobmanager" => Component::JobManager,
            "taskmanager" => Component::TaskManager,
            _ => return None,
        };
        let set = format!("{job}-{}", component.as_str());
        let mut owners = metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.kind == "StatefulSet" && owner.name == set)?;
        let number = metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEPLOYMENT_ANNOTATION));
        let status = pod.status.as_ref();
        let main = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
        let running = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        let ready = condition(pod, "Ready").is_some_and(|(status, _)| status == "True");
        Some(Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            component,
            deployment: number.and_then(|number| number.parse().ok()).unwrap_or_default(),
            address: status.and_then(|status| status.pod_ip.clone()).filter(|address| !address.is_empty()),
            running: main.clone().any(|status| status.name == CONTAINER && running(status)),
            ready: ready && metadata.deletion_timestamp.is_none(),
            trouble: if ready { None } else { trouble(pod) },
            deleted_until: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        })
    }

    /// The StreamJob that a pod says it belongs to.
    pub fn job_of(pod: &Pod) -> Option<&String> {
        pod.metadata.labels.as_ref()?.get(JOB_LABEL)
    }
}

/// The first container that can't run, and else why no node takes the pod.
fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.filter_map(container_trouble).next().or_else(|| {
        let (_, unscheduled) = condition(pod, "PodScheduled").filter(|(status, _)| *status == "False")?;
        Some(Trouble { reason: "Unschedulable".to_string(), message: unscheduled.to_string() })
    })
}

fn container_trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    // The exit of the attempt before tells more than that the next one is delayed.
    let ended = state.and_then(|state| state.terminated.as_ref());
    let ended = ended.or_else(|| status.last_state.as_ref().and_then(|state| state.terminated.as_ref()));
    let exit = ended.filter(|ended| ended.exit_code != 0 && !status.ready).map(|ended| {
        let said = last_words(ended.message.as_deref().unwrap_or_default());
        let how = ended.reason.as_deref().filter(|reason| *reason != "Error").map(|reason| format!(" ({reason})"));
        let how = how.unwrap_or_default();
        let colon = if said.is_empty() { "" } else { ": " };
        format!("container {} ended with exit code {}{how}{colon}{said}", status.name, ended.exit_code)
    });
    match (reason, exit) {
        ("" | "ContainerCreating" | "PodInitializing", None) => None,
        ("" | "ContainerCreating" | "PodInitializing", Some(message)) => {
            Some(Trouble { reason: EXIT.to_string(), message })
        }
        ("CrashLoopBackOff", Some(message)) => Some(Trouble { reason: reason.to_string(), message }),
        (reason, _) => {
            let text = waiting.and_then(|waiting| waiting.message.clone());
            let message = format!("container {}: {}", status.name, text.as_deref().unwrap_or(reason));
            Some(Trouble { reason: reason.to_string(), message })
        }
    }
}

/// What a process said at its end: the error, without the log before it.
fn last_words(said: &str) -> &str {
    let said = said.trim();
    let error = said.rfind("\nerror: ").map(|line| &said[line + 1..]);
    let error = error.unwrap_or(said);
    error.strip_prefix("error: ").unwrap_or(error)
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.as_str(), found.message.as_deref().unwrap_or_default()))
}

/// Leaves of a pod what [`PodFacts`] needs, so that the cache of many stays small.
pub(super) fn trim(pod: &mut Pod) {
    let metadata = &mut pod.metadata;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| key == DEPLOYMENT_ANNOTATION);
    }
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| key == JOB_LABEL || key == COMPONENT_LABEL);
    }
    pod.spec = None;
    let Some(status) = &mut pod.status else { return };
    status.conditions.iter_mut().flatten().for_each(|condition| {
        if condition.status == "True" {
            condition.message = None;
        }
    });
    let containers = status.init_container_statuses.iter_mut().chain(&mut status.container_statuses).flatten();
    for container in containers {
        (container.image, container.image_id, container.container_id) = (String::new(), String::new(), None);
        (container.resources, container.allocated_resources, container.volume_mounts) = (None, None, None);
    }
    (status.host_ips, status.pod_ips, status.resource_claim_statuses) = (None, None, None);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "orders-jobmanager-0",
                "uid": "u",
                "labels": {"millrace.dev/job": "orders", "app.kubernetes.io/component": "jobmanager", "x": "y"},
                "annotations": {"millrace.dev/deployment": "3", "other": "long"},
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders-jobmanager", "uid": "s"}
                ],
                "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {"containers": [{"name": "millrace"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn container(state: serde_json::Value, last: serde_json::Value) -> serde_json::Value {
        json!({"podIP": "10.0.0.1", "containerStatuses": [{
            "name": "millrace", "image": "i", "imageID": "i", "ready": false, "restartCount": 2, "state": state,
            "lastState": last,
        }]})
    }

    fn trouble_of(status: serde_json::Value) -> (String, String) {
        let trouble = PodFacts::of(&pod(status), "orders").unwrap().trouble.unwrap();
        (trouble.reason, trouble.message)
    }

    #[test]
    fn a_running_pod_stays_what_it_is_when_it_is_trimmed() {
        let mut pod = pod(json!({
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "millrace", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "state": {"running": {}},
            }],
        }));
        let facts = PodFacts::of(&pod, "orders").unwrap();
        assert_eq!((facts.deployment, facts.address.as_deref()), (3, Some("10.0.0.1")));
        assert!(facts.running && facts.ready && facts.trouble.is_none());
        trim(&mut pod);
        assert_eq!(PodFacts::of(&pod, "orders").unwrap(), facts);
        assert!(pod.spec.is_none() && pod.metadata.managed_fields.is_none());
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_said() {
        let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image: x"}});
        let expected = ("ImagePullBackOff".to_string(), "container millrace: no such image: x".to_string());
        assert_eq!(trouble_of(container(pull, json!({}))), expected);

        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "bucket b does not exist\n"}});
        let said = "container millrace ended with exit code 1: bucket b does not exist".to_string();
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        assert_eq!(trouble_of(container(waiting, ended.clone())), ("CrashLoopBackOff".to_string(), said.clone()));
        assert_eq!(trouble_of(container(ended, json!({}))), ("ContainerFailed".to_string(), said));

        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let said = "container millrace ended with exit code 137 (OOMKilled)".to_string();
        assert_eq!(trouble_of(container(killed, json!({}))), ("ContainerFailed".to_string(), said));

        let waits = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: insufficient memory"}
        ]});
        let said = "0/1 nodes are available: insufficient memory".to_string();
        assert_eq!(trouble_of(waits), ("Unschedulable".to_string(), said));
    }

    #[test]
    fn of_a_log_the_error_at_its_end_is_shown() {
        assert_eq!(
            last_words("INFO starts\nerror: first\nINFO\nerror: bucket b\ndoes not exist\n"),
            "bucket b\ndoes not exist"
        );
        assert_eq!(last_words(" killed\n"), "killed");
    }

    #[test]
    fn a_container_that_is_being_created_is_no_trouble() {
        let status = container(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}));
        assert_eq!(PodFacts::of(&pod(status), "orders").unwrap().trouble, None);
    }

    #[test]
    fn a_pod_that_only_wears_the_labels_is_not_the_jobs() {
        let mut stranger = pod(json!({}));
        stranger.metadata.owner_references = None;
        assert_eq!(PodFacts::of(&stranger, "orders"), None);
        assert_eq!(PodFacts::of(&pod(json!({})), "other"), None);
    }
}
