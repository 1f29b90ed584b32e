//! A thousand StreamJobs with their children: the operator's memory, and its time for all of them.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use millrace_k8s_tests::{
    Context, Result,
    cluster::WORKER_IMAGE,
    job::{PROGRAM, View, pods, resource},
    suite::{Suite, skipped},
    wait,
};
use serde_json::{from_value, json};

/// For a thousand of anything.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Time between two looks at all of them: each is work for the API server.
const PAUSE: Duration = Duration::from_secs(2);

pub fn stream_jobs(suite: &Suite) -> Result<()> {
    let jobs: usize = std::env::var("STREAM_JOBS").ok().map_or(Ok(1000), |text| text.parse())?;
    suite.block_on(async {
        let namespace = suite.namespace("thousand").await?;
        let client = namespace.client();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace.name, &resource());
        println!("memory of an operator without a job: {}", memory(suite).await?);
        let operator = uids(suite).await?;

        let began = Instant::now();
        for number in 0..jobs {
            api.create(&PostParams::default(), &from_value(manifest(number))?).await?;
        }
        println!("{jobs} StreamJobs were created in {:.1} s", began.elapsed().as_secs_f64());
        let sets = Api::<StatefulSet>::namespaced(client.clone(), &namespace.name);
        let all_there = async || {
            tokio::time::sleep(PAUSE).await;
            Ok((count(&sets).await? == 2 * jobs).then_some(()))
        };
        let described = async || format!("{:?} StatefulSets", count(&sets).await);
        wait::until("two StatefulSets of each job", PATIENCE, all_there, described).await?;
        println!("all were reconciled {:.1} s after the first was created", began.elapsed().as_secs_f64());
        println!("memory of an operator with {jobs} jobs: {}", memory(suite).await?);
        suite.release.expect_unbroken(client.clone(), &operator).await?;

        // Changes that it can only see after its restart: those of all jobs must be observed.
        let began = Instant::now();
        let old = suite.release.delete_operator(client.clone(), Some(0)).await?;
        let change = Patch::Merge(json!({"spec": {"checkpointing": {"retained": 5}}}));
        for number in 0..jobs {
            api.patch(&name(number), &PatchParams::default(), &change).await?;
        }
        suite.release.wait_for_other(client.clone(), &old).await?;
        let operator = uids(suite).await?;
        let observed = async || {
            tokio::time::sleep(PAUSE).await;
            let listed = api.list(&ListParams::default()).await?;
            let left = listed.into_iter().map(View::from).filter(|view| !view.is_observed()).count();
            Ok((left == 0).then_some(()))
        };
        wait::until("observation of all changes", PATIENCE, observed, async || String::new()).await?;
        println!("{:.1} s after a restart of the operator all changes were observed", began.elapsed().as_secs_f64());
        println!("memory of an operator that found {jobs} jobs: {}", memory(suite).await?);
        suite.release.expect_unbroken(client.clone(), &operator).await?;
        let took = namespace.delete_within(PATIENCE).await?;
        println!("a namespace with all of them was gone after {:.1} s", took.as_secs_f64());
        suite.release.expect_unbroken(client.clone(), &operator).await
    })
}

fn name(number: usize) -> String {
    format!("job-{number}")
}

/// A job in state running whose pods find no node.
fn manifest(number: usize) -> serde_json::Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "StreamJob",
        "metadata": {"name": name(number)},
        "spec": {
            "image": WORKER_IMAGE,
            "program": PROGRAM,
            "args": ["keyed-count"],
            "checkpointing": {"ephemeral": true},
            "jobManager": {"podTemplate": {"spec": {"nodeSelector": {"millrace.dev/no-such-node": "true"}}}},
            "taskManager": {"podTemplate": {"spec": {"nodeSelector": {"millrace.dev/no-such-node": "true"}}}},
        },
    })
}

async fn count(sets: &Api<StatefulSet>) -> Result<usize> {
    Ok(sets.list_metadata(&ListParams::default()).await?.items.len())
}

/// The operator's pods.
async fn uids(suite: &Suite) -> Result<Vec<String>> {
    Ok(suite.release.pods(suite.cluster.client.clone()).await?.iter().map(pods::uid).collect())
}

/// The operator's memory, as a text.
async fn memory(suite: &Suite) -> Result<String> {
    let Some(node) = suite.cluster.node else {
        skipped("memory of the operator", "it takes the project's own cluster to see it");
        return Ok("not known".to_owned());
    };
    let pods = suite.release.pods(suite.cluster.client.clone()).await?;
    let container = pods.first().and_then(pods::container).and_then(|container| container.container_id.clone());
    let bytes = node.resident_memory(&container.context("the operator runs")?)?;
    Ok(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}
