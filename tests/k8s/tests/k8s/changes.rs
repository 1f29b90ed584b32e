//! Changes of a running job's spec.

use std::collections::BTreeSet;

use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod};
use millrace_k8s_tests::{
    Context, Result,
    cluster::{NEXT_WORKER_IMAGE, Namespace, WORKER_IMAGE},
    commands::{run, succeed},
    ensure,
    job::{Job, Manifest, Role, pods},
    load::{Feed, Outputs},
    suite::Suite,
    wait,
};
use serde_json::{Value, json};

pub fn upgrade_under_load(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("upgrade").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 2), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place).set("/spec/taskManager/replicas", json!(2)))?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;

        let mut args = Manifest::counting_args(&place, &place.output);
        args.extend(["--kafka-property".to_owned(), "linger.ms=7".to_owned()]);
        job.patch_spec(json!({"image": NEXT_WORKER_IMAGE, "args": args})).await?;
        // All stop before the first starts.
        let stop_then_start = async || {
            let pods = all_pods(&job).await?;
            let images: BTreeSet<_> = pods.iter().map(pods::image).collect();
            ensure!(images.len() <= 1, "old and new at once: {}", pods.iter().map(pods::describe).collect::<String>());
            let is_new = images.contains(NEXT_WORKER_IMAGE);
            Ok(Some(job.view().await?).filter(|view| is_new && view.is_settled()))
        };
        let after = wait::until("upgraded job", wait::PATIENCE, stop_then_start, async || job.describe().await).await?;
        ensure!(after.job_id() == before.job_id(), "an upgrade with last-state keeps the job's id");
        ensure!(after.generation() > before.generation(), "a new jobmanager is a new generation");
        ensure!(after.deployment() == before.deployment() + 1, "one more deployment: {}", after.describe());
        for pod in all_pods(&job).await? {
            let given = pod.spec.iter().flat_map(|spec| spec.containers[0].args.iter().flatten());
            ensure!(given.clone().any(|arg| arg == "linger.ms=7"), "{} has arguments {given:?}", pods::name(&pod));
        }
        job.wait_for_event("Upgrading").await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

async fn all_pods(job: &Job<'_>) -> Result<Vec<Pod>> {
    let mut pods = job.pods(Role::JobManager).await?;
    pods.extend(job.pods(Role::TaskManager).await?);
    Ok(pods)
}

pub fn scale(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("scale").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 3), Outputs::follow(&place)?);
        // As samples do, it leaves the number to whoever scales.
        let manifest = Manifest::counting(&place).set("/spec/taskManager", Value::Null);
        let job = Job::apply(&namespace, &manifest)?;
        job.wait_until_settled().await?;
        let id = job.wait_for_new_checkpoint().await?.job_id().to_owned();
        for (replicas, by) in [(3, Scaler::Kubectl), (2, Scaler::Kubectl), (4, Scaler::Autoscaler)] {
            by.scale(&namespace, replicas).await?;
            let scaled = job
                .wait("job at its new parallelism", |view| {
                    view.is_settled() && view.number("/status/parallelism") == replicas
                })
                .await?;
            let ready = format!("{replicas}/{replicas}");
            ensure!(scaled.text("/status/taskManagersReady") == ready, "{}", scaled.describe());
            ensure!(scaled.number("/status/slots/total") == replicas, "{}", scaled.describe());
            ensure!(scaled.number("/status/replicas") == replicas, "{}", scaled.describe());
            ensure!(scaled.job_id() == id, "the job's id stays");
            let running = job.pods(Role::TaskManager).await?.len() as i64;
            ensure!(running == replicas, "{running} taskmanagers instead of {replicas}");
            scale_subresource(&job, replicas)?;
            // The manifest applied again changes nothing.
            manifest.apply(&namespace)?;
            let after = job.wait_for_new_checkpoint().await?;
            ensure!(after.number("/spec/taskManager/replicas") == replicas, "an apply resets what was scaled");
            ensure!(after.deployment() == scaled.deployment() && after.is_settled(), "{}", after.describe());
            let now = feed.written();
            outputs.wait_until_past(&job, &now).await?;
        }
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

