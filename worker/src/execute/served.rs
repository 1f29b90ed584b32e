//! What a jobmanager shows of itself: the REST server, the metrics port and the announcement.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use millrace_core::{Result, ids::JobId, rest::JobProgram};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::Program;
use crate::{
    announce::{Announcement, JobEnd},
    config::options,
    metrics_server,
    rest::{self, JobCommand, JobView, RestState},
};

/// The servers and the announcement, for as long as the jobmanager lives.
pub struct Served {
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<()>>,
    announcement: Option<(Announcement, PathBuf)>,
}

impl Served {
    /// Notes how the job ended.
    pub fn note_end(&mut self, end: JobEnd) {
        if let Some((announcement, directory)) = &mut self.announcement
            && let Err(error) = announcement.write_end(directory, end)
        {
            tracing::warn!(%error, "the job's end can't be announced");
        }
    }

    /// Ends the server; requests that are under way are answered still.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}

impl Program {
    /// Serves REST and metrics and announces the jobmanager. A local run does each only where its port is set.
    pub(super) async fn serve(
        &self,
        job: JobId,
        rpc_address: Option<SocketAddr>,
        view: watch::Receiver<Arc<JobView>>,
        commands: mpsc::Sender<JobCommand>,
    ) -> Result<Option<Served>> {
        let settings = &self.settings;
        if let Some(port) = settings.metrics_port {
            let host = ("jobmanager.bind-host", settings.jobmanager.bind_host.as_str());
            self.serve_metrics(host, port).await?;
        }
        if rpc_address.is_none() && !self.config.is_set(&options::REST_PORT) {
            return Ok(None);
        }
        let rpc_port = rpc_address.map_or(0, |address| address.port());
        let rpc_address = format!("{}:{rpc_port}", settings.jobmanager.rpc_address);
        let (listener, address) = rest::bind(&settings.rest).await?;
        rest::job_metrics(&self.metrics, view.clone())?;
        let rest_address = format!("{}:{}", settings.rest.address, address.port());
        tracing::info!(%rest_address, %rpc_address, "the jobmanager listens");
        let announcement = Announcement::of_this_process(job, &self.graph.name, rpc_address.clone(), rest_address)?;
        let state = RestState {
            view,
            commands,
            settings: Arc::new(rest::shown_settings(self.config.entries())),
            program: Arc::new(JobProgram {
                jid: job,
                program: announcement.program.display().to_string(),
                args: announcement.args.clone(),
                working_directory: announcement.working_directory.display().to_string(),
                rpc_address,
            }),
            registry: self.metrics.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(rest::serve(listener, state, async {
            let _ = stopped.await;
        }));
        let announcement = match &settings.cluster_directory {
            Some(directory) => {
                let announcement = Announcement { log_dir: settings.log_directory.clone(), ..announcement };
                announcement.write(directory)?;
                Some((announcement, directory.clone()))
            }
            None => None,
        };
        Ok(Some(Served { stop, server, announcement }))
    }

    /// Serves `/metrics` and `/health` for as long as the process lives; `host` with the setting that it comes from.
    pub(super) async fn serve_metrics(&self, host: (&str, &str), port: u16) -> Result<()> {
        let (listener, address) = metrics_server::bind(host, port).await?;
        tracing::info!(%address, "metrics");
        tokio::spawn(metrics_server::serve(listener, self.metrics.clone(), std::future::pending()));
        Ok(())
    }
}
