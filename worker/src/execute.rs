//! One program, three roles: what `execute` does in a local run, in a jobmanager and in a taskmanager.

mod connect;
mod lead;
mod served;
mod signals;

use std::sync::Arc;

use millrace_core::{Error, Result, clock::Clock as TaskClock};
use millrace_runtime::{graph::JobGraph, scheduler::JobResult, task::TaskManagerLocation};
use millrace_state::{BackendRegistry, SnapshotTarget};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
};

use crate::{
    config::{Configuration, Role, Settings},
    fingerprint,
    jobmanager::Clock,
    logging,
    memory::{self, MachineMemory},
    process_metrics::{self, ProcessProbe},
    rest,
    rpc::{Fingerprint, new_taskmanager_id},
    taskmanager::{self, Connect, Ended, TaskManagerSetup},
};
use connect::{Door, LocalConnect, TcpConnect};

/// A job, ready to run in whatever role this process has.
struct Program {
    graph: Arc<JobGraph>,
    config: Configuration,
    settings: Settings,
    backends: BackendRegistry,
    fingerprint: Fingerprint,
    metrics: prometheus::Registry,
    clock: Clock,
    task_clock: TaskClock,
    /// Runs what waits: the network, the store.
    io: Handle,
    /// Runs what jobmanager and taskmanager say to each other, on a thread of its own: who waits there behind something
    /// else looks dead to others.
    control: Handle,
    /// Becomes true when this process, a taskmanager, is told to end.
    leaving: watch::Receiver<bool>,
}

/// Runs a job to its end in the role that the configuration gives this process. In a taskmanager it never returns: the
/// process ends with the job. A job that fails is an error. Tasks of this process go by `task_clock`.
pub fn execute(
    graph: JobGraph,
    config: Configuration,
    backends: BackendRegistry,
    task_clock: TaskClock,
) -> Result<JobResult> {
    let clock = Clock::start();
    let settings = config.settings()?;
    logging::init(&settings.log)?;
    let leaving = match settings.role {
        // A terminal's Ctrl-C ends it as any other program.
        Role::Local => watch::channel(false).1,
        Role::JobManager => {
            signals::end_on_signals("jobmanager")?;
            watch::channel(false).1
        }
        Role::TaskManager => signals::leave_on_signals(settings.taskmanager.drain_timeout)?,
    };
    check(&graph, &settings, &backends)?;
    let runtime = Builder::new_multi_thread().enable_all().thread_name("millrace-io").build().map_err(no_threads)?;
    let control = Builder::new_current_thread().enable_all().build().map_err(no_threads)?;
    let program = Program {
        fingerprint: fingerprint::of_process(&graph)?,
        graph: Arc::new(graph),
        config,
        settings,
        backends,
        metrics: prometheus::Registry::new(),
        clock,
        task_clock,
        io: runtime.handle().clone(),
        control: control.handle().clone(),
        leaving,
    };
    // Ends with the process: a connection must not be closed before what was sent on it has left.
    std::thread::Builder::new()
        .name("millrace-control".to_string())
        .spawn(move || control.block_on(std::future::pending::<()>()))
        .map_err(no_threads)?;
    let result = match program.settings.role {
        Role::Local => runtime.block_on(program.run_local()),
        Role::JobManager => runtime.block_on(program.run_jobmanager()),
        Role::TaskManager => {
            let ended = runtime.block_on(program.run_taskmanager());
            std::process::exit(match ended {
                Ok(Ended::WithItsJob) => 0,
                Ok(Ended::Told) => signals::end_by_sigterm(),
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

fn no_threads(error: std::io::Error) -> Error {
    Error::external(format!("can't start the runtime's threads: {error}"))
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
        tokio::select! {
            result = self.lead(Door::Local(door)) => result,
            Ok(Err(error)) = ended => Err(error),
        }
    }

    async fn run_jobmanager(self) -> Result<JobResult> {
        let machine = MachineMemory::find();
        let probe = ProcessProbe { limit: machine.limit(), physical: machine.physical, backend: None };
        process_metrics::register(&self.metrics, "jobmanager", probe)?;
        let settings = &self.settings.jobmanager;
        let (listener, address) =
            rest::listen("jobmanager.bind-host", &settings.bind_host, "jobmanager.rpc.port", settings.rpc_port).await?;
        self.lead(Door::Network(listener, address)).await
    }

    async fn run_taskmanager(self) -> Result<Ended> {
        let settings = &self.settings.jobmanager;
        let target = format!("{}:{}", settings.rpc_address, settings.rpc_port);
        if let Some(port) = self.settings.metrics_port {
            let host = ("taskmanager.bind-host", self.settings.taskmanager.bind_host.as_str());
            self.serve_metrics(host, port).await?;
        }
        let run = self.control.spawn(self.taskmanager(TcpConnect(target))?);
        run.await.map_err(|error| Error::internal(format!("the taskmanager has ended: {error}")))?
    }

    /// The taskmanager of this process, its data port bound.
    fn taskmanager(
        &self,
        connect: impl Connect + 'static,
    ) -> Result<impl Future<Output = Result<Ended>> + Send + 'static> {
        let settings = &self.settings.taskmanager;
        let cannot = |error: std::io::Error| {
            Error::invalid(format!(
                "taskmanager.data.{} {} on {} can't be used: {error}; choose another port (0: any)",
                if settings.data_bind_port == settings.data_port { "port" } else { "bind-port" },
                settings.data_bind_port,
                settings.bind_host
            ))
        };
        let port =
            std::net::TcpListener::bind((settings.bind_host.as_str(), settings.data_bind_port)).map_err(cannot)?;
        port.set_nonblocking(true).map_err(cannot)?;
        let found_at = match settings.data_port {
            0 => port.local_addr().map_err(cannot)?.port(),
            port => port,
        };
        let data_address = format!("{}:{found_at}", settings.host);
        let mut own = self.settings.clone();
        if own.role == Role::Local {
            own.taskmanager.slots = own.taskmanager.slots.max(self.graph.slots_needed());
        }
        let machine = MachineMemory::find();
        let probe = ProcessProbe {
            limit: own.taskmanager.process_memory.unwrap_or_else(|| machine.limit()),
            physical: machine.physical,
            // The jobmanager's choice, which is the same program's.
            backend: Some(self.backends.get(&own.state_backend)?),
        };
        process_metrics::register(&self.metrics, "taskmanager", probe.clone())?;
        let setup = TaskManagerSetup {
            probe,
            memory: memory::watch(machine, own.taskmanager.process_memory)?,
            graph: Arc::clone(&self.graph),
            location: TaskManagerLocation { id: new_taskmanager_id(&own.taskmanager.resource_id), data_address },
            resource_id: own.taskmanager.resource_id.clone(),
            settings: own,
            backends: self.backends.clone(),
            fingerprint: self.fingerprint.clone(),
            metrics: self.metrics.clone(),
            clock: self.task_clock.clone(),
            io: self.io.clone(),
            leaving: self.leaving.clone(),
        };
        Ok(taskmanager::run(setup, port, connect))
    }
}
