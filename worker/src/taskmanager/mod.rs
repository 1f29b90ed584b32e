//! The taskmanager: offers slots to a jobmanager, runs the tasks it is given, and passes on what they tell.

mod running;
mod session;
mod tasks;

use std::{sync::Arc, time::Duration};

use millrace_core::{Error, Result, clock::Clock};
use millrace_runtime::{graph::JobGraph, task::TaskManagerLocation};
use millrace_state::{BackendRegistry, memory::MemoryGuard};
use tokio::{sync::watch, time::Instant};

use crate::{
    config::Settings,
    process_metrics::ProcessProbe,
    rpc::{Connection, Fingerprint, Hello, Welcome},
};
use session::{End, Session};
use tasks::Tasks;

/// How long to wait before trying again to reach the jobmanager.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// A jobmanager that accepts a connection and does not answer for this long counts as absent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a taskmanager is made of.
pub struct TaskManagerSetup {
    /// The program's graph.
    pub graph: Arc<JobGraph>,
    /// Its settings.
    pub settings: Settings,
    /// The state backends it knows.
    pub backends: BackendRegistry,
    /// Who and where this is; the data port is bound.
    pub location: TaskManagerLocation,
    /// Its name for people.
    pub resource_id: String,
    /// The program's fingerprint.
    pub fingerprint: Fingerprint,
    /// The process's metrics.
    pub metrics: prometheus::Registry,
    /// The time that its tasks go by.
    pub clock: Clock,
    /// Tells tasks when the process takes too much memory.
    pub memory: Arc<MemoryGuard>,
    /// Tells what the process takes.
    pub probe: ProcessProbe,
    /// Runs what tasks wait for: the network between them and the store. What this taskmanager says to its jobmanager
    /// must not wait behind that, and runs wherever [`run`] is called.
    pub io: tokio::runtime::Handle,
    /// Becomes true when this process is told to end.
    pub leaving: watch::Receiver<bool>,
}

/// Why a taskmanager ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its job has ended.
    WithItsJob,
    /// It was told to, and its tasks were handed over, or there was nobody to hand them over to.
    Told,
}

/// How a taskmanager reaches its jobmanager: over TCP, or by a pipe inside one process.
pub trait Connect: Send {
    /// Tries once.
    fn connect(&mut self) -> impl Future<Output = Result<Connection>> + Send;
    /// Where it tries, for messages.
    fn target(&self) -> String;
}

/// Runs until the jobmanager says that the job has ended, or this process is told to end. An error is final: the jobmanager refused this process, or
/// could not be reached for too long.
pub async fn run(
    setup: TaskManagerSetup,
    data_port: std::net::TcpListener,
    mut connect: impl Connect,
) -> Result<Ended> {
    let mut tasks = Tasks::new(&setup, data_port);
    let mut job = setup.settings.job_id;
    let mut turned_away = false;
    loop {
        let Some(mut connection) = reach(&setup, &mut connect, &mut tasks).await? else { return Ok(Ended::Told) };
        if tasks.are_ending() {
            tasks.until_all_ended().await;
        }
        // A new jobmanager may go on with them.
        let running = tasks.any();
        let hello = Hello::new(
            job,
            setup.location.clone(),
            setup.resource_id.clone(),
            setup.settings.taskmanager.slots,
            running,
            setup.fingerprint.clone(),
            setup.settings.security_token.as_ref().map_or_else(String::new, |token| token.0.clone()),
        );
        let welcome = match tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange_hello(&mut connection, &hello)).await {
            Ok(Ok(welcome)) => welcome,
            // It went away, or stands still: another may answer at its address.
            Ok(Err(_)) | Err(_) => {
                if !std::mem::replace(&mut turned_away, true) {
                    tracing::info!(jobmanager = connect.target(), "waiting until the jobmanager has its job");
                }
                tasks.discard_events_for(RECONNECT_PAUSE).await;
                continue;
            }
        };
        let (accepted, generation, settings) = match welcome {
            Welcome::Accepted { job, generation, settings } => (job, generation, settings),
            Welcome::Rejected(error) => return Err(error.context("the jobmanager refused this taskmanager")),
        };
        tracing::info!(job = %accepted, %generation, jobmanager = connect.target(), "registered");
        job = Some(accepted);
        turned_away = false;
        tasks.belong_to(accepted, generation, &settings)?;
        let session = Session::new(connection.split(generation), &setup.settings, setup.leaving.clone());
        match session.run(&mut tasks, running).await {
            End::ComeAnew => {
                tasks.cancel_all("the jobmanager does not go on with them");
                tasks.until_all_ended().await;
            }
            End::Shutdown => {
                tasks.cancel_all("the job has ended");
                tasks.until_all_ended().await;
                return Ok(Ended::WithItsJob);
            }
            End::Released => return Ok(Ended::Told),
            End::Lost(error) => tracing::warn!(%error, "lost the jobmanager; tasks go on while it is looked for"),
        }
    }
}

/// Connects, trying again until it works, or this process is told to end. Tasks go on meanwhile, for a limited time.
async fn reach(
    setup: &TaskManagerSetup,
    connect: &mut impl Connect,
    tasks: &mut Tasks<'_>,
) -> Result<Option<Connection>> {
    let timeouts = &setup.settings.taskmanager;
    let started = Instant::now();
    let mut said = false;
    loop {
        if *setup.leaving.borrow() {
            return Ok(None);
        }
        let error = match connect.connect().await {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => error,
        };
        if !said {
            tracing::info!(jobmanager = connect.target(), %error, "waiting for the jobmanager");
            said = true;
        }
        if started.elapsed() > timeouts.registration_timeout {
            return Err(Error::external(format!(
                "no jobmanager at {} within {:?}: {error}; check jobmanager.rpc.address and jobmanager.rpc.port",
                connect.target(),
                timeouts.registration_timeout
            )));
        }
        if started.elapsed() > timeouts.jobmanager_loss_timeout {
            tasks.cancel_all("the jobmanager did not come back");
        }
        tasks.discard_events_for(RECONNECT_PAUSE).await;
    }
}

async fn exchange_hello(connection: &mut Connection, hello: &Hello) -> Result<Welcome> {
    connection.send(hello).await?;
    connection.receive().await
}
