//! The operator itself: what its absence, its restart and its installation do, and do not.

use std::time::Instant;

use k8s_openapi::api::{
    core::v1::Pod,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, api::ListParams};
use millrace_k8s_tests::{
    Context, Result,
    cluster::{NEXT_WORKER_IMAGE, Release},
    commands::succeed,
    ensure,
    job::{Job, Manifest, Role, pods},
    load::{Feed, Outputs},
    suite::{Suite, skipped},
    wait,
};
use serde_json::json;

pub fn helm_test(suite: &Suite) -> Result<()> {
    let Release { name, namespace } = &suite.release;
    let mut test = suite.cluster.helm()?;
    test.args(["test", name, "--namespace", namespace, "--logs", "--timeout", "2m"]);
    succeed(&mut test).map(drop)
}

/// A ServiceMonitor is of no kind that a cluster knows by itself.
pub fn service_monitor(suite: &Suite) -> Result<()> {
    let crds = succeed(suite.cluster.kubectl()?.args(["get", "crd", "--output=name"]))?;
    if crds.contains("servicemonitors.monitoring.coreos.com") {
        skipped("a ServiceMonitor without its CRD", "this cluster has it");
        return Ok(());
    }
    suite.block_on(async {
        let (release, client) = (&suite.release, suite.cluster.client.clone());
        let running =
            async || -> Result<Vec<String>> { Ok(release.pods(client.clone()).await?.iter().map(pods::uid).collect()) };
        let before = running().await?;
        let refused = release.upgrade(&suite.cluster, &["metrics.serviceMonitor.enabled=true", "replicas=2"]).await;
        let error = refused.err().context("Helm takes a ServiceMonitor in a cluster without its CRD")?;
        let said = error.root_cause().to_string();
        ensure!(said.contains("ServiceMonitor") && said.contains("ensure CRDs are installed first"), "{said}");
        ensure!(running().await? == before, "a refused change touched the operator");
        Ok(())
    })
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

/// The operator's replicas: one leads, and when it is gone another does, without effect on jobs.
pub fn several_replicas(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let (cluster, release) = (&suite.cluster, &suite.release);
        let namespace = suite.namespace("replicas").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 21), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        release.upgrade(cluster, &["replicas=3"]).await?;
        let before = job.wait_for_new_checkpoint().await?;
        let uids = job.pod_uids().await?;

        let client = cluster.client.clone();
        for killed in [false, true] {
            let pods = wait_for_replicas(suite, 3).await?;
            let leader = wait_for_leader(suite, None).await?;
            let pod = pods.iter().find(|pod| leader.starts_with(&pods::name(pod))).context("the leader has a pod")?;
            match (killed, cluster.node) {
                (false, _) => release.delete_pod(client.clone(), pod, Some(0)).await?,
                (true, Some(node)) => {
                    let container = pods::container(pod).and_then(|container| container.container_id.clone());
                    node.kill_main_process(&container.context("the leader's container runs")?)?;
                }
                (true, None) => {
                    skipped("a leader whose process is killed", "it needs the node itself");
                    continue;
                }
            }
            let since = Instant::now();
            let next = wait_for_leader(suite, Some(&leader)).await?;
            let how = if killed { "process was killed" } else { "pod was deleted" };
            println!("{:.1} s after the leader's {how}, {next} leads", since.elapsed().as_secs_f64());
            // Newer checkpoints come into status by the new one alone.
            job.wait_for_new_checkpoint().await?;
        }
        let after = job.wait_until_settled().await?;
        ensure!(job.pod_uids().await? == uids, "another leader replaced pods of a job");
        ensure!(
            (after.generation(), after.restarts()) == (before.generation(), before.restarts()),
            "another leader restarted a job: {}",
            after.describe()
        );
        job.patch_spec(json!({"image": NEXT_WORKER_IMAGE})).await?;
        job.wait("job that the new leader has upgraded", |view| view.is_settled() && view.deployment() == 2).await?;
        release.upgrade(cluster, &[]).await?;
        wait_for_replicas(suite, 1).await?;
        job.wait_for_new_checkpoint().await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

/// Waits until there are so many replicas, all of them ready.
async fn wait_for_replicas(suite: &Suite, count: usize) -> Result<Vec<Pod>> {
    let (release, client) = (&suite.release, suite.cluster.client.clone());
    let ready = async || {
        let pods = release.pods(client.clone()).await?;
        Ok((pods.len() == count && pods.iter().all(pods::is_ready)).then_some(pods))
    };
    wait::until("operators", wait::PATIENCE, ready, async || release.describe(client.clone()).await).await
}

/// Waits until a replica leads, and not this one.
async fn wait_for_leader(suite: &Suite, than: Option<&str>) -> Result<String> {
    let (release, client) = (&suite.release, suite.cluster.client.clone());
    let leads = async || Ok(release.leader(client.clone()).await?.filter(|holder| Some(holder.as_str()) != than));
    wait::until("replica that leads", wait::PATIENCE, leads, async || release.describe(client.clone()).await).await
}

/// Runs last: it takes the operator of all namespaces away for its time.
pub fn of_two_namespaces(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let (stays, goes) = (suite.namespace("team-stays").await?, suite.namespace("team-goes").await?);
        let (place, of_goes) = (suite.place(&stays).await?, suite.place(&goes).await?);
        let (feed, mut outputs) = (Feed::start(&place, 15), Outputs::follow(&place)?);
        let jobs =
            [Job::apply(&stays, &Manifest::counting(&place))?, Job::apply(&goes, &Manifest::counting(&of_goes))?];
        for job in &jobs {
            job.wait_until_settled().await?;
            job.wait_for_new_checkpoint().await?;
        }
        let uids = [jobs[0].pod_uids().await?, jobs[1].pod_uids().await?];
        let roles = cluster_roles(suite).await?;

        suite.release.uninstall(&suite.cluster)?;
        ensure!(cluster_roles(suite).await?.is_disjoint(&roles), "uninstalling the chart leaves cluster roles");
        for (job, uids) in jobs.iter().zip(&uids) {
            ensure!(job.view().await?.phase() == "Running", "uninstalling the chart deletes no StreamJob");
            ensure!(job.pod_uids().await? == *uids, "uninstalling the chart touched a job's pods");
        }

        let values = [format!("watchNamespaces={{{},{}}}", stays.name, goes.name), "crds.enabled=false".to_owned()];
        let values = values.each_ref().map(String::as_str);
        let release = Release::install(&suite.cluster, "team", &stays.name, &values).await?;
        let roles = cluster_roles(suite).await?;
        ensure!(roles.is_empty(), "an operator of namespaces has rights in the cluster: {roles:?}");
        for (job, uids) in jobs.iter().zip(&uids) {
            job.patch_spec(json!({"image": NEXT_WORKER_IMAGE})).await?;
            let upgraded = job.wait("job that it upgraded", |view| view.is_settled()).await?;
            ensure!(job.pod_uids().await? != *uids, "{}", upgraded.describe());
        }

        // What lies elsewhere is not its business.
        let other = suite.namespace("not-team").await?;
        let other_place = suite.place(&other).await?;
        let ignored = Job::apply(&other, &Manifest::counting(&other_place))?;
        jobs[0].wait_for_new_checkpoint().await?;
        ensure!(!ignored.view().await?.has("/status/phase"), "it looks after a namespace that it does not watch");

        // Its rights in a namespace go with the namespace, and what it still has to do there must not hold that up.
        let took = goes.delete().await?;
        println!("a watched namespace with a running job was gone after {:.1} s", took.as_secs_f64());
        jobs[0].wait_for_new_checkpoint().await?;
        // One that starts without the namespace looks after the other all the same.
        release.delete_operator(suite.cluster.client.clone(), Some(0)).await?;
        jobs[0].patch_spec(json!({"restartNonce": 1})).await?;
        jobs[0].wait("restarted job", |view| view.is_settled() && view.deployment() == 3).await?;

        let written = feed.finish()?;
        outputs.expect_all(&jobs[0], &written).await?;
        jobs[0].begin_delete().await?;
        jobs[0].wait_until_gone(wait::PATIENCE).await?;
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
