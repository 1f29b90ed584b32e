//! Pod templates: what is none, and what would change what the operator relies on.

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Probe, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use millrace_api::{PodTemplate, StreamJob};

use crate::build::{
    CA_PATH, CA_VOLUME, CONTAINER, Component, DATA_PATH, DATA_VOLUME, ParsedTemplate, TMP_PATH, TMP_VOLUME, labels,
    parse, ports,
};

/// Variables of the container that the operator sets, beside those of the engine.
const VARIABLES: [&str; 2] = ["POD_NAME", "POD_IP"];
/// Names of the engine's variables begin so.
const ENGINE_VARIABLES: &str = "MILLRACE_";
/// An engine's variable that is the user's.
const CONFIGURATION_FILE: &str = "MILLRACE_CONF";
/// Labels and annotations that begin so are the operator's.
const OPERATOR_PREFIX: &str = "millrace.dev/";

/// The problems of a job's three templates.
pub(super) fn problems(job: &StreamJob) -> Vec<String> {
    let spec = &job.spec;
    let is_claimed = spec.task_manager.volume_claim.is_some();
    [
        ("spec.podTemplate", &spec.pod_template, is_claimed),
        ("spec.jobManager.podTemplate", &spec.job_manager.pod_template, false),
        ("spec.taskManager.podTemplate", &spec.task_manager.pod_template, is_claimed),
    ]
    .into_iter()
    .filter_map(|(field, template, is_claimed)| Some(of_template(job, field, template.as_ref()?, is_claimed)))
    .flatten()
    .collect()
}

fn of_template(job: &StreamJob, field: &str, template: &PodTemplate, is_claimed: bool) -> Vec<String> {
    let ParsedTemplate { template, unknown } = match parse(template) {
        Ok(parsed) => parsed,
        Err(why) => return vec![format!("{field}.{why}")],
    };
    let mut problems: Vec<String> = unknown
        .iter()
        .map(|path| format!("{path}: pod templates have no such field: correct its name or remove it"))
        .collect();
    problems.extend(template.metadata.iter().flat_map(|metadata| of_metadata(job, metadata)));
    if let Some(pod) = &template.spec {
        problems.extend(of_pod(pod));
        problems.extend(of_containers(pod));
        problems.extend(pod.volumes.iter().flatten().filter_map(|volume| of_volume(volume, is_claimed)));
    }
    problems.into_iter().map(|problem| format!("{field}.{problem}")).collect()
}

fn of_metadata(job: &StreamJob, metadata: &ObjectMeta) -> Vec<String> {
    let mut problems = Vec::new();
    let rest = ObjectMeta { labels: None, annotations: None, ..metadata.clone() };
    if rest != ObjectMeta::default() {
        problems.push("metadata takes labels and annotations only: remove the rest".to_owned());
    }
    let owned = labels(job, Component::JobManager);
    for (kind, names) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        let names = names.iter().flat_map(|names| names.keys());
        let taken = names.filter(|name| name.starts_with(OPERATOR_PREFIX) || owned.contains_key(*name));
        problems.extend(taken.map(|name| format!("metadata.{kind}: the operator sets {name}: remove it")));
    }
    problems
}

fn of_pod(pod: &PodSpec) -> Vec<String> {
    let is_restarted = pod.restart_policy.as_deref().is_none_or(|policy| policy == "Always");
    let checks = [
        (!is_restarted, "restartPolicy", "a job's pods are always restarted"),
        (pod.host_network == Some(true), "hostNetwork", "pods on one node would take the same ports"),
        (pod.hostname.is_some(), "hostname", "the StatefulSet names its pods"),
        (pod.subdomain.is_some(), "subdomain", "the StatefulSet names its pods"),
        (pod.active_deadline_seconds.is_some(), "activeDeadlineSeconds", "a job's pods run without end"),
        (pod.ephemeral_containers.is_some(), "ephemeralContainers", "templates have none"),
    ];
    let wrong = checks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    wrong.map(|(_, name, why)| format!("spec.{name}: {why}: remove it")).collect()
}

