//! The operator itself: what its absence, its restart and its installation do, and do not.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::{Api, api::ListParams};
use millrace_k8s_tests::{
    Result,
    cluster::{NEXT_WORKER_IMAGE, Release},
    commands::succeed,
    ensure,
    job::{Job, Manifest, Role, pods},
    load::{Feed, Outputs},
    suite::Suite,
    wait,
};
use serde_json::json;

pub fn helm_test(suite: &Suite) -> Result<()> {
    let Release { name, namespace } = &suite.release;
    let mut test = suite.cluster.helm()?;
    test.args(["test", name, "--namespace", namespace, "--logs", "--timeout", "2m"]);
    succeed(&mut test).map(drop)
}

pub fn restart(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("restart").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 13), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;
        let (pods, events) = (job.pod_uids().await?, job.events().await?);
        for grace in [None, Some(0)] {
            suite.release.replace_operator(suite.cluster.client.clone(), grace).await?;
            // It looks after the job again: a newer checkpoint comes into status by it alone.
            job.wait_for_new_checkpoint().await?;
        }
        let after = job.wait_until_settled().await?;
        ensure!(job.pod_uids().await? == pods, "a restart of the operator replaced pods of a job");
        ensure!(
            (after.generation(), after.restarts()) == (before.generation(), before.restarts()),
            "a restart of the operator restarted a job: {}",
            after.describe()
        );
        ensure!(job.events().await? == events, "it repeated events: {:?} after {events:?}", job.events().await?);
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

pub fn absence(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("absence").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 14), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        job.wait_for_new_checkpoint().await?;
        scale_operator(suite, 0)?;
        let client = suite.cluster.client.clone();
        let gone = async || Ok(suite.release.pods(client.clone()).await?.is_empty().then_some(()));
        wait::until("absence of the operator", wait::PATIENCE, gone, async || String::new()).await?;
        for role in [Role::TaskManager, Role::JobManager] {
            let victim = job.pods(role).await?.remove(0);
            job.delete_pod(&victim, Some(0)).await?;
            let uid = pods::uid(&victim);
            let replaced = async || {
                let pods = job.pods(role).await?;
                Ok((pods.len() == 1 && pods.iter().all(|pod| pods::uid(pod) != uid)).then_some(()))
            };
            wait::until("pod in place of the deleted one", wait::PATIENCE, replaced, async || job.describe().await)
                .await?;
            let now = feed.written();
            outputs.wait_until_past(&job, &now).await?;
        }
        scale_operator(suite, 1)?;
        suite.release.wait_for_other(client, &[]).await?;
        job.wait_until_settled().await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

fn scale_operator(suite: &Suite, replicas: u32) -> Result<()> {
    let Release { name, namespace } = &suite.release;
    let mut scale = suite.cluster.kubectl()?;
    scale.args(["scale", "deployment", "--namespace", namespace, &format!("--replicas={replicas}")]);
    scale.arg(format!("--selector=app.kubernetes.io/instance={name}"));
    succeed(&mut scale).map(drop)
}

/// Runs last: it takes the operator of all namespaces away for its time.
pub fn of_a_namespace(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("team").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 15), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        job.wait_for_new_checkpoint().await?;
        let uids = job.pod_uids().await?;
        let roles = cluster_roles(suite).await?;

        suite.release.uninstall(&suite.cluster)?;
        ensure!(job.view().await?.phase() == "Running", "uninstalling the chart deletes no StreamJob");
        ensure!(job.pod_uids().await? == uids, "uninstalling the chart touched a job's pods");
        ensure!(cluster_roles(suite).await?.is_disjoint(&roles), "uninstalling the chart leaves cluster roles");

        let values = [format!("watchNamespaces={{{}}}", namespace.name), "crds.enabled=false".to_owned()];
        let values = values.each_ref().map(String::as_str);
        let release = Release::install(&suite.cluster, "team", &namespace.name, &values).await?;
        let roles = cluster_roles(suite).await?;
        ensure!(roles.is_empty(), "an operator of a namespace has rights in the cluster: {roles:?}");
        job.patch_spec(json!({"image": NEXT_WORKER_IMAGE})).await?;
        let upgraded = job.wait("job that it upgraded", |view| view.is_settled()).await?;
        ensure!(job.pod_uids().await? != uids, "{}", upgraded.describe());

        // What lies elsewhere is not its business.
        let other = suite.namespace("not-team").await?;
        let other_place = suite.place(&other).await?;
        let ignored = Job::apply(&other, &Manifest::counting(&other_place))?;
        job.wait_for_new_checkpoint().await?;
        ensure!(!ignored.view().await?.has("/status/phase"), "it looks after a namespace that it does not watch");

        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        job.begin_delete().await?;
        job.wait_until_gone(wait::PATIENCE).await?;
        release.uninstall(&suite.cluster)?;
        let Release { name, namespace } = &suite.release;
        Release::install(&suite.cluster, name, namespace, &[]).await?;
        ignored.wait_until_settled().await.map(drop)
    })
}

/// The cluster roles and their bindings that charts of this project made, but for those that only add to a cluster's
/// own.
async fn cluster_roles(suite: &Suite) -> Result<std::collections::BTreeSet<String>> {
    let ours = ListParams::default().labels("app.kubernetes.io/name=millrace-operator");
    let client = suite.cluster.client.clone();
    let roles = Api::<ClusterRole>::all(client.clone()).list(&ours).await?;
    let bindings = Api::<ClusterRoleBinding>::all(client).list(&ours).await?;
    let roles = roles.into_iter().filter_map(|role| role.metadata.name).map(|name| format!("role {name}"));
    let bindings = bindings.into_iter().filter_map(|one| one.metadata.name).map(|name| format!("binding {name}"));
    Ok(roles.chain(bindings).collect())
}
