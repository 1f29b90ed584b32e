//! One program, three roles: what `execute` does in a local run, in a jobmanager and in a taskmanager.

use std::{net::SocketAddr, sync::Arc};

use millrace_core::{
    Error, Result,
    ids::JobId,
    rest::{JobProgram, JobStatus},
};
use millrace_runtime::{graph::JobGraph, scheduler::JobResult, task::TaskManagerLocation};
use millrace_state::{
    BackendRegistry, SnapshotTarget,
    log::{Claim, JobLog},
    storage::RetryPolicy,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};

use crate::{
    announce::{Announcement, JobEnd},
    config::{Configuration, Role, Settings, options},
    fingerprint,
    jobmanager::{self, Admission, JobManagerSetup, JobOutcome},
    logging, metrics_server,
    rest::{self, JobCommand, JobView, RestState},
    rpc::{Connection, Fingerprint, JobSettings, new_taskmanager_id},
    stores,
    taskmanager::{self, Connect, TaskManagerSetup},
};

/// A job, ready to run in whatever role this process has.
struct Program {
    graph: Arc<JobGraph>,
    config: Configuration,
    settings: Settings,
    backends: BackendRegistry,
    fingerprint: Fingerprint,
    metrics: prometheus::Registry,
}

/// Runs a job to its end in the role that the configuration gives this process. In a taskmanager it never returns: the
/// process ends with the job. A job that fails is an error.
pub fn execute(graph: JobGraph, config: Configuration, backends: BackendRegistry) -> Result<JobResult> {
    let settings = config.settings()?;
    logging::init(&settings.log)?;
    check(&graph, &settings, &backends)?;
    let program = Program {
        fingerprint: fingerprint::of_process(&graph)?,
        graph: Arc::new(graph),
        config,
        settings,
        backends,
        metrics: prometheus::Registry::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("millrace-io")
        .build()
        .map_err(|error| Error::external(format!("can't start the runtime's threads: {error}")))?;
    let result = match program.settings.role {
        Role::Local => runtime.block_on(program.run_local()),
        Role::JobManager => runtime.block_on(program.run_jobmanager()),
        Role::TaskManager => {
            let ended = runtime.block_on(program.run_taskmanager());
            std::process::exit(match ended {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!("the taskmanager ends: {error}");
                    eprintln!("{error}");
                    1
                }
            })
        }
    };
    // A thread that blocks in somebody's library must not keep the process alive.
    runtime.shutdown_background();
    match result? {
        JobResult::Failed(error) => Err(error),
        result => Ok(result),
    }
}

/// What can be refused before anything starts.
fn check(graph: &JobGraph, settings: &Settings, backends: &BackendRegistry) -> Result<()> {
    for vertex in &graph.vertices {
        millrace_core::key::check_parallelism(vertex.parallelism, graph.max_parallelism)
            .map_err(|error| error.context(format!("operator {:?}", vertex.name)))?;
    }
    let backend = backends.get(&settings.state_backend)?;
    let needs_files = matches!(backend.snapshot_target(), SnapshotTarget::Files);
    if needs_files && settings.checkpoint.is_enabled() && settings.checkpoint_dir.is_none() {
        return Err(Error::invalid(format!(
            "state backend {:?} writes its checkpoints to files, and no directory is set: set state.checkpoints.dir \
             (file:///… or s3://…), or use state.backend: memory",
            settings.state_backend
        )));
    }
    Ok(())
}