/// Who scales.
enum Scaler {
    Kubectl,
    /// A HorizontalPodAutoscaler. Without a metrics server it knows of no load and only sees to its lower bound.
    Autoscaler,
}

impl Scaler {
    async fn scale(&self, namespace: &Namespace<'_>, replicas: i64) -> Result<()> {
        match self {
            Self::Kubectl => {
                let mut scale = namespace.cluster.kubectl()?;
                scale.args(["scale", "sj/counts", &format!("--replicas={replicas}"), "--namespace", &namespace.name]);
                succeed(&mut scale).map(drop)
            }
            Self::Autoscaler => {
                let target = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamJob", "name": "counts"});
                let busy = json!({"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}});
                namespace
                    .create_object::<HorizontalPodAutoscaler>(json!({
                        "metadata": {"name": "counts"},
                        "spec": {
                            "scaleTargetRef": target,
                            "minReplicas": replicas,
                            "maxReplicas": replicas + 1,
                            "metrics": [{"type": "Resource", "resource": busy}],
                        },
                    }))
                    .await?;
                let autoscalers = namespace.api::<HorizontalPodAutoscaler>();
                let scaled = async || {
                    let status = autoscalers.get("counts").await?.status.unwrap_or_default();
                    let conditions = status.conditions.unwrap_or_default();
                    let able = conditions.iter().any(|one| one.type_ == "AbleToScale" && one.status == "True");
                    Ok((able && status.desired_replicas == replicas as i32).then_some(()))
                };
                let explain = async || format!("{:?}", autoscalers.get("counts").await);
                wait::until("autoscaler that scales", wait::PATIENCE, scaled, explain).await
            }
        }
    }
}

/// What an autoscaler reads: how many there are, how many there should be, and which pods they are.
fn scale_subresource(job: &Job<'_>, replicas: i64) -> Result<()> {
    let Namespace { cluster, name } = job.namespace;
    let path = format!("/apis/millrace.dev/v1alpha1/namespaces/{name}/streamjobs/{}/scale", job.name);
    let scale: Value = serde_json::from_str(&succeed(cluster.kubectl()?.args(["get", "--raw", &path]))?)?;
    ensure!(scale["spec"]["replicas"] == replicas && scale["status"]["replicas"] == replicas, "{scale}");
    let selector = scale["status"]["selector"].as_str().context("a selector")?;
    let mut select = cluster.kubectl()?;
    select.args(["get", "pods", "--namespace", name, "--selector", selector, "--output=name"]);
    let mut selected: Vec<_> = succeed(&mut select)?.lines().map(str::to_owned).collect();
    selected.sort();
    let taskmanagers: Vec<_> = (0..replicas).map(|pod| format!("pod/{}-taskmanager-{pod}", job.name)).collect();
    ensure!(selected == taskmanagers, "{selector} selects {selected:?}");
    Ok(())
}

pub fn suspend_and_resume(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("suspend").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 4), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;
        job.patch_spec(json!({"state": "suspended"})).await?;
        let suspended = job.wait_for_phase("Suspended").await?;
        ensure!(all_pods(&job).await?.is_empty(), "a suspended job has pods\n{}", job.describe().await);
        ensure!(suspended.condition("Ready").status == "False", "{}", suspended.describe());
        ensure!(!place.objects()?.is_empty(), "its checkpoints stay");
        job.patch_spec(json!({"state": "running"})).await?;
        let resumed = job.wait_until_settled().await?;
        ensure!(resumed.job_id() == before.job_id(), "the job's id stays");
        ensure!(resumed.generation() > before.generation(), "it is a new generation: {}", resumed.describe());
        job.wait_for_event("Resumed").await?;
        let events = job.events().await?;
        for reason in ["Suspended", "Resumed"] {
            ensure!(events.iter().filter(|event| *event == reason).count() == 1, "one event {reason} in {events:?}");
        }
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

pub fn no_restart(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("no-restart").await?;
        let place = suite.place(&namespace).await?;
        let feed = Feed::start(&place, 5);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        let before = job.wait_until_settled().await?;
        let pods = job.pod_uids().await?;
        job.patch(json!({"metadata": {"labels": {"team": "one"}, "annotations": {"note": "two"}}})).await?;
        let changes =
            [json!({"checkpointing": {"retained": 2}}), json!({"checkpointing": {"retainOnCancellation": true}})];
        for change in changes {
            job.patch_spec(change).await?;
            job.wait("change that is observed", |view| view.is_observed()).await?;
        }
        // Whatever they do, they would have done by the time of one more checkpoint.
        let after = job.wait_for_new_checkpoint().await?;
        ensure!(job.pod_uids().await? == pods, "a change that needs no restart replaced pods");
        ensure!(
            (after.generation(), after.restarts()) == (before.generation(), before.restarts()),
            "a change that needs no restart caused one: {}",
            after.describe()
        );
        ensure!(after.deployment() == before.deployment(), "it is no new deployment: {}", after.describe());
        feed.finish().map(drop)
    })
}

