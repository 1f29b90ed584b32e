use std::{collections::BTreeMap, fs, path::PathBuf};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::core::ObjectMeta;
use millrace_api::{PodTemplate, StreamJob, StreamJobSpec};
use serde_json::{Value, json};

use super::{BuildContext, Children, DeploymentRef, children, deployment_hash, overrides};

fn of_tree(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn manifest(name: &str) -> StreamJob {
    let text = fs::read_to_string(of_tree(&format!("tests/k8s/manifests/good/{name}.yaml"))).expect("the manifest");
    let mut job: StreamJob = serde_yaml_ng::from_str(&text).expect("a StreamJob");
    job.metadata.namespace = Some("streams".to_owned());
    job.metadata.uid = Some("0b0d1bd4-2f09-4d46-8d55-2f7c9f0a7b11".to_owned());
    job
}

fn spec(fields: Value) -> StreamJobSpec {
    let mut spec = json!({ "image": "i", "program": "/p", "checkpointing": { "storage": "s3://bucket/path" } });
    for (name, value) in fields.as_object().expect("fields") {
        spec[name] = value.clone();
    }
    serde_json::from_value(spec).expect("a spec")
}

fn deployment() -> DeploymentRef {
    DeploymentRef { job_id: "00112233445566778899aabbccddeeff".to_owned(), number: 3, replicas: 2 }
}

fn context() -> BuildContext {
    BuildContext {
        operator_namespace: "millrace".to_owned(),
        operator_labels: BTreeMap::from([("app.kubernetes.io/name".to_owned(), "millrace-operator".to_owned())]),
        metrics_from: serde_json::from_value(json!([{ "namespaceSelector": { "matchLabels": { "team": "o11y" } } }]))
            .expect("peers"),
    }
}

fn built(job: &StreamJob) -> Children {
    children(&context(), job, &job.spec, &deployment())
}

fn documents(children: &Children) -> String {
    let json = |value: Result<Value, _>| value.expect("JSON");
    let objects = [
        json(serde_json::to_value(&children.network_policy)),
        json(serde_json::to_value(&children.job_manager_service)),
        json(serde_json::to_value(&children.task_manager_service)),
        json(serde_json::to_value(&children.job_manager_budget)),
        json(serde_json::to_value(&children.task_manager_budget)),
        json(serde_json::to_value(&children.job_manager)),
        json(serde_json::to_value(&children.task_manager)),
    ];
    objects.map(|object| serde_yaml_ng::to_string(&object).expect("YAML")).join("---\n")
}

#[test]
fn the_objects_of_two_manifests() {
    for name in ["minimal", "full"] {
        let path = of_tree(&format!("operator/src/build/golden/{name}.yaml"));
        let text = documents(&built(&manifest(name)));
        if std::env::var_os("MILLRACE_TEST_WRITE_GOLDEN").is_some() {
            fs::write(&path, &text).expect("the file can be written");
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == golden,
            "{} differs: set MILLRACE_TEST_WRITE_GOLDEN=1 and look at the difference",
            path.display()
        );
    }
}

/// The settings that the field makes, without those that are always there.
fn settings(fields: Value) -> Vec<(String, String)> {
    let metadata = ObjectMeta { name: Some("job".to_owned()), ..ObjectMeta::default() };
    let of = |spec: StreamJobSpec| {
        overrides(&StreamJob { metadata: metadata.clone(), spec: spec.clone(), status: None }, &spec, &deployment())
    };
    let always = of(spec(json!({})));
    of(spec(fields)).into_iter().filter(|setting| !always.contains(setting)).collect()
}

#[test]
fn each_field_makes_its_setting() {
    let checkpointing = |mut fields: Value| {
        fields["storage"] = json!("s3://bucket/path");
        json!({ "checkpointing": fields })
    };
    let strategy =
        |type_: &str, field: &str, settings: Value| json!({ "restartStrategy": { "type": type_, field: settings } });
    let cases = [
        (json!({ "parallelism": 7 }), vec![("parallelism.default", "7")]),
        (json!({ "maxParallelism": 9 }), vec![("pipeline.max-parallelism", "9")]),
        (
            json!({ "taskManager": { "replicas": 3, "slots": 4 } }),
            vec![("parallelism.default", "12"), ("taskmanager.numberOfTaskSlots", "4")],
        ),
        (checkpointing(json!({ "interval": "5m" })), vec![("execution.checkpointing.interval", "5min")]),
        (checkpointing(json!({ "interval": "50ms" })), vec![("execution.checkpointing.interval", "50ms")]),
        (checkpointing(json!({ "timeout": "2min" })), vec![("execution.checkpointing.timeout", "2min")]),
        (checkpointing(json!({ "minPause": "1s" })), vec![("execution.checkpointing.min-pause", "1s")]),
        (checkpointing(json!({ "mode": "AT_LEAST_ONCE" })), vec![("execution.checkpointing.mode", "AT_LEAST_ONCE")]),
        (checkpointing(json!({ "retained": 5 })), vec![("execution.checkpointing.num-retained", "5")]),
        (
            checkpointing(json!({ "retainOnCancellation": true })),
            vec![("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION")],
        ),
        (
            checkpointing(json!({ "retainOnCancellation": false })),
            vec![("execution.checkpointing.externalized-checkpoint-retention", "DELETE_ON_CANCELLATION")],
        ),
        (json!({ "checkpointing": { "storage": "s3://b/p" } }), vec![("state.checkpoints.dir", "s3://b/p")]),
        (json!({ "checkpointing": { "ephemeral": true } }), vec![]),
        (
            json!({ "stateBackend": { "type": "memory", "options": { "state.backend.memory.max-state-size": "9mb" } } }),
            vec![("state.backend", "memory"), ("state.backend.memory.max-state-size", "9mb")],
        ),
        (json!({ "s3": { "endpoint": "http://minio:9000" } }), vec![("s3.endpoint", "http://minio:9000")]),
        (json!({ "s3": { "region": "eu-central-1" } }), vec![("s3.region", "eu-central-1")]),
        (json!({ "s3": { "pathStyle": false } }), vec![("s3.path.style.access", "false")]),
        (
            json!({ "s3": { "caBundle": { "configMapName": "ca" } } }),
            vec![("s3.ssl.ca-bundle", "/etc/millrace/s3-ca/ca.crt")],
        ),
        // Credentials are variables of the container.
        (json!({ "s3": { "credentialsSecretRef": { "name": "minio" } } }), vec![]),
        (json!({ "restartStrategy": { "type": "none" } }), vec![("restart-strategy.type", "none")]),
        (
            strategy("fixed-delay", "fixedDelay", json!({ "attempts": 0, "delay": "1m" })),
            vec![
                ("restart-strategy.type", "fixed-delay"),
                ("restart-strategy.fixed-delay.attempts", "0"),
                ("restart-strategy.fixed-delay.delay", "1min"),
            ],
        ),
        (
            strategy(
                "exponential-delay",
                "exponentialDelay",
                json!({
                    "initialBackoff": "1s", "maxBackoff": "2m", "backoffMultiplier": "2.5",
                    "resetBackoffThreshold": "1h",
                }),
            ),
            vec![
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.initial-backoff", "1s"),
                ("restart-strategy.exponential-delay.max-backoff", "2min"),
                ("restart-strategy.exponential-delay.backoff-multiplier", "2.5"),
                ("restart-strategy.exponential-delay.reset-backoff-threshold", "1h"),
            ],
        ),
        (
            strategy(
                "failure-rate",
                "failureRate",
                json!({ "maxFailuresPerInterval": 3, "failureRateInterval": "1d", "delay": "0s" }),
            ),
            vec![
                ("restart-strategy.type", "failure-rate"),
                ("restart-strategy.failure-rate.max-failures-per-interval", "3"),
                ("restart-strategy.failure-rate.failure-rate-interval", "1d"),
                ("restart-strategy.failure-rate.delay", "0s"),
            ],
        ),
        (json!({ "initialCheckpoint": "s3://b/p/chk-7" }), vec![("execution.state-recovery.path", "s3://b/p/chk-7")]),
        (json!({ "allowNonRestoredState": true }), vec![("execution.state-recovery.ignore-unclaimed-state", "true")]),
        (json!({ "configuration": { "heartbeat.timeout": "5m" } }), vec![("heartbeat.timeout", "5m")]),
        (json!({ "args": ["x"], "state": "suspended", "restartNonce": 1, "upgradeMode": "stateless" }), vec![]),
    ];
    let documented = fs::read_to_string(of_tree("docs/configuration.md")).expect("the documentation");
    for (fields, expected) in cases {
        let made = settings(fields.clone());
        let made: Vec<_> = made.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(made, expected, "{fields}");
        for (key, _) in made {
            assert!(documented.contains(&format!("`{key}`<br>")), "{key} is not in docs/configuration.md");
        }
    }
}

#[test]
fn settings_of_the_operator_are_documented_and_set_once() {
    let job = manifest("full");
    let documented = fs::read_to_string(of_tree("docs/configuration.md")).expect("the documentation");
    let mut keys: Vec<_> = overrides(&job, &job.spec, &deployment()).into_iter().map(|(key, _)| key).collect();
    for key in &keys {
        assert!(documented.contains(&format!("`{key}`<br>")), "{key} is not in docs/configuration.md");
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a setting is made twice: {keys:?}");
}

#[test]
fn a_changed_hash_means_a_restart() {
    let hash = |fields| deployment_hash(&spec(fields));
    let none = hash(json!({}));
    let storage = "s3://bucket/path";
    for unchanged in [
        json!({ "state": "suspended" }),
        json!({ "upgradeMode": "stateless" }),
        json!({ "checkpointing": { "storage": storage, "retained": 7, "retainOnCancellation": true } }),
        json!({ "taskManager": { "replicas": 1 } }),
    ] {
        assert_eq!(hash(unchanged.clone()), none, "{unchanged}");
    }
    for changed in [
        json!({ "image": "another" }),
        json!({ "args": ["x"] }),
        json!({ "restartNonce": 1 }),
        json!({ "parallelism": 1 }),
        json!({ "checkpointing": { "storage": storage, "interval": "1s" } }),
        json!({ "taskManager": { "replicas": 2 } }),
        json!({ "taskManager": { "slots": 2 } }),
        json!({ "podTemplate": { "metadata": { "labels": { "team": "x" } } } }),
        json!({ "configuration": { "log.level": "debug" } }),
        json!({ "initialCheckpoint": "s3://b/p/chk-7" }),
    ] {
        assert_ne!(hash(changed.clone()), none, "{changed}");
    }
    // With its own parallelism a job stays as it is when taskmanagers come and go.
    let fixed = |replicas: u32| hash(json!({ "parallelism": 1, "taskManager": { "replicas": replicas } }));
    assert_eq!(fixed(1), fixed(3));
}

/// The template of the taskmanagers of a job whose two templates these are.
fn merged(common: Value, own: Value) -> PodTemplateSpec {
    let mut job = manifest("minimal");
    job.spec.pod_template = Some(PodTemplate(common));
    job.spec.task_manager.pod_template = Some(PodTemplate(own));
    built(&job).task_manager.spec.expect("a spec").template
}

#[test]
fn templates_merge_by_their_keys() {
    let common = json!({
        "metadata": { "labels": { "team": "a", "tier": "b" } },
        "spec": {
            "tolerations": [{ "key": "common", "operator": "Exists" }],
            "volumes": [{ "name": "tmp", "emptyDir": { "sizeLimit": "1Gi" } }, { "name": "own", "emptyDir": {} }],
            "containers": [{
                "name": "millrace",
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "volumeMounts": [{ "name": "own", "mountPath": "/own" }],
                "livenessProbe": { "periodSeconds": 60 },
                "securityContext": { "readOnlyRootFilesystem": false },
            }],
            "initContainers": [{ "name": "fetch", "image": "fetch" }],
        },
    });
    let own = json!({
        "metadata": { "labels": { "tier": "c" } },
        "spec": {
            "tolerations": [{ "key": "own", "operator": "Exists" }],
            "containers": [
                { "name": "sidecar", "image": "sidecar" },
                { "name": "millrace", "env": [{ "name": "B", "value": "3" }] },
            ],
        },
    });
    let template = merged(common, own);
    let labels = template.metadata.expect("metadata").labels.expect("labels");
    assert_eq!((labels["team"].as_str(), labels["tier"].as_str()), ("a", "c"));
    assert_eq!(labels["app.kubernetes.io/component"], "taskmanager");

    let pod = template.spec.expect("a pod");
    let keys: Vec<_> = pod.tolerations.iter().flatten().filter_map(|of| of.key.as_deref()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "common", "own"]);
    let volumes: Vec<_> = pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    assert_eq!(volumes, ["tmp", "data", "own"]);
    let limit = pod.volumes.as_ref().and_then(|volumes| volumes[0].empty_dir.as_ref()?.size_limit.as_ref());
    assert_eq!(limit.map(|limit| limit.0.as_str()), Some("1Gi"));
    assert_eq!(pod.init_containers.expect("the user's").len(), 1);

    let names: Vec<_> = pod.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["millrace", "sidecar"]);
    let main = &pod.containers[0];
    let value = |name: &str| main.env.iter().flatten().find(|variable| variable.name == name)?.value.as_deref();
    assert_eq!((value("A"), value("B"), value("MILLRACE_ROLE")), (Some("1"), Some("3"), Some("taskmanager")));
    let paths: Vec<_> = main.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(paths, ["/tmp", "/var/lib/millrace", "/own"]);
    let probe = main.liveness_probe.as_ref().expect("a probe");
    assert!(probe.period_seconds == Some(60) && probe.http_get.is_some());
    let context = main.security_context.as_ref().expect("a context");
    assert_eq!((context.read_only_root_filesystem, context.allow_privilege_escalation), (Some(false), Some(false)));
}

