use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use millrace_api::{Phase, StreamJob, UpgradeMode};
use serde_json::{Value, json};

use super::validate;
use crate::fixture::{now, running};

/// A valid job with these fields of the spec beside the required ones.
fn job(fields: Value) -> StreamJob {
    let mut spec = json!({ "image": "i", "program": "/p", "checkpointing": { "storage": "s3://bucket/path" } });
    for (name, value) in fields.as_object().expect("fields") {
        spec[name] = value.clone();
    }
    let metadata = ObjectMeta { name: Some("job".to_owned()), ..ObjectMeta::default() };
    StreamJob { metadata, spec: serde_json::from_value(spec).expect("a spec"), status: None }
}

fn problems(fields: Value) -> Vec<String> {
    validate(&job(fields)).map_or_else(|invalid| invalid.problems().to_vec(), |()| Vec::new())
}

/// The problems of `spec.podTemplate`, without its name.
fn of_template(template: Value) -> Vec<String> {
    let strip = |problem: String| problem.strip_prefix("spec.podTemplate.").expect("names the field").to_owned();
    problems(json!({ "podTemplate": template })).into_iter().map(strip).collect()
}

fn of_main(mut container: Value) -> Vec<String> {
    container["name"] = json!("millrace");
    let strip = |problem: String| problem.strip_prefix("spec.containers[0].").expect("names the container").to_owned();
    of_template(json!({ "spec": { "containers": [container] } })).into_iter().map(strip).collect()
}

#[test]
fn good_jobs_have_no_problems() {
    for manifest in ["minimal", "full"] {
        let path = format!("{}/../tests/k8s/manifests/good/{manifest}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the manifest is there");
        let job: StreamJob = serde_yaml_ng::from_str(&text).expect("a StreamJob");
        assert_eq!(validate(&job), Ok(()), "{manifest}");
    }
}

#[test]
fn invalid_manifests_are_refused_with_the_sentence_that_they_expect() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/k8s/manifests/invalid");
    let paths: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("the manifest is there");
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).expect("an expectation");
        let job: StreamJob = serde_yaml_ng::from_str(&text).expect("a StreamJob");
        let invalid = validate(&job).expect_err("invalid");
        assert!(invalid.problems().iter().any(|problem| problem == expected), "{}: {invalid}", path.display());
    }
}

#[test]
fn all_problems_are_named_at_once() {
    let fields = json!({
        "checkpointing": { "storage": "s3://bucket/path", "interval": "5m" },
        "configuration": { "execution.checkpointing.interval": "1s", "log.level": "debug" },
        "taskManager": { "podTemplate": { "spec": { "hostNetwork": true } } },
    });
    let expected = [
        "spec.configuration: a field of the spec sets execution.checkpointing.interval as well, to 5min: remove one of \
         the two",
        "spec.taskManager.podTemplate.spec.hostNetwork: pods on one node would take the same ports: remove it",
    ];
    assert_eq!(problems(fields.clone()), expected);
    assert_eq!(validate(&job(fields)).expect_err("invalid").to_string(), expected.join("; "));
}

#[test]
fn unknown_and_unreadable_fields_are_named_by_their_paths() {
    let no_such = "pod templates have no such field: correct its name or remove it";
    let template = json!({
        "metdata": {},
        "spec": { "nodeSelektor": {}, "containers": [{ "name": "millrace", "volumeMounts": [{ "path": "/x" }] }] },
    });
    assert_eq!(
        of_template(template),
        [
            format!("metdata: {no_such}"),
            format!("spec.containers[0].volumeMounts[0].path: {no_such}"),
            format!("spec.nodeSelektor: {no_such}"),
        ]
    );
    let template = json!({ "spec": { "containers": [{ "name": "x", "ports": [{ "containerPort": "http" }] }] } });
    assert_eq!(
        of_template(template),
        ["spec.containers[0].ports[0].containerPort: invalid type: string \"http\", expected i32"]
    );
    assert_eq!(of_template(json!({ "spec": { "$patch": "replace" } })), [format!("spec.$patch: {no_such}")]);
}

#[test]
fn what_the_operator_sets_stays() {
    let cases = [
        (json!({ "metadata": { "name": "x" } }), "metadata takes labels and annotations only: remove the rest"),
        (
            json!({ "metadata": { "labels": { "app.kubernetes.io/name": "x" } } }),
            "metadata.labels: the operator sets app.kubernetes.io/name: remove it",
        ),
        (
            json!({ "metadata": { "annotations": { "millrace.dev/deployment": "7" } } }),
            "metadata.annotations: the operator sets millrace.dev/deployment: remove it",
        ),
        (
            json!({ "spec": { "restartPolicy": "Never" } }),
            "spec.restartPolicy: a job's pods are always restarted: remove it",
        ),
        (json!({ "spec": { "hostname": "x" } }), "spec.hostname: the StatefulSet names its pods: remove it"),
        (json!({ "spec": { "subdomain": "x" } }), "spec.subdomain: the StatefulSet names its pods: remove it"),
        (
            json!({ "spec": { "activeDeadlineSeconds": 5 } }),
            "spec.activeDeadlineSeconds: a job's pods run without end: remove it",
        ),
        (
            json!({ "spec": { "containers": [{ "image": "x" }] } }),
            "spec.containers[0]: the container has no name: the main one is called millrace",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "a", "image": "x" }] } }),
            "spec.containers[1]: another container is called a as well: rename it",
        ),
        (
            json!({ "spec": { "initContainers": [{ "name": "millrace", "image": "x" }] } }),
            "spec.initContainers[0]: another container is called millrace as well: rename it",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "sidecar" }] } }),
            "spec.containers[0]: container sidecar has no image: give it one",
        ),
        (
            json!({ "spec": { "volumes": [{ "name": "tmp", "configMap": { "name": "x" } }] } }),
            "spec.volumes: volume tmp is the operator's: give it an emptyDir with a sizeLimit, or choose another name",
        ),
        (
            json!({ "spec": { "volumes": [{ "name": "s3-ca", "emptyDir": {} }] } }),
            "spec.volumes: volume s3-ca is the operator's: choose another name",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(of_template(template), [expected]);
    }
    let claimed = json!({ "taskManager": {
        "volumeClaim": { "size": "1Gi" },
        "podTemplate": { "spec": { "volumes": [{ "name": "data", "emptyDir": { "sizeLimit": "1Gi" } }] } },
    } });
    assert_eq!(
        problems(claimed),
        ["spec.taskManager.podTemplate.spec.volumes: volume data is the operator's: choose another name"]
    );
}