impl Program {
    async fn run_local(self) -> Result<JobResult> {
        let (connect, door) = mpsc::unbounded_channel();
        let taskmanager = self.taskmanager(LocalConnect(connect))?;
        let (done, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _ = done.send(taskmanager.await);
        });
        let job = self.jobmanager(Door::Local(door));
        tokio::pin!(job);
        tokio::select! {
            result = &mut job => result,
            Ok(Err(error)) = ended => Err(error),
        }
    }

    async fn run_jobmanager(self) -> Result<JobResult> {
        let settings = &self.settings.jobmanager;
        let (listener, address) =
            rest::listen("jobmanager.bind-host", &settings.bind_host, "jobmanager.rpc.port", settings.rpc_port).await?;
        self.jobmanager(Door::Network(listener, address)).await
    }

    async fn run_taskmanager(self) -> Result<()> {
        let settings = &self.settings.jobmanager;
        let target = format!("{}:{}", settings.rpc_address, settings.rpc_port);
        if let Some(port) = self.settings.metrics_port {
            let host = &self.settings.taskmanager.bind_host;
            let (listener, address) = metrics_server::bind(host, port).await?;
            tracing::info!(%address, "metrics");
            tokio::spawn(metrics_server::serve(listener, self.metrics.clone(), std::future::pending()));
        }
        self.taskmanager(TcpConnect(target))?.await
    }

    /// The taskmanager of this process, its data port bound.
    fn taskmanager(
        &self,
        connect: impl Connect + 'static,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let settings = &self.settings.taskmanager;
        let cannot = |error: std::io::Error| {
            Error::invalid(format!(
                "taskmanager.data.port {} on {} can't be used: {error}; choose another port (0: any)",
                settings.data_port, settings.bind_host
            ))
        };
        let port = std::net::TcpListener::bind((settings.bind_host.as_str(), settings.data_port)).map_err(cannot)?;
        port.set_nonblocking(true).map_err(cannot)?;
        let data_address = format!("{}:{}", settings.host, port.local_addr().map_err(cannot)?.port());
        let mut own = self.settings.clone();
        if own.role == Role::Local {
            own.taskmanager.slots = own.taskmanager.slots.max(self.graph.slots_needed());
        }
        let setup = TaskManagerSetup {
            graph: Arc::clone(&self.graph),
            settings: own,
            backends: self.backends.clone(),
            location: TaskManagerLocation { id: new_taskmanager_id(), data_address },
            fingerprint: self.fingerprint.clone(),
            metrics: self.metrics.clone(),
        };
        Ok(taskmanager::run(setup, port, connect))
    }

    async fn jobmanager(&self, door: Door) -> Result<JobResult> {
        let settings = &self.settings;
        let job = settings.job_id.unwrap_or_else(|| JobId(uuid::Uuid::new_v4().as_u128()));
        let storage = stores::open(settings.checkpoint_dir.as_deref(), settings)?;
        storage.probe().await?;
        let mut log = JobLog::open(&storage, job, RetryPolicy::default());
        let generation = match log.claim(&format!("process {}", std::process::id())).await? {
            Claim::Leader(generation) => generation,
            Claim::Ended(record) => {
                tracing::info!(%job, "the job has ended already; it is not run again");
                return Ok(jobmanager::recorded(&record));
            }
        };
        tracing::info!(%job, %generation, name = self.graph.name, restart_strategy = settings.restart_strategy.name(), "jobmanager");
        let admission = Arc::new(Admission {
            job,
            generation,
            fingerprint: self.fingerprint.clone(),
            token: settings.security_token.as_ref().map_or_else(String::new, |token| token.0.clone()),
            settings: JobSettings {
                state_backend: settings.state_backend.clone(),
                checkpoint_dir: settings.checkpoint_dir.clone(),
            },
        });
        let (peers_in, peers) = mpsc::unbounded_channel();
        let (commands_in, commands) = mpsc::channel(16);
        let (view, watched) = watch::channel(Arc::new(JobView::new(job, self.graph.name.clone(), 0)));
        let rpc_address = match door {
            Door::Network(listener, address) => {
                tokio::spawn(jobmanager::listen(listener, admission, peers_in));
                Some(address)
            }
            Door::Local(door) => {
                tokio::spawn(serve_local(door, admission, peers_in));
                None
            }
        };
        let served = self.serve_rest(job, rpc_address, watched, commands_in).await?;
        let setup = JobManagerSetup {
            graph: Arc::clone(&self.graph),
            settings: settings.clone(),
            job,
            generation,
            storage,
            log,
            peers,
            commands,
            view,
        };
        let outcome = jobmanager::run(setup).await;
        if let Some(served) = served {
            served.end(job_end(&outcome)).await;
        }
        outcome.map(|outcome| outcome.result)
    }
}