/// A spec that validates and never runs keeps the checkpoint, and the next one repairs it.
pub fn repair(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("repair").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 16), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;
        job.patch_spec(json!({"args": ["checkpoint-example", "--no-such-argument"]})).await?;
        job.wait("complaint", |view| view.complaints().contains("--no-such-argument")).await?;
        job.patch_spec(json!({"args": Manifest::counting_args(&place, &place.output)})).await?;
        let after = job.wait_until_settled().await?;
        ensure!(after.job_id() == before.job_id(), "the job's id stays: {}", after.describe());
        ensure!(after.latest_checkpoint() >= before.latest_checkpoint(), "{}", after.describe());
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

pub fn before_the_first_checkpoint(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("early").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 6), Outputs::follow(&place)?);
        // No checkpoint is as quick as that, and before there is one no record is read.
        let manifest = Manifest::counting(&place).set("/spec/checkpointing/timeout", json!("1ms"));
        let job = Job::apply(&namespace, &manifest)?;
        let before = job.wait("failed checkpoint", |view| view.is_settled() && view.failed_checkpoints() > 0).await?;
        ensure!(before.latest_checkpoint() == 0, "a checkpoint was complete in 1 ms: {}", before.describe());
        job.patch_spec(json!({"checkpointing": {"timeout": null}, "image": NEXT_WORKER_IMAGE})).await?;
        let after = job
            .wait("upgraded job with a checkpoint", |view| view.is_settled() && view.latest_checkpoint() > 0)
            .await?;
        ensure!(after.job_id() == before.job_id(), "an upgrade with last-state keeps the job's id");
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

pub fn stateless(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("stateless").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 7), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place).set("/spec/maxParallelism", json!(64)))?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;
        let now = feed.written();
        outputs.wait_until_past(&job, &now).await?;

        let mut change = suite.cluster.kubectl()?;
        change.args(["patch", "sj/counts", "--type=merge", "--namespace", &namespace.name]);
        change.arg("--patch={\"spec\":{\"maxParallelism\":32}}");
        let refused = run(&mut change)?;
        ensure!(!refused.success && refused.stderr.contains("maxParallelism"), "with last-state: {refused:?}");

        job.patch_spec(json!({"upgradeMode": "stateless", "maxParallelism": 32, "image": WORKER_IMAGE})).await?;
        let other = |view: &millrace_k8s_tests::job::View| view.is_settled() && view.job_id() != before.job_id();
        job.wait("job with another id", other).await?;
        job.wait_for_new_checkpoint().await?;
        let old: Vec<_> = place.objects()?.into_iter().filter(|path| path.contains(before.job_id())).collect();
        ensure!(old.is_empty(), "checkpoints of the job as it was are left: {old:?}");
        // From then on with last-state again: no way leads back to an empty state by accident.
        let id = job.view().await?.job_id().to_owned();
        job.patch_spec(json!({"upgradeMode": "last-state", "image": NEXT_WORKER_IMAGE})).await?;
        let upgraded = job.wait_until_settled().await?;
        ensure!(upgraded.job_id() == id, "an upgrade with last-state keeps the job's id: {}", upgraded.describe());
        // It counts again from the first record on, as its arguments say; whatever it kept would be counted twice.
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}
