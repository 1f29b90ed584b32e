//! A MinIO server: S3 with a real server's timing and errors.

mod authority;
mod client;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStoreExt, RetryConfig};

pub use authority::Authority;
use client::on_own_thread;
pub use client::{MinioClient, TemporaryKeys};

use super::ports::ReservedPort;
use super::process::ManagedProcess;
use super::workdir::WorkDir;
use super::{Result, installed, io_error};

const START_LIMIT: Duration = Duration::from_secs(60);
const ASK_LIMIT: Duration = Duration::from_secs(2);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A MinIO server on a port, with credentials and a data folder of its own. It is a [`MinioClient`] of itself.
#[derive(Debug)]
pub struct Minio {
    // Dropped in this order: the process ends before its folder goes.
    process: ManagedProcess,
    dir: WorkDir,
    settings: Settings,
}

/// What stays the same when the server is started again.
#[derive(Debug)]
struct Settings {
    program: PathBuf,
    address: SocketAddr,
    client: MinioClient,
    starts: u32,
}

impl Deref for Minio {
    type Target = MinioClient;

    fn deref(&self) -> &MinioClient {
        &self.settings.client
    }
}

impl Minio {
    /// Starts a server on a loopback port and waits until it is ready.
    pub fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another address of this machine, for clients that are not on it.
    pub fn start_on(host: IpAddr) -> Result<Self> {
        Self::start_at(host, None)
    }

    /// A server that speaks TLS, with a certificate of an authority of its own; returns that one's PEM file too.
    pub fn start_with_tls() -> Result<(Self, PathBuf)> {
        let authority = Authority::new("millrace-testkit");
        let server = Self::start_with_tls_on(Ipv4Addr::LOCALHOST.into(), &authority)?;
        let file = server.dir.path().join("authority.crt");
        fs::write(&file, authority.pem()).map_err(io_error(format!("writing {}", file.display())))?;
        Ok((server, file))
    }

    /// The same on another address, with a certificate of this authority's.
    pub fn start_with_tls_on(host: IpAddr, authority: &Authority) -> Result<Self> {
        Self::start_at(host, Some(authority))
    }

    fn start_at(host: IpAddr, authority: Option<&Authority>) -> Result<Self> {
        let program = installed("MinIO", "MILLRACE_MINIO_BIN", "minio/minio", "scripts/fetch-minio.sh")?;
        let dir = WorkDir::new("minio")?;
        if let Some(authority) = authority {
            authority.certify(host, &dir.path().join("certs"))?;
        }
        let scheme = if authority.is_some() { "https" } else { "http" };
        let reserved = ReservedPort::on(host);
        let address = SocketAddr::new(host, reserved.port());
        let client = MinioClient {
            endpoint: format!("{scheme}://{address}"),
            access_key: format!("access-{}", random()),
            secret_key: format!("secret-{}", random()),
            authority: authority.map(Authority::pem),
        };
        let mut settings = Settings { program, address, client, starts: 0 };
        reserved.release();
        let process = settings.launch(&dir)?;
        Ok(Self { process, dir, settings })
    }

    /// The server that the tests of this process share. It ends with the
    /// process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Minio> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap_or_else(|error| panic!("{error}")))
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.settings.address
    }

    /// Makes a bucket. With one drive, a folder on it is a bucket.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        fs::create_dir(self.dir.path().join("data").join(name)).map_err(io_error(format!("creating bucket {name}")))
    }

    /// The multipart uploads that are neither completed nor aborted. The server lists them for whole object names only, so
    /// this looks where it keeps them.
    pub fn open_uploads(&self) -> Result<Vec<String>> {
        let entries = |path: &std::path::Path| -> io::Result<Vec<PathBuf>> {
            match fs::read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                entries => entries?.map(|entry| Ok(entry?.path())).collect(),
            }
        };
        let list = || -> io::Result<Vec<String>> {
            let mut uploads = Vec::new();
            for object in entries(&self.dir.path().join("data/.minio.sys/multipart"))? {
                uploads.extend(entries(&object)?.iter().map(|upload| upload.display().to_string()));
            }
            Ok(uploads)
        };
        list().map_err(io_error("listing open uploads"))
    }

    /// Those of them that hold bytes.
    pub fn open_uploads_with_parts(&self) -> Result<Vec<String>> {
        let holds_parts = |upload: &String| -> io::Result<bool> {
            let mut directories = vec![PathBuf::from(upload)];
            while let Some(directory) = directories.pop() {
                for entry in fs::read_dir(directory)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        directories.push(entry.path());
                    } else if entry.file_name().to_string_lossy().starts_with("part.") {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        };
        let mut held = Vec::new();
        for upload in self.open_uploads()? {
            if holds_parts(&upload).map_err(io_error("listing the parts of open uploads"))? {
                held.push(upload);
            }
        }
        Ok(held)
    }

    /// Ends the server with SIGTERM and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate()?;
        if self.process.wait_timeout(STOP_LIMIT)?.is_none() {
            self.process.kill()?;
        }
        Ok(())
    }

    /// Ends the server with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the server again, killing it first if it runs, on the same port
    /// and data, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.settings.launch(&self.dir)?;
        Ok(())
    }

    /// Stops the server from running (SIGSTOP): connections are taken by the
    /// kernel, requests are not answered.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause()
    }

    /// Lets a paused server run on.
    pub fn resume(&mut self) -> Result<()> {
        self.process.resume()
    }
}

impl Settings {
    fn launch(&mut self, dir: &WorkDir) -> Result<ManagedProcess> {
        self.starts += 1;
        let mut command = Command::new(&self.program);
        command
            .arg("server")
            .arg(dir.path().join("data"))
            .args(["--address", &self.address.to_string()])
            // else it makes a folder in the user's home
            .arg("--certs-dir")
            .arg(dir.path().join("certs"))
            .env("MINIO_ROOT_USER", self.client.access_key())
            .env("MINIO_ROOT_PASSWORD", self.client.secret_key())
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off");
        let mut process = ManagedProcess::spawn(&format!("minio-{}", self.starts), &command, dir.path())?;
        process.wait_until("readiness", START_LIMIT, |_| self.is_ready())?;
        Ok(process)
    }

    /// Whether a signed request gets its proper answer. MinIO's own readiness
    /// check answers 200 before that, while users are still being loaded.
    fn is_ready(&self) -> bool {
        let client = self
            .client
            .client("no-such-bucket")
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(self.client.options().with_timeout(ASK_LIMIT))
            .build()
            .expect("the settings are complete");
        let path = Path::from("no-such-object");
        let answer = on_own_thread(async move { client.get(&path).await });
        matches!(answer, Err(object_store::Error::NotFound { .. }))
    }
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
