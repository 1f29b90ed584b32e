//! The jobmanager's REST server: what its job is doing, with Flink's paths and field names where the thing is the same,
//! and the way to cancel and stop it.

mod answers;
mod handlers;
mod metrics;
pub mod openapi;
mod routes;
mod view;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use millrace_core::{
    Error, Result,
    rest::{JobProgram, Setting},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

pub(crate) use handlers::metrics_text;
pub use metrics::{described as described_metrics, job_metrics};
pub use view::{EdgeView, JobView, SubtaskView, VertexView, exception_entry};

use crate::config::{ConfigEntry, RestSettings};

/// How long requests that are under way may take when the server ends.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// What a client asks of the job. The answer says whether it was taken up, not that it is done.
#[derive(Debug)]
pub enum JobCommand {
    /// End the job.
    Cancel(oneshot::Sender<Result<()>>),
    /// End the job with a final checkpoint, which is kept.
    Stop(oneshot::Sender<Result<()>>),
    /// End the job, if it has not ended, and delete all that the store has of it.
    Delete(oneshot::Sender<Result<()>>),
}

impl JobCommand {
    /// Says whether it was taken up.
    pub fn answer(self, answer: Result<()>) {
        let (Self::Cancel(reply) | Self::Stop(reply) | Self::Delete(reply)) = self;
        // A client that does not wait any more has no use for it.
        let _ = reply.send(answer);
    }
}

/// What the handlers know.
#[derive(Clone)]
pub struct RestState {
    /// The job.
    pub view: watch::Receiver<Arc<JobView>>,
    /// The way to the job's main loop.
    pub commands: mpsc::Sender<JobCommand>,
    /// Every setting and its origin.
    pub settings: Arc<Vec<Setting>>,
    /// What the jobmanager runs.
    pub program: Arc<JobProgram>,
    /// The process's metrics.
    pub registry: prometheus::Registry,
}

/// The settings as REST shows them.
pub fn shown_settings(entries: Vec<ConfigEntry>) -> Vec<Setting> {
    let shown = |entry: ConfigEntry| Setting {
        key: entry.key.to_string(),
        value: entry.value,
        origin: entry.origin.to_string(),
    };
    entries.into_iter().map(shown).collect()
}

/// Method, path and summary of each route, for the documentation.
pub fn described_routes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    routes::routes().into_iter().map(|route| (route.method, route.path, route.summary))
}

/// All paths.
pub fn router(state: RestState) -> Router {
    let routes = routes::routes().into_iter();
    routes
        .fold(Router::new(), |router, route| router.route(route.path, route.handler))
        .fallback(handlers::unknown_path)
        .method_not_allowed_fallback(handlers::wrong_method)
        .with_state(state)
}

/// Takes the port. The address that is returned with the listener has the port that was free where 0 was asked for.
pub async fn bind(settings: &RestSettings) -> Result<(TcpListener, SocketAddr)> {
    listen("rest.bind-address", &settings.bind_address, "rest.port", settings.port).await
}

/// Listens on a host and port, with an error that names the settings that they come from.
pub(crate) async fn listen(host_key: &str, host: &str, port_key: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::invalid(format!(
            "{port_key} {port} on {host} is in use: end the process that has it, or choose another port (0: any)"
        )),
        _ => Error::invalid(format!("cannot listen on {host_key} {host}, {port_key} {port}: {error}")),
    };
    let listener = TcpListener::bind((host, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Answers requests until `shutdown` is done; requests under way are answered still.
pub async fn serve(
    listener: TcpListener,
    state: RestState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    serve_router("REST", listener, router(state), shutdown).await
}

/// Answers requests until `shutdown` is done. A client that is slow to end its request is not waited for long.
pub(crate) async fn serve_router(
    name: &str,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (tell, told) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = tell.send(());
    });
    let patience = async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SHUTDOWN_PATIENCE).await;
    };
    tokio::select! {
        served = server => served.map_err(|error| Error::internal(format!("{name} server failed: {error}"))),
        () = patience => Ok(()),
    }
}
