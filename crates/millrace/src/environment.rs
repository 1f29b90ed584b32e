//! Where a program begins: settings, sources, and the call that runs the job.

use std::{any::Any, sync::Arc, time::Duration};

use millrace_connectors::CollectionSource;
use millrace_core::{
    Error, Record, Result, checkpoint::CheckpointingMode, restart::RestartStrategy, source::Source,
};
use millrace_runtime::{graph::JobGraph, source::TypedSource};
use millrace_state::{BackendRegistry, FsStateBackend, MemoryStateBackend, SnapshotTarget, StateBackend};
use millrace_worker::config::Configuration;

use crate::{
    JobExecutionResult,
    checkpoints::{CheckpointConfig, duration},
    plan::{NodeBody, PlanNode, SharedPlan},
    stream::DataStream,
    translate::{GraphSettings, job_graph},
};

/// Where a program begins.
///
/// The same program runs alone on a laptop, as a jobmanager or as a taskmanager: which one it is follows from
/// `MILLRACE_*` variables that the `millrace` command sets. What the program sets here outranks the configuration file
/// and the environment, and is outranked by `-D`. Mistakes are told by [`execute`](Self::execute).
///
/// Every process of a job runs the program and must build the same graph: what it does may depend on its arguments,
/// never on the time, the host or anything else that differs between processes.
#[derive(Default)]
pub struct StreamExecutionEnvironment {
    plan: SharedPlan,
    /// What the program set, in order.
    settings: Vec<(String, String)>,
    backends: BackendRegistry,
}

impl StreamExecutionEnvironment {
    /// An environment in which nothing is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same as [`new`](Self::new), by Flink's name.
    pub fn get_execution_environment() -> Self {
        Self::new()
    }

    /// Turns checkpoints on, exactly once.
    pub fn enable_checkpointing(&mut self, interval: Duration) -> &mut Self {
        self.enable_checkpointing_with(interval, CheckpointingMode::ExactlyOnce)
    }

    /// Turns checkpoints on in the given mode.
    pub fn enable_checkpointing_with(&mut self, interval: Duration, mode: CheckpointingMode) -> &mut Self {
        self.checkpoint_config().set_interval(interval).set_mode(mode);
        self
    }

    /// The other settings of checkpoints.
    pub fn checkpoint_config(&mut self) -> CheckpointConfig<'_> {
        CheckpointConfig(self)
    }

    /// Chooses the state backend: [`MemoryStateBackend`], [`FsStateBackend`], or one of
    /// your own.
    pub fn set_state_backend(&mut self, backend: impl StateBackend + 'static) -> &mut Self {
        let own: &dyn Any = &backend;
        if let Some(directory) = own.downcast_ref::<FsStateBackend>().and_then(FsStateBackend::checkpoint_dir) {
            self.configure("state.checkpoints.dir", directory);
        }
        if own.is::<MemoryStateBackend>() && own.downcast_ref() != Some(&MemoryStateBackend::default()) {
            if let SnapshotTarget::JobManager { max_state_size } = backend.snapshot_target() {
                self.configure("state.backend.memory.max-state-size", max_state_size);
            }
        }
        self.configure("state.backend", backend.name());
        self.backends.replace(Arc::new(backend));
        self
    }

    /// Makes a backend of your own known by its name, so that the configuration can choose it (`state.backend`).
    pub fn register_state_backend(&mut self, backend: impl StateBackend + 'static) -> &mut Self {
        if let Err(error) = self.backends.register(Arc::new(backend)) {
            self.plan.edit().errors.push(error);
        }
        self
    }

    /// How many subtasks an operator has that says nothing else; 1 by default.
    pub fn set_parallelism(&mut self, parallelism: u32) -> &mut Self {
        self.configure("parallelism.default", parallelism)
    }

    /// The number of key groups, 128 by default: the highest parallelism that the job can ever have. It is fixed with
    /// the first checkpoint.
    pub fn set_max_parallelism(&mut self, max_parallelism: u32) -> &mut Self {
        self.configure("pipeline.max-parallelism", max_parallelism)
    }

    /// What the job does after a failure. The default is exponential delay with checkpoints, and none without.
    pub fn set_restart_strategy(&mut self, strategy: RestartStrategy) -> &mut Self {
        self.configure("restart-strategy.type", strategy.name());
        match strategy {
            RestartStrategy::None => self,
            RestartStrategy::FixedDelay { attempts, delay } => self
                .configure("restart-strategy.fixed-delay.attempts", attempts)
                .configure("restart-strategy.fixed-delay.delay", duration(delay)),
            RestartStrategy::ExponentialDelay { initial, max, multiplier, reset_threshold } => self
                .configure("restart-strategy.exponential-delay.initial-backoff", duration(initial))
                .configure("restart-strategy.exponential-delay.max-backoff", duration(max))
                .configure("restart-strategy.exponential-delay.backoff-multiplier", multiplier)
                .configure("restart-strategy.exponential-delay.reset-backoff-threshold", duration(reset_threshold)),
            RestartStrategy::FailureRate { failures, interval, delay } => self
                .configure("restart-strategy.failure-rate.max-failures-per-interval", failures)
                .configure("restart-strategy.failure-rate.failure-rate-interval", duration(interval))
                .configure("restart-strategy.failure-rate.delay", duration(delay)),
        }
    }

    /// Sets any setting by its name in the configuration.
    pub fn configure(&mut self, key: impl Into<String>, value: impl ToString) -> &mut Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// The job's settings as they stand: defaults, file, environment, program and `-D` together.
    pub fn configuration(&self) -> Result<Configuration> {
        let mut configuration = Configuration::load()?;
        for (key, value) in &self.settings {
            configuration.set_from_program(key, value)?;
        }
        Ok(configuration)
    }

    /// The stream of a source.
    pub fn from_source<S: Source>(&self, source: S, name: &str) -> DataStream<S::Record> {
        self.add_source(source, name, false)
    }

    /// The stream of a collection's elements. It has one subtask, and ends. The collection is part of the program:
    /// every process holds all of it.
    pub fn from_collection<T: Record + Sync>(&self, records: impl IntoIterator<Item = T>) -> DataStream<T> {
        self.add_source(CollectionSource::new(records), "Collection", true)
    }

    fn add_source<S: Source>(&self, source: S, name: &str, single: bool) -> DataStream<S::Record> {
        let node = self.plan.add(PlanNode {
            name: format!("Source: {name}"),
            kind: "Source",
            uid: None,
            parallelism: None,
            single,
            body: NodeBody::Source(Arc::new(TypedSource(source))),
            inputs: Vec::new(),
        });
        DataStream::of_node(&self.plan, node)
    }

    /// Runs the job and returns when it has ended. In a taskmanager it runs the taskmanager instead, and never returns.
    ///
    /// A program is one job: this consumes the environment.
    pub fn execute(self, name: &str) -> Result<JobExecutionResult, Error> {
        let (graph, configuration, backends) = self.into_job(name)?;
        millrace_worker::execute(graph, configuration, backends)
    }

    #[cfg(test)]
    pub(crate) fn into_plan(self) -> crate::plan::Plan {
        self.plan.take()
    }

    fn into_job(self, name: &str) -> Result<(JobGraph, Configuration, BackendRegistry)> {
        let configuration = self.configuration()?;
        let settings = configuration.settings()?;
        let graph_settings = GraphSettings {
            parallelism: settings.parallelism,
            max_parallelism: settings.max_parallelism,
            checkpoints: settings.checkpoint.is_enabled(),
        };
        let graph = job_graph(self.plan.take(), name, graph_settings)?;
        Ok((graph, configuration, self.backends))
    }
}