#[test]
fn what_the_operator_sets_in_the_main_container_stays() {
    let cases = [
        (json!({ "image": "x" }), "image: set spec.image instead"),
        (json!({ "imagePullPolicy": "Always" }), "imagePullPolicy: set spec.imagePullPolicy instead"),
        (json!({ "command": ["/x"] }), "command: set spec.program instead"),
        (json!({ "args": ["x"] }), "args: set spec.args instead"),
        (
            json!({ "resources": { "limits": { "cpu": "1" } } }),
            "resources: set spec.jobManager.resources and spec.taskManager.resources instead",
        ),
        (
            json!({ "readinessProbe": { "exec": { "command": ["/x"] } } }),
            "readinessProbe: what is asked is fixed, set its times only",
        ),
        (
            json!({ "livenessProbe": { "tcpSocket": { "port": 8081 } } }),
            "livenessProbe: what is asked is fixed, set its times only",
        ),
        (
            json!({ "env": [{ "name": "MILLRACE_LOG_LEVEL", "value": "debug" }] }),
            "env: MILLRACE_LOG_LEVEL is a setting of the engine: put it into spec.configuration",
        ),
        (
            json!({ "env": [{ "name": "POD_IP", "value": "::1" }] }),
            "env: the operator sets POD_IP: choose another name",
        ),
        (
            json!({ "ports": [{ "containerPort": 8081 }] }),
            "ports: port 8081, called rest, is the engine's: choose another",
        ),
        (
            json!({ "ports": [{ "name": "metrics", "containerPort": 1 }] }),
            "ports: port 9249, called metrics, is the engine's: choose another",
        ),
        (
            json!({ "volumeMounts": [{ "name": "x", "mountPath": "/tmp/" }] }),
            "volumeMounts: the operator mounts /tmp: choose another path",
        ),
    ];
    for (container, expected) in cases {
        assert_eq!(of_main(container), [expected]);
    }
    let allowed = json!({
        "env": [{ "name": "MILLRACE_CONF", "value": "/etc/job.yaml" }, { "name": "RUST_BACKTRACE", "value": "1" }],
        "livenessProbe": { "periodSeconds": 60 },
        "ports": [{ "name": "admin", "containerPort": 9000 }],
        "resources": { "claims": [{ "name": "gpu" }] },
    });
    assert_eq!(of_main(allowed), [""; 0]);
}

#[test]
fn checkpoints_in_files_need_a_shared_volume() {
    let with = |path: &str, mounts: Value| {
        let container = json!({ "name": "millrace", "volumeMounts": mounts });
        problems(json!({
            "checkpointing": { "storage": format!("file://{path}") },
            "podTemplate": { "spec": { "containers": [container] } },
        }))
    };
    let shared = json!([{ "name": "shared", "mountPath": "/shared/" }]);
    assert_eq!(with("/shared/checkpoints", shared.clone()), [""; 0]);
    assert_eq!(with("/shared", shared.clone()), [""; 0]);
    let on_none = |component| {
        format!(
            "spec.checkpointing.storage: file:///sharedness is on no volume of the {component}: mount one that all \
             pods share in the container millrace of spec.podTemplate, or write s3://bucket/path"
        )
    };
    assert_eq!(with("/sharedness", shared), ["jobmanager", "taskmanager"].map(on_none));
    assert_eq!(
        with("/tmp/checkpoints", json!([])),
        [
            "spec.checkpointing.storage: file:///tmp/checkpoints would end with its pod: write s3://bucket/path, or mount \
         a shared volume elsewhere"
        ]
    );
}

#[test]
fn max_parallelism_is_that_of_what_is_deployed_while_state_is_kept() {
    // Set together with `stateless`, which another spec took back before the operator saw it.
    let job = running().wanting(|spec| spec.max_parallelism = Some(64)).job;
    assert_eq!(
        validate(&job).expect_err("invalid").problems(),
        ["spec.maxParallelism: it is 64, and the deployed job's, whose checkpoints are cut by it, is unset: set it \
             back, or set upgradeMode: stateless to start without state"]
    );
    let stateless = running().wanting(|spec| {
        (spec.max_parallelism, spec.upgrade_mode) = (Some(64), UpgradeMode::Stateless);
    });
    assert_eq!(validate(&stateless.job), Ok(()));
    let mut discarded = running().wanting(|spec| spec.max_parallelism = Some(64));
    discarded.deployed_mut().discarded_at = Some(Time(now()));
    assert_eq!(validate(&discarded.job), Ok(()), "its state is gone");
    let finished = running().in_phase(Phase::Finished).wanting(|spec| spec.max_parallelism = Some(64));
    assert_eq!(validate(&finished.job), Ok(()), "another job takes its place");
}
