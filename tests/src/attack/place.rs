//! What a campaign has of its own: a broker, an object store, disks, and topics.

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use millrace_testkit::{
    cluster::ClusterSpec,
    faults::{FakeClock, SmallDisk, StoreProxy, TcpProxy},
    services::{
        kafka::{KafkaBroker, KafkaClient},
        minio::Minio,
        postgres::PostgresServer,
    },
};

use super::{Backend, Fault, Job, Result, Target, output::Output, steps, table::Table};
use crate::process::restart_always;

/// Partitions of the input.
const PARTITIONS: i32 = 2;
/// The setting that says how many subtasks operators have.
pub const PARALLELISM: &str = "parallelism.default";
const BUCKET: &str = "attack";
/// The size of the small disk: enough for the state, and quickly filled.
const DISK_MB: usize = 96;
/// Topics.
pub const INPUT: &str = "attack-in";
const OUTPUT: &str = "attack-out";
/// The bucket of outputs.
const OUTPUT_BUCKET: &str = "attack-out";

/// Services that only the job under attack uses: they will be away.
pub struct Place {
    /// The broker.
    pub broker: Mutex<KafkaBroker>,
    /// Its client, which no fault hits.
    pub kafka: KafkaClient,
    /// What stands between it and the job.
    pub kafka_proxy: TcpProxy,
    /// What stands before the object store.
    pub store: StoreProxy,
    /// The database, if the job writes to one.
    pub postgres: Option<Mutex<PostgresServer>>,
    /// Where checkpoints or local state lie, if this process may mount it.
    pub disk: Option<SmallDisk>,
    backend: Backend,
    minio: Minio,
    files: tempfile::TempDir,
}

impl Place {
    /// Starts the services for a job on this backend that writes to this target.
    pub fn new(backend: Backend, target: Target) -> Result<Self> {
        let (broker, kafka_proxy) = KafkaBroker::start_with_proxy()?;
        broker.create_topic(INPUT, PARTITIONS)?;
        let minio = Minio::start()?;
        minio.create_bucket(BUCKET)?;
        minio.create_bucket(OUTPUT_BUCKET)?;
        let store = StoreProxy::start(minio.address())?;
        let disk = match backend {
            Backend::Memory => None,
            Backend::Filesystem | Backend::RocksDb if !SmallDisk::is_possible() => None,
            Backend::Filesystem | Backend::RocksDb => Some(SmallDisk::mount(DISK_MB)?),
        };
        let kafka = broker.client();
        let postgres = (target == Target::Postgres).then(PostgresServer::start).transpose()?.map(Mutex::new);
        let (broker, files) = (Mutex::new(broker), tempfile::tempdir()?);
        Ok(Self { broker, kafka, kafka_proxy, store, postgres, disk, backend, minio, files })
    }

    /// The kinds of fault that this machine has no means for, and why.
    pub fn impossible(&self) -> Vec<(Fault, &'static str)> {
        let mut not = Vec::new();
        if self.backend != Backend::Memory && self.disk.is_none() {
            not.push((Fault::DiskFull, "to mount a small disk takes root"));
        }
        if !matches!(self.clock("probe"), Ok(Some(_))) {
            not.push((Fault::JumpClock, "libfaketime is not installed"));
        }
        not
    }

    /// A clock for a process of this name.
    pub fn clock(&self, name: &str) -> Result<Option<FakeClock>> {
        Ok(FakeClock::new(&self.files.path().join(format!("{name}.clock")))?)
    }

    /// Where a run's outputs go. A topic has one partition, in which their order is one.
    pub fn output(&self, target: Target, run: &str) -> Result<Output> {
        let name = format!("{OUTPUT}-{run}");
        Ok(match target {
            Target::Kafka => {
                self.kafka.create_topic(&name, 1)?;
                Output::Topic(self.kafka.clone(), name)
            }
            Target::Files => Output::Directory(self.files.path().join(name)),
            Target::S3 => Output::Bucket((*self.minio).clone(), OUTPUT_BUCKET, name),
            Target::Postgres => {
                let server = self.postgres.as_ref().ok_or("there is no database")?;
                let url = server.lock().unwrap_or_else(PoisonError::into_inner).url();
                Output::Table(Table::create(url, name)?)
            }
        })
    }

    /// What lies where a job has written, and nobody will ever see.
    pub fn left_over(&self, output: &Output) -> Result<Vec<String>> {
        let mut left = output.invisible()?;
        if matches!(output, Output::Bucket(..)) {
            // One that was begun when its process was killed, and has no marker yet, has no parts either.
            let with_parts = self.minio.open_uploads_with_parts()?;
            println!("{} uploads without bytes are open", self.minio.open_uploads()?.len() - with_parts.len());
            left.extend(with_parts);
        }
        Ok(left)
    }

    /// The job, as processes, for a run with checkpoints of its own.
    pub fn spec(&self, job: &Job, run: &str, output: &Output) -> ClusterSpec {
        let kafka = self.kafka_proxy.address().to_string();
        let args = job.args(&kafka, &format!("attack-{run}"), INPUT, &output.argument());
        let checkpoints = match self.backend {
            Backend::Memory | Backend::RocksDb => format!("s3://{BUCKET}/{run}"),
            Backend::Filesystem => format!("file://{}/checkpoints-{run}", self.disk().display()),
        };
        let spec = restart_always(ClusterSpec::new(job.program.clone()))
            .args(args)
            .taskmanagers(0)
            .set("log.level", steps::LOG_LEVEL)
            .set(PARALLELISM, job.slots.to_string())
            .set("heartbeat.interval", "200 ms")
            .set("heartbeat.timeout", format!("{} ms", super::strike::HEARTBEAT_TIMEOUT.as_millis()))
            .set("state.backend", self.backend.name())
            .set("state.checkpoints.dir", checkpoints)
            .set("execution.checkpointing.interval", "300 ms")
            .set("execution.checkpointing.timeout", "10 s")
            // As if it were large: state lies in files of its own.
            .set("execution.checkpointing.data-inline-threshold", "0")
            .set("s3.endpoint", self.store.endpoint())
            .set("s3.access-key", self.minio.access_key())
            .set("s3.secret-key", self.minio.secret_key());
        let spec = match self.backend {
            Backend::Memory | Backend::Filesystem => spec,
            Backend::RocksDb => {
                spec.set("state.backend.rocksdb.memory.size", "16mb").set("execution.checkpointing.incremental", "true")
            }
        };
        let spec = match output {
            Output::Topic(..) | Output::Directory(_) | Output::Table(_) => spec,
            // The sink's own client, by the same proxy.
            Output::Bucket(..) => spec
                .env("AWS_ENDPOINT", self.store.endpoint())
                .env("AWS_ACCESS_KEY_ID", self.minio.access_key())
                .env("AWS_SECRET_ACCESS_KEY", self.minio.secret_key()),
        };
        job.config.iter().fold(spec, |spec, (key, value)| spec.set(key, value))
    }

    /// What a taskmanager needs beside that: a local directory of its own.
    pub fn local(&self, spec: ClusterSpec, name: &str) -> ClusterSpec {
        match self.backend {
            Backend::Memory | Backend::Filesystem => spec,
            Backend::RocksDb => {
                spec.set("state.backend.rocksdb.localdir", self.disk().join(name).display().to_string())
            }
        }
    }

    /// Removes the local directory of a taskmanager that is dead.
    pub fn remove_local(&self, name: &str) -> Result<()> {
        match fs::remove_dir_all(self.disk().join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn disk(&self) -> &Path {
        self.disk.as_ref().map_or(self.files.path(), SmallDisk::path)
    }
}
