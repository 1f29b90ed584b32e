//! Taskmanagers at the door: the handshake, and what they say afterwards, as events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace_core::{
    Error, Result,
    ids::{Generation, JobId, TaskManagerId},
};
use millrace_runtime::task::TaskManagerLocation;
use tokio::{
    net::TcpListener,
    sync::mpsc::UnboundedSender,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    config::HeartbeatSettings,
    rpc::{
        Connection, Fingerprint, FromTaskManager, Hello, JobSettings, Receiver, Sender, Silence, ToTaskManager,
        WeakSender, Welcome,
    },
};

/// A peer that does not introduce itself for this long is sent away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// Who is let in.
pub struct Admission {
    /// The job.
    pub job: JobId,
    /// This jobmanager's incarnation.
    pub generation: Generation,
    /// The program.
    pub fingerprint: Fingerprint,
    /// The cluster's shared secret; empty where none is set.
    pub token: String,
    /// What the jobmanager decides for all.
    pub settings: JobSettings,
    /// How taskmanagers are watched.
    pub heartbeat: HeartbeatSettings,
}

/// What happens at the door.
pub enum PeerEvent {
    /// A taskmanager belongs to the job now.
    Registered(Registered),
    /// It says something.
    Message(TaskManagerId, FromTaskManager),
    /// A connection of its is gone.
    Lost {
        /// Whose.
        id: TaskManagerId,
        /// Which.
        connection: u64,
        /// How that was noticed.
        error: Error,
        /// Since when it says nothing, or when its connection was found closed.
        since: Instant,
    },
}

/// A taskmanager that was let in.
pub struct Registered {
    /// Who and where it is.
    pub location: TaskManagerLocation,
    /// Its name for people, which it keeps when it is started again.
    pub resource_id: String,
    /// How many slots it offers.
    pub slots: u32,
    /// Its process.
    pub pid: u32,
    /// Whether it runs tasks, and will report them.
    pub running: bool,
    /// Its connection, unique in this process.
    pub connection: u64,
    /// The way to it.
    pub sender: Sender<ToTaskManager>,
}

/// Lets taskmanagers in, for ever.
pub async fn listen(listener: TcpListener, admission: Arc<Admission>, events: UnboundedSender<PeerEvent>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true);
                let peer = serve(Connection::new(stream), Arc::clone(&admission), events.clone());
                tokio::spawn(async move {
                    if let Err(error) = peer.await {
                        tracing::warn!(%address, %error, "refused a connection to the taskmanager port");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                // Out of file descriptors, most likely: others must be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one peer until its connection ends. An error is one of the handshake.
pub async fn serve(
    mut connection: Connection,
    admission: Arc<Admission>,
    events: UnboundedSender<PeerEvent>,
) -> Result<()> {
    let hello: Hello = tokio::time::timeout(HANDSHAKE_TIMEOUT, connection.receive())
        .await
        .map_err(|_| Error::external(format!("the peer did not introduce itself within {HANDSHAKE_TIMEOUT:?}")))??;
    if let Err(error) = hello.check(admission.job, &admission.fingerprint, &admission.token) {
        connection.send(&Welcome::Rejected(error.clone())).await?;
        return Err(error.context(format!("taskmanager {}", hello.location.id)));
    }
    let welcome = Welcome::Accepted {
        job: admission.job,
        generation: admission.generation,
        settings: admission.settings.clone(),
    };
    connection.send(&welcome).await?;
    let (sender, receiver) = connection.split(admission.generation);
    let heartbeats = Heartbeats { to: sender.downgrade(), settings: admission.heartbeat };
    let id = hello.location.id.clone();
    let connection = NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed);
    let Hello { location, resource_id, slots, pid, running, .. } = hello;
    let registered = Registered { location, resource_id, slots, pid, running, connection, sender };
    if events.send(PeerEvent::Registered(registered)).is_ok() {
        let (error, since) = forward(receiver, heartbeats, &id, &events).await;
        let _ = events.send(PeerEvent::Lost { id, connection, error, since });
    }
    Ok(())
}

/// What shows a taskmanager that this process is alive.
struct Heartbeats {
    to: WeakSender<ToTaskManager>,
    settings: HeartbeatSettings,
}

/// Passes on what a taskmanager says until it is gone or silent; returns how that was noticed, and since when it is so.
/// Beside it the taskmanager is shown that this process is alive.
async fn forward(
    mut receiver: Receiver<FromTaskManager>,
    heartbeats: Heartbeats,
    id: &TaskManagerId,
    events: &UnboundedSender<PeerEvent>,
) -> (Error, Instant) {
    let HeartbeatSettings { interval: period, timeout } = heartbeats.settings;
    let mut heartbeat = interval(period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silence = Silence::new(period, timeout);
    let mut looks = silence.looks();
    let closed = loop {
        let message = tokio::select! {
            message = receiver.next() => message,
            _ = heartbeat.tick() => match heartbeats.to.upgrade().map(|to| to.send(&ToTaskManager::Heartbeat)) {
                Some(Ok(())) => continue,
                Some(Err(error)) => break error.context(format!("taskmanager {id} can't be told anything")),
                // It must notice that too, and come again.
                None => break Error::external(format!("taskmanager {id} was given up")),
            },
            _ = looks.tick() => match silence.look() {
                None => continue,
                Some(silent) => {
                    let error = Error::external(format!("taskmanager {id} is silent for {silent:?}"));
                    let now = Instant::now();
                    return (error, now.checked_sub(silent).unwrap_or(now));
                }
            },
        };
        silence.heard();
        match message {
            Ok(Some(message)) => {
                if events.send(PeerEvent::Message(id.clone(), message)).is_err() {
                    break Error::internal("the jobmanager has ended");
                }
            }
            Ok(None) => break Error::external(format!("taskmanager {id} closed its connection")),
            Err(error) => break error.context(format!("taskmanager {id}")),
        }
    };
    (closed, Instant::now())
}
