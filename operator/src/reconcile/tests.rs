//! Caches that lag behind: what they show is what was, and another look at the API server tells what is.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use axum::http::{Method, Request, Response};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{
    Client, Resource,
    client::Body,
    runtime::{
        reflector::{self, Store},
        watcher::Event,
    },
};
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::{
    build::{BuildContext, name_of},
    engine::EngineClient,
    fixture::{recorded, running},
    memory::Memory,
    metrics::Metrics,
    observe::{FINALIZER, cluster::Caches},
};

/// What there is: a job and its StatefulSets, which say which deployment they belong to.
#[derive(Clone)]
struct There {
    job: StreamJob,
    sets: Vec<StatefulSet>,
}

impl There {
    /// This job; `deployment`: with both its StatefulSets.
    fn new(job: StreamJob, deployment: Option<i64>) -> Self {
        let set = |component| {
            let owner =
                json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamJob", "name": "orders", "uid": "uid"});
            let name = name_of(&job, component);
            serde_json::from_value(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {
                "name": name, "namespace": "shop", "uid": name, "ownerReferences": [owner],
                "annotations": {"millrace.dev/deployment": deployment.map(|number| number.to_string())},
            }}))
            .expect("a StatefulSet")
        };
        let sets = deployment.map_or(Vec::new(), |_| [Component::JobManager, Component::TaskManager].map(set).into());
        Self { job, sets }
    }
}

/// The writes that an API server was asked for: method, path and body.
type Writes = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// A client of an API server that has this, takes every write, and notes it.
fn server(there: There) -> (Client, Writes) {
    let writes = Writes::default();
    let noted = writes.clone();
    let answer = service_fn(move |request: Request<Body>| {
        let (there, noted) = (there.clone(), noted.clone());
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let sent = request.into_body().collect_bytes().await.expect("a body");
            let list = |kind: &str, items: Value| json!({"kind": kind, "metadata": {}, "items": items});
            let answer = match (&method, path.rsplit('/').next()) {
                (&Method::GET, Some("orders")) => json!(there.job),
                (&Method::GET, Some("statefulsets")) => list("StatefulSetList", json!(there.sets)),
                (&Method::GET, Some("pods")) => list("PodList", json!([])),
                (&Method::GET, _) => panic!("nobody asks for {path}"),
                _ => {
                    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push((method, path, sent.clone()));
                    sent
                }
            };
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    (Client::new(answer, "shop"), writes)
}

fn store<K: Resource<DynamicType = ()> + Clone + 'static>(objects: Vec<K>) -> Store<K> {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

/// What is written by a reconcile of what the caches have, where the API server has something else.
async fn written(cached: There, there: There) -> Vec<(Method, String, Value)> {
    let (client, writes) = server(there);
    let context = Context {
        client,
        engine: EngineClient::new(1),
        build: BuildContext::default(),
        reporter: "test".to_owned(),
        poll_interval: FAST,
        memory: Arc::<Memory>::default(),
        metrics: Metrics::new().expect("metrics"),
        caches: Caches { jobs: store(vec![cached.job.clone()]), sets: store(cached.sets), pods: store::<Pod>(vec![]) },
    };
    reconcile(Arc::new(cached.job), Arc::new(context)).await.expect("a reconcile");
    let mut writes = writes.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *writes)
}

/// Whether it was the job's own id, and the numbers of the deployments, that statuses were written with.
fn deployments(writes: &[(Method, String, Value)]) -> Vec<(bool, i64)> {
    let statuses = writes.iter().filter(|(method, path, _)| *method == Method::PUT && path.ends_with("/status"));
    let mut found: Vec<_> = statuses
        .map(|(.., sent)| &sent["status"])
        .map(|status| (status["jobId"] == "a".repeat(32), status["deployment"]["number"].as_i64().unwrap_or_default()))
        .collect();
    found.dedup();
    found
}

fn deletions(writes: &[(Method, String, Value)]) -> usize {
    writes.iter().filter(|(method, ..)| *method == Method::DELETE).count()
}

/// A job that nothing is recorded of.
fn new() -> There {
    let mut job = recorded().job;
    job.status = None;
    job.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    There::new(job, None)
}

#[tokio::test]
async fn a_cache_that_has_not_seen_the_deployment_makes_no_other() {
    let writes = written(new(), new()).await;
    assert_eq!(deployments(&writes), [(false, 1)], "without a lag it is deployed under a fresh id: {writes:?}");
    let writes = written(new(), There::new(recorded().job, None)).await;
    assert_eq!(deployments(&writes), [(true, 1)], "it keeps the id that it was deployed with: {writes:?}");
}

#[tokio::test]
async fn a_cache_that_has_not_seen_the_end_of_an_upgrade_stops_nothing() {
    let changed = || running().wanting(|spec| spec.image = "jobs:2".to_owned());
    let before = There::new(changed().job, Some(1));
    let mut after = changed();
    let spec = after.job.spec.clone();
    let deployed = after.deployed_mut();
    (deployed.number, deployed.hash, deployed.spec) = (2, build::deployment_hash(&spec), spec);
    let after = There::new(after.job, Some(2));
    let writes = written(before.clone(), before.clone()).await;
    assert_eq!(deletions(&writes), 2, "without a lag what is deployed is stopped: {writes:?}");
    let writes = written(before, after).await;
    assert_eq!(deletions(&writes), 0, "what is there now is what is wanted: {writes:?}");
    assert_eq!(deployments(&writes), [(true, 2)]);
}
