//! NetworkPolicy, where the cluster enforces it.

use std::time::Duration;

use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use millrace_k8s_tests::{
    Result,
    cluster::{Namespace, OPERATOR_IMAGE},
    ensure,
    job::{Job, Manifest, Role, pods},
    load::Feed,
    suite::{Suite, skipped},
    wait,
};
use serde_json::json;

/// How many seconds a probe asks.
const ASKS: u32 = 5;

pub fn ports(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("policy").await?;
        let place = suite.place(&namespace).await?;
        let feed = Feed::start(&place, 12);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        let policies = namespace.api::<NetworkPolicy>();
        ensure!(!policies.list(&Default::default()).await?.items.is_empty(), "the job has no NetworkPolicy");

        // The operator lets everybody reach it: a probe from anywhere does, but for one that may send nothing.
        let operator = suite.release.pods(namespace.client()).await?.remove(0);
        let operator = format!("http://{}:8080/metrics", pods::address(&operator));
        let jobmanager = format!("http://{}:8081/health", pods::address(&job.pods(Role::JobManager).await?[0]));
        let (strangers, muted) = (suite.namespace("strangers").await?, suite.namespace("muted").await?);
        let deny = json!({
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []},
        });
        muted.create_object::<NetworkPolicy>(deny).await?;
        ensure!(reaches(&strangers, "control", &operator).await?, "a probe does not even reach the operator");
        if reaches(&muted, "control", &operator).await? {
            skipped("NetworkPolicy", "this cluster does not enforce it");
        } else {
            ensure!(!reaches(&strangers, "probe", &jobmanager).await?, "a stranger reaches the jobmanager's REST port");
        }
        feed.finish().map(drop)
    })
}

/// Whether a pod of a namespace gets an answer from an address.
async fn reaches(namespace: &Namespace<'_>, name: &str, address: &str) -> Result<bool> {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 10001, "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "probe",
                "image": OPERATOR_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "args": ["check", format!("--address={address}"), format!("--timeout={ASKS}")],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    });
    namespace.create_object::<Pod>(pod).await?;
    let api = namespace.api::<Pod>();
    let ended = async || {
        let pod = api.get(name).await?;
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        Ok(matches!(phase.as_str(), "Succeeded" | "Failed").then(|| phase == "Succeeded"))
    };
    let explain = async || millrace_k8s_tests::job::describe(&namespace.client(), &namespace.name).await;
    wait::until("end of a probe", Duration::from_secs(60), ended, explain).await
}
