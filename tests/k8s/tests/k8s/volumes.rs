//! Volumes of the taskmanagers' own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, api::PostParams};
use millrace_k8s_tests::{
    Context, Result,
    cluster::{Namespace, Node},
    ensure,
    job::{Job, Manifest, Role, pods},
    load::{Feed, Outputs},
    suite::{Suite, skipped},
    wait,
};
use serde_json::{from_value, json};

/// Taskmanagers.
const REPLICAS: usize = 2;
/// Where their volume is.
const MOUNTED: &str = "var/lib/millrace";

pub fn claim(suite: &Suite) -> Result<()> {
    let Some(node) = suite.cluster.node else {
        skipped("volumes", "they are made by hand in the node of the project's own cluster");
        return Ok(());
    };
    suite.block_on(async {
        let namespace = suite.namespace("volumes").await?;
        let place = suite.place(&namespace).await?;
        // Those of a deployment that is gone are released, and nobody cleans them: an upgrade needs others.
        let class = volumes(&namespace, node, 2 * REPLICAS).await?;
        let before = namespace.objects()?;
        let (feed, mut outputs) = (Feed::start(&place, 19), Outputs::follow(&place)?);
        let manifest = Manifest::counting(&place)
            .set("/spec/taskManager/replicas", json!(REPLICAS))
            .set("/spec/taskManager/volumeClaim", json!({"size": "64Mi", "storageClassName": class}));
        let job = Job::apply(&namespace, &manifest)?;
        job.wait_until_settled().await?;
        job.wait_for_new_checkpoint().await?;
        let claimed = claims(&namespace).await?;
        ensure!(claimed.len() == REPLICAS, "claims {claimed:?}");
        for pod in job.pods(Role::TaskManager).await? {
            // As the program would: neither root nor the folder's owner.
            let user = ["--reuid=10001", "--regid=10001", "--clear-groups", "touch", &marker(node, &pod)?];
            node.run("setpriv", &user).context("writing to the volume as the pod's user")?;
        }

        let old = job.pod_uids().await?;
        for (pod, grace) in job.pods(Role::TaskManager).await?.iter().zip([None, Some(0)]) {
            job.delete_pod(pod, grace).await?;
        }
        let replaced = async || {
            let pods = job.pods(Role::TaskManager).await?;
            let new = pods.iter().filter(|pod| pods::is_ready(pod) && !old.contains(&pods::uid(pod))).count();
            Ok((new == REPLICAS && pods.len() == REPLICAS).then_some(()))
        };
        wait::until("new taskmanagers", wait::PATIENCE, replaced, async || job.describe().await).await?;
        job.wait_until_settled().await?;
        ensure!(claims(&namespace).await? == claimed, "pods have other claims than before: {claimed:?}");
        for pod in job.pods(Role::TaskManager).await? {
            node.run("ls", &[&marker(node, &pod)?]).context("what was in its volume is not there any more")?;
        }

        // A deployment has volumes of its own: local state is of no use to another.
        job.patch_spec(json!({"restartNonce": 1})).await?;
        job.wait("upgraded job", |view| view.is_settled() && view.deployment() == 2).await?;
        let others = claims(&namespace).await?;
        ensure!(others.len() == REPLICAS && others.iter().all(|claim| !claimed.contains_key(claim.0)), "{others:?}");
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        job.begin_delete().await?;
        job.wait_until_gone(wait::PATIENCE).await?;
        namespace.wait_for_only(&before).await
    })
}

/// A file in a taskmanager's volume, by way of its process, named after the pod.
fn marker(node: Node, pod: &Pod) -> Result<String> {
    let container = pods::container(pod).and_then(|container| container.container_id.as_deref());
    let process = node.main_process(container.context("its container runs")?)?;
    Ok(format!("/proc/{process}/root/{MOUNTED}/{}", pods::name(pod)))
}

/// The claims by uid, each with its name and volume.
async fn claims(namespace: &Namespace<'_>) -> Result<BTreeMap<String, (String, String)>> {
    let listed = namespace.api::<PersistentVolumeClaim>().list(&Default::default()).await?;
    let claim = |claim: PersistentVolumeClaim| {
        let volume = claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default();
        (claim.metadata.uid.unwrap_or_default(), (claim.metadata.name.unwrap_or_default(), volume))
    };
    Ok(listed.into_iter().map(claim).collect())
}

/// Makes volumes in the node, which go with the namespace. Returns their storage class.
async fn volumes(namespace: &Namespace<'_>, node: Node, count: usize) -> Result<String> {
    let class = namespace.name.clone();
    let owner = Api::<KubeNamespace>::all(namespace.client()).get(&namespace.name).await?.metadata.uid;
    let volumes = Api::<PersistentVolume>::all(namespace.client());
    for number in 0..count {
        let name = format!("{class}-{number}");
        let path = format!("/var/lib/millrace-tests/{name}");
        node.run("mkdir", &["--parents", &path])?;
        let owner = json!({"apiVersion": "v1", "kind": "Namespace", "name": namespace.name, "uid": owner});
        let here = json!({"key": "kubernetes.io/hostname", "operator": "Exists"});
        let volume = from_value(json!({
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "64Mi"},
                "storageClassName": class,
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        }))?;
        volumes.create(&PostParams::default(), &volume).await.with_context(|| format!("creating volume {name}"))?;
    }
    Ok(class)
}
