//! `/metrics` and `/health` on `metrics.port`.

use std::net::SocketAddr;

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use millrace_core::{Result, rest::Health};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::rest::{listen, metrics_text, serve_router};

/// Takes `metrics.port` on a host, which comes with the setting that it is from.
pub async fn bind((host_key, host): (&str, &str), port: u16) -> Result<(TcpListener, SocketAddr)> {
    listen(host_key, host, "metrics.port", port).await
}

/// Both paths.
pub fn router(registry: Registry) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(registry)
}

/// Answers requests until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    serve_router("metrics", listener, router(registry), shutdown).await
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    metrics_text(&registry).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.message))
}

async fn health() -> impl IntoResponse {
    Json(Health { status: "ok".to_string() })
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn metrics_are_in_the_format_that_prometheus_reads() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("millrace_taskmanager_numRecordsIn", "Records.").unwrap();
        counter.inc_by(7);
        registry.register(Box::new(counter)).unwrap();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = router(registry).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(String::from_utf8(body.to_vec()).unwrap().contains("\nmillrace_taskmanager_numRecordsIn 7\n"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let (_holder, address) = bind(("taskmanager.bind-host", "127.0.0.1"), 0).await.unwrap();
        let error = bind(("taskmanager.bind-host", "127.0.0.1"), address.port()).await.unwrap_err();
        let meant = format!("metrics.port {} on 127.0.0.1 is in use", address.port());
        assert!(error.message.starts_with(&meant), "{error}");
        assert!(!error.retryable);
    }
}
