//! The pods of a job.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        HTTPGetAction, KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
        ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use millrace_api::{CaBundle, CredentialsSecretRef, ImagePullPolicy, Resources, S3Spec, StreamJob, StreamJobSpec};

use super::{
    DeploymentRef,
    labels::{Component, DEPLOYMENT_ANNOTATION, labels},
    overrides::overrides,
    template::merge,
};

/// The name of the container that runs the program.
pub const CONTAINER: &str = "millrace";
/// Where taskmanagers find the jobmanager.
pub const RPC_PORT: i32 = 6123;
/// The jobmanager's REST server.
pub const REST_PORT: i32 = 8081;
/// Where taskmanagers find each other.
pub const DATA_PORT: i32 = 6122;
/// Metrics, and the health of a taskmanager.
pub const METRICS_PORT: i32 = 9249;

/// The volume at [`DATA_PATH`].
pub(crate) const DATA_VOLUME: &str = "data";
/// For local state.
pub(crate) const DATA_PATH: &str = "/var/lib/millrace";
/// The volume at [`TMP_PATH`].
pub(crate) const TMP_VOLUME: &str = "tmp";
/// The root file system is read-only.
pub(crate) const TMP_PATH: &str = "/tmp";
/// The volume at [`CA_PATH`].
pub(crate) const CA_VOLUME: &str = "s3-ca";
/// Holds the certificates of the object store's authorities.
pub(crate) const CA_PATH: &str = "/etc/millrace/s3-ca";
/// The file with these certificates.
pub(crate) const CA_BUNDLE_PATH: &str = "/etc/millrace/s3-ca/ca.crt";

const USER: i64 = 10_001;
/// How long a pod stays bound to a node that does not answer.
const LOST_NODE_SECONDS: i64 = 10;

/// The ports of a component's container.
pub(crate) fn ports(component: Component) -> &'static [(&'static str, i32)] {
    match component {
        Component::JobManager => &[("rpc", RPC_PORT), ("rest", REST_PORT), ("metrics", METRICS_PORT)],
        Component::TaskManager => &[("data", DATA_PORT), ("metrics", METRICS_PORT)],
    }
}

/// The template of a component's pods, with the user's merged into it.
pub(super) fn template(
    job: &StreamJob,
    spec: &StreamJobSpec,
    deployment: &DeploymentRef,
    component: Component,
) -> PodTemplateSpec {
    let of_component = match component {
        Component::JobManager => &spec.job_manager.pod_template,
        Component::TaskManager => &spec.task_manager.pod_template,
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(job, component)),
            annotations: Some([(DEPLOYMENT_ANNOTATION.to_owned(), deployment.number.to_string())].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(job, spec, deployment, component)),
    };
    merge(template, &[spec.pod_template.as_ref(), of_component.as_ref()])
}

fn pod(job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef, component: Component) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        tolerations: Some(["not-ready", "unreachable"].map(lost_node).into()),
        containers: vec![container(job, spec, deployment, component)],
        volumes: Some(volumes(spec, component)),
        ..PodSpec::default()
    }
}

fn container(job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef, component: Component) -> Container {
    let resources = match component {
        Component::JobManager => &spec.job_manager.resources,
        Component::TaskManager => &spec.task_manager.resources,
    };
    let port = |(name, port): &(&str, i32)| ContainerPort {
        name: Some((*name).to_owned()),
        container_port: *port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: spec.image_pull_policy.map(ImagePullPolicy::as_str).map(str::to_owned),
        command: Some(vec![spec.program.clone()]),
        args: (!spec.args.is_empty()).then(|| spec.args.clone()),
        env: Some(environment(job, spec, deployment, component)),
        ports: Some(ports(component).iter().map(port).collect()),
        resources: resources.as_ref().map(requirements),
        readiness_probe: Some(Probe {
            period_seconds: Some(1),
            timeout_seconds: Some(1),
            failure_threshold: Some(3),
            ..health(component)
        }),
        // Only for a process that is stuck for good: what fails otherwise is noticed by heartbeats.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(18),
            ..health(component)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(spec)),
        ..Container::default()
    }
}

fn environment(job: &StreamJob, spec: &StreamJobSpec, deployment: &DeploymentRef, component: Component) -> Vec<EnvVar> {
    let settings: String =
        overrides(job, spec, deployment).iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    let mut variables = vec![
        value("MILLRACE_ROLE", component.as_str()),
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_IP", "status.podIP"),
        // A $ would begin a reference to a variable.
        value("MILLRACE_OVERRIDES", &settings.replace('$', "$$")),
    ];
    if component == Component::TaskManager {
        variables.push(value("MILLRACE_TASKMANAGER_HOST", "$(POD_IP)"));
        variables.push(value("MILLRACE_TASKMANAGER_RESOURCE_ID", "$(POD_NAME)"));
        variables.push(value("MILLRACE_STATE_BACKEND_ROCKSDB_LOCALDIR", DATA_PATH));
    }
    if let Some(S3Spec { credentials_secret_ref: Some(secret), .. }) = &spec.s3 {
        let CredentialsSecretRef { name, access_key, secret_key } = secret;
        variables.push(from_secret("MILLRACE_S3_ACCESS_KEY", name, access_key));
        variables.push(from_secret("MILLRACE_S3_SECRET_KEY", name, secret_key));
    }
    variables
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn from_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let key = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn health(component: Component) -> Probe {
    let port = match component {
        Component::JobManager => "rest",
        Component::TaskManager => "metrics",
    };
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/health".to_owned()),
            port: IntOrString::String(port.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

fn requirements(resources: &Resources) -> ResourceRequirements {
    let some = |quantities: &BTreeMap<_, _>| (!quantities.is_empty()).then(|| quantities.clone());
    ResourceRequirements { requests: some(&resources.requests), limits: some(&resources.limits), claims: None }
}

fn lost_node(condition: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{condition}")),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        value: None,
    }
}

fn volumes(spec: &StreamJobSpec, component: Component) -> Vec<Volume> {
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![empty(TMP_VOLUME)];
    // A claim of the StatefulSet's brings the volume of this name itself.
    let is_claimed = component == Component::TaskManager && spec.task_manager.volume_claim.is_some();
    volumes.extend((!is_claimed).then(|| empty(DATA_VOLUME)));
    volumes.extend(ca_bundle(spec).map(|bundle| Volume {
        name: CA_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: bundle.config_map_name.clone(),
            items: Some(vec![KeyToPath { key: bundle.key.clone(), path: "ca.crt".to_owned(), mode: None }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }));
    volumes
}

fn mounts(spec: &StreamJobSpec) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount(TMP_VOLUME, TMP_PATH, None), mount(DATA_VOLUME, DATA_PATH, None)];
    mounts.extend(ca_bundle(spec).map(|_| mount(CA_VOLUME, CA_PATH, Some(true))));
    mounts
}

fn ca_bundle(spec: &StreamJobSpec) -> Option<&CaBundle> {
    spec.s3.as_ref()?.ca_bundle.as_ref()
}
