//! The data plane between taskmanagers.
//!
//! One connection for each pair of taskmanagers and attempt, from producer to consumer, carries all their channels.
//! Credits keep every queue bounded: a channel starts with the room of the consumer's queue, each batch takes a credit,
//! and credits return as the consumer's task takes batches. Barriers take none, so that they are never held up; whatever
//! has credit lies in the consumer's queue before long, and nothing stays with the producer. What a task's thread waits
//! for is a condition variable; sockets belong to tokio.

mod client;
mod frame;
mod handshake;
mod io;
mod registry;
mod server;

pub use client::RemoteChannel;
pub use registry::{ChannelKey, GateChannel, Registration};

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use millrace_core::{
    Error, Result,
    ids::{Attempt, Generation, JobId, TaskManagerId},
};
use tokio::net::TcpListener;
use tokio_util::{codec::LengthDelimitedCodec, sync::CancellationToken};

use self::{client::Connection, frame::Frame, handshake::Hello, registry::Registry};
use crate::task::{TaskManagerLocation, gate::Gate};

/// What a taskmanager's data plane is told.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// The job.
    pub job: JobId,
    /// This process.
    pub taskmanager: TaskManagerId,
    /// What all processes of the job must show; empty without authentication.
    pub auth: Vec<u8>,
    /// The largest frame, in bytes. Batches that encode to more are split.
    pub max_frame_size: usize,
    /// How long connecting and the handshake may take.
    pub connect_timeout: Duration,
}

impl NetworkSettings {
    /// The defaults: frames up to 32 MiB, 10 s to connect, no authentication.
    pub fn new(job: JobId, taskmanager: TaskManagerId) -> Self {
        Self { job, taskmanager, auth: Vec::new(), max_frame_size: 32 << 20, connect_timeout: Duration::from_secs(10) }
    }

    fn codec(&self) -> LengthDelimitedCodec {
        LengthDelimitedCodec::builder().max_frame_length(self.max_frame_size).new_codec()
    }
}

/// Reads a frame as a peer may send it, and tells only whether it makes sense: for fuzzing.
pub fn check_frame(frame: Bytes) -> Result<()> {
    Frame::decode(frame).map(drop)
}

type ConnectionKey = (TaskManagerId, Generation, Attempt);

/// The data plane of one taskmanager.
pub struct NetworkEnvironment {
    settings: Arc<NetworkSettings>,
    address: SocketAddr,
    registry: Arc<Registry>,
    connections: Mutex<HashMap<ConnectionKey, Weak<Connection>>>,
    runtime: tokio::runtime::Handle,
    shutdown: CancellationToken,
}

impl NetworkEnvironment {
    /// Listens on `host:port` (port 0 picks a free one).
    pub async fn bind(address: &str, settings: NetworkSettings) -> Result<Arc<Self>> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::external(format!("the data port can't listen on {address}: {error}. Choose another port"))
        })?;
        Self::listen(listener, settings)
    }

    /// Takes over a port that is bound already. Must be called inside the runtime that carries the connections.
    pub fn serve(listener: std::net::TcpListener, settings: NetworkSettings) -> Result<Arc<Self>> {
        let failed = |error| Error::external(format!("the data port can't be used: {error}"));
        listener.set_nonblocking(true).map_err(failed)?;
        Self::listen(TcpListener::from_std(listener).map_err(failed)?, settings)
    }

    fn listen(listener: TcpListener, settings: NetworkSettings) -> Result<Arc<Self>> {
        let address = listener
            .local_addr()
            .map_err(|error| Error::external(format!("the data port's address is unknown: {error}")))?;
        let environment = Arc::new(Self {
            settings: Arc::new(settings),
            address,
            registry: Arc::default(),
            connections: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            shutdown: CancellationToken::new(),
        });
        let (settings, registry) = (Arc::clone(&environment.settings), Arc::clone(&environment.registry));
        environment.runtime.spawn(server::run(listener, settings, registry, environment.shutdown.clone()));
        Ok(environment)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// This process.
    pub fn taskmanager(&self) -> &TaskManagerId {
        &self.settings.taskmanager
    }

    /// Makes all channels of a gate reachable for producers, in this process and in others.
    pub fn register(&self, gate: &Arc<Gate>, generation: Generation, attempt: Attempt, consumer: u32) -> Registration {
        let key = |id: &crate::task::gate::ChannelId| ChannelKey {
            generation,
            attempt,
            edge: id.edge,
            producer: id.producer,
            consumer,
        };
        let keys: Vec<_> = gate.channels().iter().map(key).collect();
        for (index, key) in keys.iter().enumerate() {
            self.registry.insert(*key, GateChannel { gate: Arc::clone(gate), index });
        }
        Registration { registry: Arc::clone(&self.registry), keys }
    }

    /// A channel into a task of this process.
    pub fn local(&self, key: &ChannelKey) -> Result<GateChannel> {
        self.registry.get(key).ok_or_else(|| {
            Error::internal(format!(
                "subtask {} behind edge {} is not deployed for attempt {} of generation {}",
                key.consumer, key.edge, key.attempt, key.generation
            ))
        })
    }

    /// A channel into a task of another process. Returns at once: what goes wrong later, `owner` is told, and whoever
    /// sends. `owner` is the producer's own gate.
    pub fn connect(&self, to: &TaskManagerLocation, key: &ChannelKey, owner: &Arc<Gate>) -> Result<RemoteChannel> {
        let connection = self.connection(to, key.generation, key.attempt)?;
        client::open(connection, key, owner)
    }

    fn connection(
        &self,
        to: &TaskManagerLocation,
        generation: Generation,
        attempt: Attempt,
    ) -> Result<Arc<Connection>> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, connection| connection.strong_count() > 0);
        let key = (to.id.clone(), generation, attempt);
        if let Some(connection) = connections.get(&key).and_then(Weak::upgrade) {
            return Ok(connection);
        }
        let hello = Hello {
            job: self.settings.job,
            generation,
            attempt,
            from: self.settings.taskmanager.clone(),
            to: to.id.clone(),
            auth: self.settings.auth.clone(),
        };
        let (connection, run) = client::connect(to.clone(), hello, Arc::clone(&self.settings));
        let shutdown = self.shutdown.clone();
        self.runtime.spawn(async move { run.run(shutdown).await });
        connections.insert(key, Arc::downgrade(&connection));
        Ok(connection)
    }

    /// Ends the listener and all connections, as the end of the process would.
    pub fn shutdown(&self) {
        self.shutdown.cancel();
    }
}

impl Drop for NetworkEnvironment {
    fn drop(&mut self) {
        self.shutdown();
    }
}