#[test]
fn settings_survive_the_expansion_of_variables() {
    let mut job = manifest("minimal");
    job.spec.configuration.insert("log.level".to_owned(), "$(POD_IP) $x".to_owned());
    let pod = built(&job).task_manager.spec.expect("a spec").template.spec.expect("a pod");
    let variables = pod.containers[0].env.clone().expect("variables");
    let overrides = variables.iter().find(|variable| variable.name == "MILLRACE_OVERRIDES").expect("settings");
    assert!(overrides.value.as_deref().expect("a value").ends_with("\nlog.level=$$(POD_IP) $$x\n"), "{overrides:?}");
}

/// What `restricted` asks of each container, of those things that a pod can get wrong by leaving them out.
fn breaches(template: &PodTemplateSpec) -> Vec<String> {
    let pod = template.spec.as_ref().expect("a pod");
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let is_confined = of_pod.seccomp_profile.is_some_and(|profile| profile.type_ == "RuntimeDefault");
    let is_ours = of_pod.run_as_non_root == Some(true) && of_pod.run_as_user != Some(0);
    let kinds = ["emptyDir", "configMap", "persistentVolumeClaim", "secret", "projected", "csi", "downwardAPI", "name"];
    let has_allowed_volumes = pod.volumes.iter().flatten().all(|volume| {
        let volume = serde_json::to_value(volume).expect("JSON");
        volume.as_object().expect("an object").keys().all(|kind| kinds.contains(&kind.as_str()))
    });
    let is_apart = pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none();
    let mut breaches: Vec<String> = [
        (is_confined, "seccompProfile"),
        (is_ours, "runAsNonRoot"),
        (has_allowed_volumes, "volumes"),
        (is_apart, "host namespaces"),
    ]
    .iter()
    .filter(|(is_kept, _)| !is_kept)
    .map(|(_, what)| (*what).to_owned())
    .collect();
    for container in &pod.containers {
        let context = container.security_context.clone().unwrap_or_default();
        let capabilities = context.capabilities.unwrap_or_default();
        let is_kept = context.allow_privilege_escalation == Some(false)
            && context.privileged != Some(true)
            && capabilities.drop == Some(vec!["ALL".to_owned()])
            && capabilities.add.is_none()
            && context.run_as_user != Some(0);
        breaches.extend((!is_kept).then(|| container.name.clone()));
    }
    breaches
}

#[test]
fn pods_meet_the_restricted_standard() {
    for name in ["minimal", "full"] {
        let Children { job_manager, task_manager, .. } = built(&manifest(name));
        for set in [job_manager, task_manager] {
            assert_eq!(breaches(&set.spec.expect("a spec").template), [""; 0], "{name}");
        }
    }
    let privileged = json!({ "spec": { "containers": [{ "name": "x", "securityContext": { "privileged": true } }] } });
    assert_eq!(breaches(&merged(privileged, json!({}))), ["x"], "a breach is seen");
}
