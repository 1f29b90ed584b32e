//! Object stores that want more than a pair of keys in a Secret.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use millrace_k8s_tests::{
    Result,
    cluster::{IdentityAgent, TOKEN_AUDIENCE},
    ensure,
    job::{Job, Manifest},
    load::{Feed, Outputs, Place},
    suite::Suite,
    wait,
};
use millrace_testkit::services::minio::{Authority, Minio};
use serde_json::{Value, json};

/// Where EKS puts the token by which a pod shows who it is.
const TOKEN_FOLDER: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
/// The service account of the pods with an identity.
const ACCOUNT: &str = "counter";

pub fn ca_bundle(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let (authority, other) = (Authority::new("the store's"), Authority::new("another"));
        let minio = Minio::start_with_tls_on(suite.cluster.host, &authority)?;
        let namespace = suite.namespace("ca-bundle").await?;
        let place = Place::create_on(&namespace, &minio, &suite.services.kafka.client()).await?;
        ensure!(place.endpoint().starts_with("https://"), "{}", place.endpoint());
        for (name, authority) in [("right", &authority), ("wrong", &other)] {
            let bundle = json!({"metadata": {"name": name}, "data": {"ca.crt": authority.pem()}});
            namespace.create_object::<ConfigMap>(bundle).await?;
        }
        let before = namespace.objects()?;
        let (feed, mut outputs) = (Feed::start(&place, 17), Outputs::follow(&place)?);
        let manifest = Manifest::counting(&place).set("/spec/s3/caBundle", json!({"configMapName": "wrong"}));
        let job = Job::apply(&namespace, &manifest)?;
        job.wait_for_complaint(&["certificate", "s3.ssl.ca-bundle"]).await?;
        // Without a bundle the image's authorities count, and the store's is none of them.
        job.patch_spec(json!({"s3": {"caBundle": null}})).await?;
        job.wait("second deployment", |view| view.deployment() == 2).await?;
        job.wait_for_complaint(&["certificate", "s3.ssl.ca-bundle"]).await?;
        job.patch_spec(json!({"s3": {"caBundle": {"configMapName": "right"}}})).await?;
        job.wait_until_settled().await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        ends_clean(&job, &place).await?;
        namespace.wait_for_only(&before).await
    })
}

/// As on EKS: the pod shows a token of its ServiceAccount and is given keys that do not last.
pub fn pod_identity(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("identity").await?;
        let place = suite.place(&namespace).await?;
        namespace.create_object::<ServiceAccount>(json!({"metadata": {"name": ACCOUNT}})).await?;
        let account = format!("system:serviceaccount:{}:{ACCOUNT}", namespace.name);
        let agent = IdentityAgent::start(&suite.cluster, place.minio.clone(), account).await?;
        let (feed, mut outputs) = (Feed::start(&place, 18), Outputs::follow(&place)?);
        // Without keys and without an identity.
        let manifest = Manifest::counting(&place).set("/spec/s3/credentialsSecretRef", Value::Null);
        let job = Job::apply(&namespace, &manifest)?;
        job.wait_for_complaint(&["no credentials"]).await?;

        job.patch_spec(json!({"podTemplate": with_identity(&agent)})).await?;
        job.wait_until_settled().await?;
        job.wait_for_new_checkpoint().await?;
        // Keys that run out are replaced while the job runs.
        let (before, served) = (job.view().await?, agent.served());
        let renewed = async || Ok((agent.served() >= served + 4).then_some(()));
        wait::until("renewal of keys", wait::PATIENCE, renewed, async || job.describe().await).await?;
        let after = job.wait_for_new_checkpoint().await?;
        ensure!(
            (after.restarts(), after.failed_checkpoints()) == (before.restarts(), before.failed_checkpoints()),
            "{}",
            after.describe()
        );
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        ends_clean(&job, &place).await
    })
}

/// What EKS's webhook puts into the pods of a ServiceAccount that has an identity.
fn with_identity(agent: &IdentityAgent) -> Value {
    let token = json!({"audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"});
    json!({"spec": {
        "serviceAccountName": ACCOUNT,
        "volumes": [{"name": "identity", "projected": {"sources": [{"serviceAccountToken": token}]}}],
        "containers": [{
            "name": "millrace",
            "env": [
                {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": agent.url},
                {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": format!("{TOKEN_FOLDER}/token")},
            ],
            "volumeMounts": [{"name": "identity", "mountPath": TOKEN_FOLDER, "readOnly": true}],
        }],
    }})
}

/// Deletes the job: its checkpoints go by the same way that they came.
async fn ends_clean(job: &Job<'_>, place: &Place) -> Result<()> {
    ensure!(!place.objects()?.is_empty(), "a job with checkpoints has nothing in its bucket");
    job.begin_delete().await?;
    job.wait_until_gone(wait::PATIENCE).await?;
    let left = place.objects()?;
    ensure!(left.is_empty(), "left in the bucket: {left:?}");
    Ok(())
}
