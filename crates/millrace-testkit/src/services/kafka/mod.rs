//! A Kafka broker, and the few client operations that tests need of it.

mod client;
mod follower;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::ports::{ReservedPort, free_port};
use super::process::ManagedProcess;
use super::workdir::WorkDir;
use super::{Result, installed, io_error, small_java};
use crate::faults::TcpProxy;

pub use client::{Isolation, KafkaClient, Message};
pub use follower::Follower;

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What the broker logs when it serves clients (`log4j2.yaml` lets it through).
const READY_LINE: &str = "Kafka Server started";

/// A broker that is its own controller, on ports and with a data folder of its
/// own. Topics are not created by being used. It is a [`KafkaClient`] of itself.
#[derive(Debug)]
pub struct KafkaBroker {
    // Dropped in this order: the process ends before its folder goes.
    process: ManagedProcess,
    dir: WorkDir,
    settings: Settings,
    client: KafkaClient,
}

impl Deref for KafkaBroker {
    type Target = KafkaClient;

    fn deref(&self) -> &KafkaClient {
        &self.client
    }
}

/// What stays the same when the broker is started again.
#[derive(Debug)]
struct Settings {
    home: PathBuf,
    address: SocketAddr,
    proxied: Option<ProxiedListener>,
    starts: u32,
}

/// A second listener, whose clients are told of the proxy before it only.
#[derive(Debug)]
struct ProxiedListener {
    address: SocketAddr,
    proxy: SocketAddr,
}

impl KafkaBroker {
    /// Starts a broker on loopback ports and waits until it serves clients.
    pub fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another address of this machine, for clients that are not on it.
    pub fn start_on(host: IpAddr) -> Result<Self> {
        Self::start_with(host, None)
    }

    /// A broker on loopback ports with a proxy before a second listener: who is given the proxy's address comes by it with each of its
    /// connections. [`bootstrap`](KafkaClient::bootstrap) leads past it.
    pub fn start_with_proxy() -> Result<(Self, TcpProxy)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let proxy = TcpProxy::start(address)?;
        let listener = ProxiedListener { address, proxy: proxy.address() };
        Ok((Self::start_with(Ipv4Addr::LOCALHOST.into(), Some(listener))?, proxy))
    }

    fn start_with(host: IpAddr, proxied: Option<ProxiedListener>) -> Result<Self> {
        let home = installed("Kafka", "MILLRACE_KAFKA_HOME", "kafka", "scripts/fetch-kafka.sh")?;
        let dir = WorkDir::new("kafka")?;
        let port = ReservedPort::on(host);
        let controller_port = ReservedPort::new();
        let address = SocketAddr::new(host, port.port());
        let mut settings = Settings { home, address, proxied, starts: 0 };
        settings.prepare(dir.path(), controller_port.port()).map_err(io_error("preparing a broker's folder"))?;
        port.release();
        controller_port.release();
        let process = settings.launch(&dir)?;
        Ok(Self { process, dir, settings, client: KafkaClient::new(&address.to_string()) })
    }

    /// The broker that the tests of this process share. It ends with the
    /// process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<KafkaBroker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap_or_else(|error| panic!("{error}")))
    }

    /// A client that outlives the broker's process.
    pub fn client(&self) -> KafkaClient {
        self.client.clone()
    }

    /// Shuts the broker down with SIGTERM and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate()?;
        if self.process.wait_timeout(STOP_LIMIT)?.is_none() {
            self.process.kill()?;
        }
        Ok(())
    }

    /// Ends the broker with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the broker again, killing it first if it runs, on the same port
    /// and data, and waits until it serves clients.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.settings.launch(&self.dir)?;
        Ok(())
    }
}

impl Settings {
    /// Lays out the folder: configuration and a formatted, empty data folder.
    fn prepare(&self, dir: &Path, controller_port: u16) -> std::io::Result<()> {
        let data = dir.join("data");
        fs::create_dir(&data)?;
        for entry in fs::read_dir(self.home.join("formatted"))? {
            let entry = entry?;
            fs::copy(entry.path(), data.join(entry.file_name()))?;
        }
        let mut properties = include_str!("../../../../../tests/services/kafka/server.properties")
            .replace("@ADDRESS@", &self.address.to_string())
            .replace("@CONTROLLER_PORT@", &controller_port.to_string())
            .replace("@DATA@", &data.display().to_string());
        properties.extend(self.proxied.iter().map(|proxied| proxied.properties(self.address, controller_port)));
        fs::write(dir.join("server.properties"), properties)?;
        fs::write(dir.join("log4j2.yaml"), include_str!("../../../../../tests/services/kafka/log4j2.yaml"))
    }

    fn launch(&mut self, dir: &WorkDir) -> Result<ManagedProcess> {
        self.starts += 1;
        let mut command = small_java();
        command
            .arg("-Dlog4j2.configurationFile=log4j2.yaml")
            .arg("-cp")
            .arg(self.home.join("libs/*"))
            .args(["kafka.Kafka", "server.properties"])
            .current_dir(dir.path());
        let mut process = ManagedProcess::spawn(&format!("kafka-{}", self.starts), &command, dir.path())?;
        process.wait_until("start", START_LIMIT, |process| process.stdout().contains(READY_LINE))?;
        Ok(process)
    }
}

impl ProxiedListener {
    /// The lines of a configuration in which there are two listeners for clients. Of a line that comes again Kafka takes
    /// the last; the file itself stays as it is, for its hash names the installation.
    fn properties(&self, direct: SocketAddr, controller_port: u16) -> String {
        let Self { address, proxy } = self;
        format!(
            "\nlisteners=PLAINTEXT://{direct},PROXIED://{address},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://{direct},PROXIED://{proxy}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT\n"
        )
    }
}