fn of_containers(pod: &PodSpec) -> Vec<String> {
    let init = pod.init_containers.as_deref().unwrap_or_default();
    let numbered = |list: &'static str, containers: &[Container]| -> Vec<(String, Container)> {
        let path = |index| format!("spec.{list}[{index}]");
        containers.iter().enumerate().map(|(index, container)| (path(index), container.clone())).collect()
    };
    let mut problems = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (path, container) in [numbered("containers", &pod.containers), numbered("initContainers", init)].concat() {
        let is_main = container.name == CONTAINER && path.starts_with("spec.containers");
        if container.name.is_empty() {
            problems.push(format!("{path}: the container has no name: the main one is called {CONTAINER}"));
        } else if seen.contains(&container.name) || (container.name == CONTAINER && !is_main) {
            problems.push(format!("{path}: another container is called {} as well: rename it", container.name));
        } else if is_main {
            problems.extend(of_main(&container).into_iter().map(|problem| format!("{path}.{problem}")));
        } else if container.image.as_deref().is_none_or(str::is_empty) {
            problems.push(format!("{path}: container {} has no image: give it one", container.name));
        }
        seen.push(container.name);
    }
    problems
}

/// What the operator sets in the container that runs the program.
fn of_main(container: &Container) -> Vec<String> {
    let resources = container.resources.as_ref();
    let has_resources = resources.is_some_and(|of| of.requests.is_some() || of.limits.is_some());
    let has_handler = |probe: &Option<Probe>| {
        probe.as_ref().is_some_and(|probe| {
            probe.exec.is_some() || probe.grpc.is_some() || probe.http_get.is_some() || probe.tcp_socket.is_some()
        })
    };
    let fields = [
        (container.image.is_some(), "image", "set spec.image instead"),
        (container.image_pull_policy.is_some(), "imagePullPolicy", "set spec.imagePullPolicy instead"),
        (container.command.is_some(), "command", "set spec.program instead"),
        (container.args.is_some(), "args", "set spec.args instead"),
        (has_resources, "resources", "set spec.jobManager.resources and spec.taskManager.resources instead"),
        (has_handler(&container.readiness_probe), "readinessProbe", "what is asked is fixed, set its times only"),
        (has_handler(&container.liveness_probe), "livenessProbe", "what is asked is fixed, set its times only"),
    ];
    let mut problems: Vec<String> =
        fields.into_iter().filter(|(is_set, ..)| *is_set).map(|(_, name, what)| format!("{name}: {what}")).collect();
    for variable in container.env.iter().flatten().map(|variable| variable.name.as_str()) {
        if VARIABLES.contains(&variable) {
            problems.push(format!("env: the operator sets {variable}: choose another name"));
        } else if variable.starts_with(ENGINE_VARIABLES) && variable != CONFIGURATION_FILE {
            problems.push(format!("env: {variable} is a setting of the engine: put it into spec.configuration"));
        }
    }
    let taken = [ports(Component::JobManager), ports(Component::TaskManager)].concat();
    for port in container.ports.iter().flatten() {
        if let Some((name, number)) =
            taken.iter().find(|(name, number)| *number == port.container_port || Some(*name) == port.name.as_deref())
        {
            problems.push(format!("ports: port {number}, called {name}, is the engine's: choose another"));
        }
    }
    for mount in container.volume_mounts.iter().flatten() {
        let path = mount.mount_path.trim_end_matches('/');
        if [TMP_PATH, DATA_PATH, CA_PATH].contains(&path) {
            problems.push(format!("volumeMounts: the operator mounts {path}: choose another path"));
        }
    }
    problems
}

/// The operator's volumes may be given a size, nothing else.
fn of_volume(volume: &Volume, is_claimed: bool) -> Option<String> {
    let name = volume.name.as_str();
    let is_owned = [TMP_VOLUME, DATA_VOLUME, CA_VOLUME].contains(&name);
    let is_sized = volume.empty_dir.is_some()
        && *volume == Volume { name: name.to_owned(), empty_dir: volume.empty_dir.clone(), ..Volume::default() };
    let may_be_sized = name == TMP_VOLUME || (name == DATA_VOLUME && !is_claimed);
    (is_owned && !(is_sized && may_be_sized)).then(|| {
        let hint = if may_be_sized { "give it an emptyDir with a sizeLimit, or " } else { "" };
        format!("spec.volumes: volume {name} is the operator's: {hint}choose another name")
    })
}
