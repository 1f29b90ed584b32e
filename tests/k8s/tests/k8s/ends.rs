//! Jobs that come to an end by themselves.

use millrace_k8s_tests::{
    Result,
    cluster::{CREDENTIALS, NEXT_WORKER_IMAGE, WORKER_IMAGE},
    ensure,
    job::{Job, Manifest, PROGRAM, Role},
    load::{Feed, Outputs},
    suite::Suite,
    wait::PATIENCE,
};
use serde_json::json;

/// The second sample, made small.
const KEYED_COUNT: &str = "
apiVersion: millrace.dev/v1alpha1
kind: StreamJob
metadata:
  name: keyed-count
spec:
  args: [keyed-count, --records, '20000', --keys, '100']
  checkpointing:
    interval: 1s
";

pub fn finished(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("finished").await?;
        let place = suite.place(&namespace).await?;
        let before = namespace.objects()?;
        let manifest = Manifest::parse(KEYED_COUNT)?
            .set("/spec/image", json!(WORKER_IMAGE))
            .set("/spec/program", json!(PROGRAM))
            .set("/spec/checkpointing/storage", json!(place.storage()))
            .set("/spec/s3", json!({"endpoint": place.endpoint(), "credentialsSecretRef": {"name": CREDENTIALS}}));
        let job = Job::apply(&namespace, &manifest)?;
        let first = job.wait_for_phase("Finished").await?;
        job.wait_for_no_taskmanagers().await?;
        ensure!(job.pods(Role::JobManager).await?.len() == 1, "the jobmanager stays for a look at its log");
        job.wait_for_event("Finished").await?;
        // A changed spec is a new run, and no part of the old one.
        job.patch_spec(json!({"restartNonce": 1})).await?;
        let again = |view: &millrace_k8s_tests::job::View| {
            view.phase() == "Finished" && view.is_observed() && view.job_id() != first.job_id()
        };
        job.wait("second run that has finished", again).await?;
        job.begin_delete().await?;
        job.wait_until_gone(PATIENCE).await?;
        namespace.wait_for_only(&before).await?;
        let left = place.objects()?;
        ensure!(left.is_empty(), "left in the bucket: {left:?}");
        Ok(())
    })
}

pub fn failed(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("failed").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 10), Outputs::follow(&place)?);
        // A taskmanager that is told to end hands its tasks over, and nothing has failed: this one is given no time to.
        let manifest = Manifest::counting(&place)
            .set("/spec/restartStrategy", json!({"type": "none"}))
            .set("/spec/configuration", json!({"taskmanager.drain-timeout": "0 ms"}));
        let job = Job::apply(&namespace, &manifest)?;
        job.wait_until_settled().await?;
        let before = job.wait_for_new_checkpoint().await?;
        let victim = job.pods(Role::TaskManager).await?.remove(0);
        job.delete_pod(&victim, Some(0)).await?;
        let failed = job.wait_for_phase("Failed").await?;
        ensure!(!failed.condition("Ready").message.is_empty(), "why it failed: {}", failed.describe());
        job.wait_for_event("Failed").await?;
        ensure!(job.pods(Role::JobManager).await?.len() == 1, "the jobmanager stays for a look at its log");
        // Any change takes it up where it was.
        let strategy = json!({"type": "fixed-delay", "fixedDelay": {"attempts": 9, "delay": "100ms"}});
        job.patch_spec(json!({"restartStrategy": strategy, "image": NEXT_WORKER_IMAGE})).await?;
        let repaired = job.wait_until_settled().await?;
        ensure!(repaired.job_id() == before.job_id(), "it is the same job: {}", repaired.describe());
        ensure!(repaired.generation() > before.generation(), "{}", repaired.describe());
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}