/// What the announcement says of a job that has ended, or whose jobmanager has.
fn job_end(outcome: &Result<JobOutcome>) -> JobEnd {
    match outcome {
        Ok(JobOutcome { result, retained_checkpoint }) => JobEnd {
            state: result.status(),
            error: match result {
                JobResult::Failed(error) => Some(error.message.clone()),
                _ => None,
            },
            retained_checkpoint: retained_checkpoint.clone(),
        },
        Err(error) => {
            JobEnd { state: JobStatus::Suspended, error: Some(error.message.clone()), retained_checkpoint: None }
        }
    }
}

/// How taskmanagers come in.
enum Door {
    Network(TcpListener, SocketAddr),
    Local(mpsc::UnboundedReceiver<Connection>),
}

async fn serve_local(
    mut door: mpsc::UnboundedReceiver<Connection>,
    admission: Arc<Admission>,
    events: mpsc::UnboundedSender<jobmanager::PeerEvent>,
) {
    while let Some(connection) = door.recv().await {
        let (admission, events) = (Arc::clone(&admission), events.clone());
        tokio::spawn(jobmanager::serve(connection, admission, events));
    }
}

/// A pipe to the jobmanager of the same process.
struct LocalConnect(mpsc::UnboundedSender<Connection>);

impl Connect for LocalConnect {
    async fn connect(&mut self) -> Result<Connection> {
        let (near, far) = tokio::io::duplex(1 << 20);
        self.0.send(Connection::new(far)).map_err(|_| Error::internal("the jobmanager has ended"))?;
        Ok(Connection::new(near))
    }

    fn target(&self) -> String {
        "this process".to_string()
    }
}

/// A TCP connection to the jobmanager's address.
struct TcpConnect(String);

impl Connect for TcpConnect {
    async fn connect(&mut self) -> Result<Connection> {
        let cannot = |error: std::io::Error| Error::external(format!("can't connect: {error}"));
        let stream = TcpStream::connect(&self.0).await.map_err(cannot)?;
        stream.set_nodelay(true).map_err(cannot)?;
        Ok(Connection::new(stream))
    }

    fn target(&self) -> String {
        self.0.clone()
    }
}

/// The REST server and the announcement, for as long as the job runs.
struct Served {
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<()>>,
    announcement: Option<(Announcement, std::path::PathBuf)>,
}

impl Served {
    /// Ends both, noting how the job ended.
    async fn end(self, end: JobEnd) {
        if let Some((mut announcement, directory)) = self.announcement
            && let Err(error) = announcement.write_end(&directory, end)
        {
            tracing::warn!(%error, "the job's end can't be announced");
        }
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}

impl Program {
    /// Serves REST and announces the jobmanager. A local run does so only where a port is set.
    async fn serve_rest(
        &self,
        job: JobId,
        rpc_address: Option<SocketAddr>,
        view: watch::Receiver<Arc<JobView>>,
        commands: mpsc::Sender<JobCommand>,
    ) -> Result<Option<Served>> {
        if rpc_address.is_none() && !self.config.is_set(&options::REST_PORT) {
            return Ok(None);
        }
        let settings = &self.settings;
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
                let mut announcement = announcement;
                announcement.log_dir = settings.log_directory.clone();
                announcement.write(directory)?;
                Some((announcement, directory.clone()))
            }
            None => None,
        };
        Ok(Some(Served { stop, server, announcement }))
    }
}
