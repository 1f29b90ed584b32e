//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv6Addr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::Store;
use millrace_api::{Phase, StreamJob};
use tokio::net::TcpListener;

use crate::{
    decide::until,
    metrics::{InPhase, Metrics},
};

/// What the endpoints show.
#[derive(Clone)]
pub struct Health {
    metrics: Metrics,
    jobs: Arc<OnceLock<Vec<Store<StreamJob>>>>,
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Of an operator that has just started.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, jobs: Arc::default(), ready: Arc::default() }
    }

    /// Whether the operator is ready: it stands by, or leads and has read its jobs.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether the operator is ready.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The jobs that are counted by phase, once this replica leads.
    pub fn set_jobs(&self, jobs: Vec<Store<StreamJob>>) {
        let _ = self.jobs.set(jobs);
    }

    fn phases(&self, now: Timestamp) -> BTreeMap<&'static str, InPhase> {
        let mut phases = BTreeMap::<_, InPhase>::new();
        for job in self.jobs.get().into_iter().flatten().flat_map(Store::state) {
            let status = job.status.as_ref();
            // Before the operator has written a status, it is there since it was created.
            let phase = status.and_then(|status| status.phase).unwrap_or(Phase::Created);
            let since = status.and_then(|status| status.phase_since.as_ref());
            let since = since.or(job.metadata.creation_timestamp.as_ref());
            let found = phases.entry(phase.as_str()).or_default();
            found.jobs += 1;
            found.oldest = found.oldest.max(since.map_or(Duration::ZERO, |since| until(now, since.0)));
        }
        phases
    }
}

/// The endpoints of the health port.
pub fn health_router(health: Health) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(readyz)).with_state(health)
}

/// The endpoint of the metrics port.
pub fn metrics_router(health: Health) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(health)
}

/// Takes a port, on all addresses.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("port {port}: {error}"));
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A host without IPv6.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.map_err(named),
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    if health.is_ready() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the jobs have not been read yet").into_response()
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.render(&health.phases(Timestamp::now())) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::{reflector, watcher::Event};
    use tower::ServiceExt;

    use super::*;
    use crate::fixture;

    async fn answer(router: Router, path: &str) -> (StatusCode, String) {
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_is_ready_when_it_says_so_and_healthy_always() {
        let health = Health::new(Metrics::new().unwrap());
        assert_eq!(answer(health_router(health.clone()), "/healthz").await.0, StatusCode::OK);
        assert_eq!(answer(health_router(health.clone()), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        health.set_ready(true);
        assert_eq!(answer(health_router(health), "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn jobs_are_counted_by_phase() {
        let health = Health::new(Metrics::new().unwrap());
        let (store, mut writer) = reflector::store();
        let mut other = fixture::created().job;
        other.metadata.name = Some("other".to_owned());
        for job in [fixture::running().job, other] {
            writer.apply_watcher_event(&Event::Apply(job));
        }
        health.set_jobs(vec![store]);
        let (status, text) = answer(metrics_router(health), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("millrace_operator_jobs{phase=\"Running\"} 1"), "{text}");
        assert!(text.contains("millrace_operator_jobs{phase=\"Created\"} 1"), "{text}");
    }

    #[test]
    fn a_job_that_hangs_in_a_phase_shows_while_it_does() {
        let health = Health::new(Metrics::new().unwrap());
        let (store, mut writer) = reflector::store();
        for (index, seconds) in [30, 400, 5].into_iter().enumerate() {
            let mut job = fixture::starting().job;
            job.metadata.name = Some(format!("job-{index}"));
            job.status.as_mut().unwrap().phase_since = Some(Time(fixture::ago(seconds)));
            writer.apply_watcher_event(&Event::Apply(job));
        }
        let mut unseen = fixture::created().job;
        unseen.metadata.creation_timestamp = Some(Time(fixture::ago(7)));
        writer.apply_watcher_event(&Event::Apply(unseen));
        health.set_jobs(vec![store]);
        let phases = health.phases(fixture::now());
        let seconds = Duration::from_secs;
        assert_eq!(phases["Deploying"], InPhase { jobs: 3, oldest: seconds(400) });
        assert_eq!(phases["Created"], InPhase { jobs: 1, oldest: seconds(7) });
        assert_eq!(phases.len(), 2);
    }
}
