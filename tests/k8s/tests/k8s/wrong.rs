//! Jobs that cannot run: status says what is wrong, and the next spec repairs them.

use millrace_k8s_tests::{
    Result,
    cluster::{CREDENTIALS, WORKER_IMAGE},
    ensure,
    job::{Job, Manifest},
    load::{Feed, Outputs, Place},
    suite::Suite,
};
use serde_json::{Value, json};

/// A Secret with a key that no object store knows.
const WRONG: &str = "wrong-credentials";

/// Applies a counting job with something wrong in it, waits until status names it in all these words, and repairs it.
fn complains(
    suite: &Suite,
    name: &str,
    spoil: impl FnOnce(Manifest) -> Manifest,
    words: &[&str],
    repair: impl FnOnce(&Place) -> Value,
) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace(name).await?;
        let place = suite.place(&namespace).await?;
        namespace.put_secret(WRONG, place.minio.access_key(), "not the secret").await?;
        let (feed, mut outputs) = (Feed::start(&place, 8), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &spoil(Manifest::counting(&place)))?;
        job.wait_for_complaint(words).await?;
        // Also from the first deployment on the next spec repairs it.
        job.patch_spec(repair(&place)).await?;
        job.wait_until_settled().await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}

pub fn arguments(suite: &Suite) -> Result<()> {
    let spoil = |manifest: Manifest| manifest.set("/spec/args", json!(["checkpoint-example", "--no-such-argument"]));
    complains(
        suite,
        "arguments",
        spoil,
        &["--no-such-argument"],
        |place| json!({"args": Manifest::counting_args(place, &place.output)}),
    )
}

pub fn image(suite: &Suite) -> Result<()> {
    const NONE: &str = "millrace/no-such-image:0";
    let spoil =
        |manifest: Manifest| manifest.set("/spec/image", json!(NONE)).set("/spec/imagePullPolicy", json!("Never"));
    complains(suite, "image", spoil, &[NONE], |_| json!({"image": WORKER_IMAGE, "imagePullPolicy": null}))
}

pub fn credentials(suite: &Suite) -> Result<()> {
    let spoil = |manifest: Manifest| manifest.set("/spec/s3/credentialsSecretRef/name", json!(WRONG));
    complains(
        suite,
        "credentials",
        spoil,
        &["s3.secret-key"],
        |_| json!({"s3": {"credentialsSecretRef": {"name": CREDENTIALS}}}),
    )
}

pub fn bucket(suite: &Suite) -> Result<()> {
    let spoil =
        |manifest: Manifest| manifest.set("/spec/checkpointing/storage", json!("s3://no-such-bucket/checkpoints"));
    complains(
        suite,
        "bucket",
        spoil,
        &["no-such-bucket"],
        |place| json!({"checkpointing": {"storage": place.storage()}}),
    )
}

pub fn spec(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("spec").await?;
        let place = suite.place(&namespace).await?;
        let (feed, mut outputs) = (Feed::start(&place, 9), Outputs::follow(&place)?);
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        let before = job.wait_until_settled().await?;
        let pods = job.pod_uids().await?;
        // The schema cannot look into pod templates, the operator does.
        let template = json!({"podTemplate": {"spec": {"containers": [{"name": "millrace", "imagee": "x"}]}}});
        job.patch_spec(json!({"taskManager": template})).await?;
        let invalid = job.wait("condition Valid that is not true", |view| view.condition("Valid").status == "False");
        let message = invalid.await?.condition("Valid").message;
        println!("spec: {message}");
        ensure!(message.contains("spec.taskManager.podTemplate") && message.contains("imagee"), "{message}");
        job.wait_for_event("SpecInvalid").await?;
        let after = job.wait_for_new_checkpoint().await?;
        ensure!(job.pod_uids().await? == pods, "an invalid spec touched the running job");
        ensure!(after.phase() == "Running" && after.restarts() == before.restarts(), "{}", after.describe());
        job.patch_spec(json!({"taskManager": {"podTemplate": null}})).await?;
        job.wait("condition Valid", |view| view.condition("Valid").status == "True" && view.is_settled()).await?;
        ensure!(job.pod_uids().await? == pods, "the way back to the spec that runs touched the job");
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await
    })
}
