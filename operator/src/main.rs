//! `millrace-operator`: the process.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use kube::{Client, Config};
use millrace_operator::{
    build::REST_PORT,
    context::Context,
    controller::Scope,
    engine::EngineClient,
    leader::Elector,
    logging,
    memory::Memory,
    metrics::Metrics,
    server::{self, Health},
    settings::{Command, Settings},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How long reconciles that were begun may take when the process is to end.
const FAREWELL: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ran = logging::init(&settings).map_err(Failure::from).and_then(|()| runtime.map_err(Failure::from)).and_then(
        |runtime| match &settings.command {
            Some(Command::Check(check)) => runtime.block_on(check.run()).map_err(Failure::from),
            None => runtime.block_on(run(settings)),
        },
    );
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Failure> {
    let config = Config::infer().await?;
    let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config)?;
    let metrics = Metrics::new()?;
    let health = Health::new(metrics.clone());
    let health_port = server::listen(settings.health_port).await?;
    let metrics_port = server::listen(settings.metrics_port).await?;
    tokio::spawn(axum::serve(health_port, server::health_router(health.clone())).into_future());
    tokio::spawn(axum::serve(metrics_port, server::metrics_router(health.clone())).into_future());
    let mut end = ended_by_signal()?;

    let pod = settings.pod_name.clone().or_else(host_name).unwrap_or_else(|| "millrace-operator".to_owned());
    let mut elector = None;
    if settings.leader_election {
        let mut candidate = Elector::new(client.clone(), &namespace, &settings.lease_name, &pod);
        // Standing by is all that another replica has to be ready for.
        health.set_ready(true);
        tokio::select! {
            () = candidate.acquire() => health.set_ready(false),
            _ = end.changed() => return Ok(()),
        }
        elector = Some(candidate);
    }
    metrics.set_leader(true);
    let work = work(&settings, client, &namespace, pod, &metrics, &health, end.clone());
    let Some(mut elector) = elector else {
        work.await;
        return Ok(());
    };
    tokio::select! {
        () = work => {
            elector.release().await;
            Ok(())
        }
        lost = elector.hold() => Err(lost.into()),
    }
}

/// Reconciles until the process is to end.
async fn work(
    settings: &Settings,
    client: Client,
    namespace: &str,
    reporter: String,
    metrics: &Metrics,
    health: &Health,
    end: watch::Receiver<bool>,
) {
    let scopes = settings.scopes();
    tracing::info!(?scopes, "reconciling StreamJobs");
    let share = u16::try_from(scopes.len()).unwrap_or(u16::MAX);
    let concurrency = (settings.concurrency / share).max(1);
    let engine = EngineClient::new(REST_PORT as u16);
    let memory = Arc::new(Memory::default());
    let mut caches = Vec::new();
    let mut running = Vec::new();
    for namespace_watched in scopes {
        let scope = Scope::new(client.clone(), namespace_watched, Arc::clone(&memory));
        let context = Context {
            client: client.clone(),
            engine: engine.clone(),
            build: settings.build_context(namespace),
            reporter: reporter.clone(),
            poll_interval: settings.poll_interval,
            memory: Arc::clone(&memory),
            metrics: metrics.clone(),
            caches: scope.caches(),
        };
        caches.push(scope.caches());
        let mut end = end.clone();
        let ended = async move {
            let _ = end.wait_for(|end| *end).await;
        };
        running.push(scope.run(Arc::new(context), concurrency, ended));
    }
    health.set_jobs(caches.iter().map(|caches| caches.jobs.clone()).collect());
    let readiness = async {
        for caches in &caches {
            if caches.filled().await.is_err() {
                std::future::pending().await
            }
        }
        health.set_ready(true);
        std::future::pending().await
    };
    let reconciling = futures::future::join_all(running);
    let mut end = end;
    let farewell = async {
        let _ = end.wait_for(|end| *end).await;
        // Before the jobs were read nothing can have begun.
        if health.is_ready() {
            tokio::time::sleep(FAREWELL).await;
            tracing::warn!("reconciles have not ended within {FAREWELL:?}");
        }
    };
    tokio::select! {
        _ = reconciling => {}
        () = readiness => {}
        () = farewell => {}
    }
}

/// Becomes true when the process is asked to end.
fn ended_by_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        sender.send_replace(true);
        sender.closed().await;
    });
    Ok(receiver)
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
