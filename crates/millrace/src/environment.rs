//! Where a program begins: settings, sources, and the call that runs the job.

use std::{any::Any, sync::Arc, time::Duration};

use millrace_connectors::CollectionSource;
use millrace_core::{
    Error, Record, Result, checkpoint::CheckpointingMode, clock::Clock, restart::RestartStrategy, source::Source,
};
use millrace_runtime::{graph::JobGraph, source::TypedSource};
use millrace_state::{
    BackendRegistry, FsStateBackend, MemoryStateBackend, SnapshotTarget, StateBackend, backend::DEFAULT_MAX_STATE_SIZE,
};
#[cfg(feature = "rocksdb")]
use millrace_state_rocksdb::{DEFAULT_MEMORY_SIZE, RocksDBStateBackend};
#[cfg(feature = "rocksdb")]
use millrace_worker::config::RocksDBSettings;
use millrace_worker::{
    config::{Configuration, Settings},
    logging,
};

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
    own_backends: Vec<OwnBackend>,
    clock: Option<Clock>,
}

/// A backend that the program brought along.
struct OwnBackend {
    backend: Arc<dyn StateBackend>,
    /// Whether it is to be used even if its name is taken.
    chosen: bool,
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

    /// Chooses the state backend: [`MemoryStateBackend`], [`FsStateBackend`], `RocksDBStateBackend` (with the feature
    /// `rocksdb`), or one of your own.
    ///
    /// ```
    /// use millrace::prelude::*;
    ///
    /// let mut env = StreamExecutionEnvironment::new();
    /// env.set_state_backend(FsStateBackend::new("file:///var/lib/millrace/checkpoints"));
    /// assert_eq!(env.configuration()?.settings()?.state_backend, "filesystem");
    /// # Ok::<(), millrace::Error>(())
    /// ```
    pub fn set_state_backend(&mut self, backend: impl StateBackend + 'static) -> &mut Self {
        self.configure("state.backend", backend.name());
        let own: &dyn Any = &backend;
        if let Some(fs) = own.downcast_ref::<FsStateBackend>() {
            if let Some(directory) = fs.checkpoint_dir() {
                self.configure("state.checkpoints.dir", directory);
            }
        } else if own.is::<MemoryStateBackend>() {
            if let SnapshotTarget::JobManager { max_state_size } = backend.snapshot_target()
                && max_state_size != DEFAULT_MAX_STATE_SIZE
            {
                self.configure("state.backend.memory.max-state-size", max_state_size);
            }
        } else if !self.configure_rocksdb(own) {
            self.own_backends.push(OwnBackend { backend: Arc::new(backend), chosen: true });
        }
        self
    }

    /// Takes over what a RocksDB backend was made with; `false` for any other backend.
    #[cfg(feature = "rocksdb")]
    fn configure_rocksdb(&mut self, backend: &dyn Any) -> bool {
        let Some(rocksdb) = backend.downcast_ref::<RocksDBStateBackend>() else { return false };
        if let Some(directory) = rocksdb.checkpoint_dir() {
            self.configure("state.checkpoints.dir", directory);
        }
        if rocksdb.memory_size() != DEFAULT_MEMORY_SIZE {
            self.configure("state.backend.rocksdb.memory.size", rocksdb.memory_size());
        }
        if let Some(directory) = rocksdb.local_directory() {
            self.configure("state.backend.rocksdb.localdir", directory.display());
        }
        if rocksdb.incremental_checkpoints() {
            self.configure("execution.checkpointing.incremental", true);
        }
        true
    }

    #[cfg(not(feature = "rocksdb"))]
    fn configure_rocksdb(&mut self, _backend: &dyn Any) -> bool {
        false
    }

    /// Makes a backend of your own known by its name, so that the configuration can choose it (`state.backend`).
    pub fn register_state_backend(&mut self, backend: impl StateBackend + 'static) -> &mut Self {
        self.own_backends.push(OwnBackend { backend: Arc::new(backend), chosen: false });
        self
    }

    /// Sets the clock that processing-time timers and state's time to live go by, for tests: the system's by default. It
    /// is the clock of this process only, as the jobs of a test are.
    pub fn set_clock(&mut self, clock: Clock) -> &mut Self {
        self.clock = Some(clock);
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
        let clock = self.clock.clone().unwrap_or_else(Clock::system);
        let (graph, configuration, backends) = self.into_job(name)?;
        millrace_worker::execute(graph, configuration, backends, clock)
    }

    #[cfg(test)]
    pub(crate) fn into_plan(self) -> crate::plan::Plan {
        self.plan.take()
    }

    fn into_job(self, name: &str) -> Result<(JobGraph, Configuration, BackendRegistry)> {
        let configuration = self.configuration()?;
        let settings = configuration.settings()?;
        // Before anything is worth a line in the log.
        logging::init(&settings.log)?;
        let graph_settings = GraphSettings {
            parallelism: settings.parallelism,
            max_parallelism: settings.max_parallelism,
            checkpoints: settings.checkpoint.clone(),
        };
        let backends = backends(self.own_backends, &settings)?;
        let graph = job_graph(self.plan.take(), name, graph_settings)?;
        Ok((graph, configuration, backends))
    }
}

/// The backends that the job may use: Millrace's own, as configured, and the program's.
fn backends(own: Vec<OwnBackend>, settings: &Settings) -> Result<BackendRegistry> {
    let mut backends = BackendRegistry::default();
    backends.replace(Arc::new(MemoryStateBackend::with_max_state_size(settings.memory_max_state_size)));
    #[cfg(feature = "rocksdb")]
    backends.replace(Arc::new(rocksdb(&settings.rocksdb)));
    for OwnBackend { backend, chosen } in own {
        match chosen {
            true => backends.replace(backend),
            false => backends.register(backend)?,
        }
    }
    if settings.state_backend == "rocksdb" && backends.get("rocksdb").is_err() {
        return Err(Error::invalid(
            "state.backend: \"rocksdb\" is not in this program: build it with the feature `rocksdb` of millrace",
        ));
    }
    Ok(backends)
}

#[cfg(feature = "rocksdb")]
fn rocksdb(settings: &RocksDBSettings) -> RocksDBStateBackend {
    let backend = RocksDBStateBackend::configured()
        .with_memory_size(settings.memory_size)
        .with_incremental_checkpoints(settings.incremental);
    match &settings.local_directory {
        Some(directory) => backend.with_local_directory(directory),
        None => backend,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::checkpoint::Retention;

    use super::*;

    fn settings() -> Settings {
        StreamExecutionEnvironment::new().configuration().unwrap().settings().unwrap()
    }

    #[test]
    fn the_programs_settings_reach_the_configuration() {
        let mut env = StreamExecutionEnvironment::new();
        env.enable_checkpointing(Duration::from_millis(1500)).set_parallelism(3).set_max_parallelism(64);
        env.checkpoint_config().set_timeout(Duration::from_micros(2500)).set_tolerable_failures(7);
        env.set_state_backend(FsStateBackend::new("file:///tmp/checkpoints"));
        env.set_restart_strategy(RestartStrategy::FixedDelay { attempts: 3, delay: Duration::from_secs(2) });
        let settings = env.configuration().unwrap().settings().unwrap();
        assert_eq!(settings.checkpoint.interval, Some(Duration::from_millis(1500)));
        assert_eq!(settings.checkpoint.timeout, Duration::from_micros(2500));
        assert_eq!(settings.checkpoint.tolerable_failed, Some(7));
        assert_eq!((settings.parallelism, settings.max_parallelism), (3, 64));
        assert_eq!(settings.state_backend, "filesystem");
        assert_eq!(settings.checkpoint_dir.as_deref(), Some("file:///tmp/checkpoints"));
        assert_eq!(settings.restart_strategy.name(), "fixed-delay");
    }

    #[test]
    fn every_restart_strategy_is_read_as_it_was_set() {
        let second = Duration::from_secs(1);
        for strategy in [
            RestartStrategy::None,
            RestartStrategy::FixedDelay { attempts: 0, delay: Duration::ZERO },
            RestartStrategy::ExponentialDelay {
                initial: second,
                max: 9 * second,
                multiplier: 2.5,
                reset_threshold: second,
            },
            RestartStrategy::FailureRate { failures: 4, interval: second, delay: second / 8 },
        ] {
            let mut env = StreamExecutionEnvironment::new();
            env.set_restart_strategy(strategy.clone());
            assert_eq!(env.configuration().unwrap().settings().unwrap().restart_strategy, strategy);
        }
    }

    #[test]
    fn every_checkpoint_setting_is_read_as_it_was_set() {
        let mut env = StreamExecutionEnvironment::new();
        env.checkpoint_config()
            .set_interval(Duration::from_secs(7))
            .set_mode(CheckpointingMode::AtLeastOnce)
            .set_timeout(Duration::from_secs(6))
            .set_min_pause(Duration::from_secs(5))
            .set_max_concurrent(4)
            .set_tolerable_failures(0)
            .set_num_retained(2)
            .enable_unaligned_checkpoints(false)
            .set_aligned_checkpoint_timeout(Duration::from_millis(700))
            .set_retention(Retention::RetainOnCancellation)
            .set_directory("file:///tmp/c");
        let expected = millrace_core::checkpoint::CheckpointConfig {
            interval: Some(Duration::from_secs(7)),
            mode: CheckpointingMode::AtLeastOnce,
            timeout: Duration::from_secs(6),
            min_pause: Duration::from_secs(5),
            max_concurrent: 4,
            tolerable_failed: Some(0),
            num_retained: 2,
            retention: Retention::RetainOnCancellation,
            unaligned: false,
            aligned_timeout: Duration::from_millis(700),
        };
        assert_eq!(env.configuration().unwrap().settings().unwrap().checkpoint, expected);
        let mut env = StreamExecutionEnvironment::new();
        env.checkpoint_config().enable_unaligned_checkpoints(true);
        assert!(env.configuration().unwrap().settings().unwrap().checkpoint.unaligned);
    }

    #[test]
    fn the_memory_backends_limit_is_the_configured_one() {
        let limit = |backend: MemoryStateBackend| {
            let mut env = StreamExecutionEnvironment::new();
            env.set_state_backend(backend);
            let settings = env.configuration().unwrap().settings().unwrap();
            assert_eq!(settings.state_backend, "memory");
            backends(env.own_backends, &settings).unwrap().get("memory").unwrap().snapshot_target()
        };
        let target = |max_state_size| SnapshotTarget::JobManager { max_state_size };
        assert_eq!(limit(MemoryStateBackend::new()), target(5 << 20));
        assert_eq!(limit(MemoryStateBackend::with_max_state_size(17)), target(17));
    }

    #[cfg(feature = "rocksdb")]
    #[test]
    fn what_rocksdb_was_made_with_is_what_is_configured() {
        let mut env = StreamExecutionEnvironment::new();
        env.set_state_backend(
            RocksDBStateBackend::new("file:///c")
                .with_memory_size(64 << 20)
                .with_local_directory("/l")
                .with_incremental_checkpoints(true),
        );
        let settings = env.configuration().unwrap().settings().unwrap();
        assert_eq!(
            (settings.state_backend.as_str(), settings.checkpoint_dir.as_deref()),
            ("rocksdb", Some("file:///c"))
        );
        assert_eq!(settings.rocksdb.memory_size, 64 << 20);
        assert_eq!(settings.rocksdb.local_directory.as_deref(), Some("/l".as_ref()));
        assert_eq!(rocksdb(&settings.rocksdb).memory_size(), 64 << 20);
        assert!(rocksdb(&settings.rocksdb).incremental_checkpoints());
        assert_eq!(backends(env.own_backends, &settings).unwrap().get("rocksdb").unwrap().name(), "rocksdb");
        assert_eq!(self::settings().rocksdb.memory_size, DEFAULT_MEMORY_SIZE, "the two defaults are one");
    }

    #[cfg(not(feature = "rocksdb"))]
    #[test]
    fn a_program_without_rocksdb_says_how_to_get_it() {
        let mut env = StreamExecutionEnvironment::new();
        env.configure("state.backend", "rocksdb").configure("state.checkpoints.dir", "file:///c");
        let settings = env.configuration().unwrap().settings().unwrap();
        let error = backends(env.own_backends, &settings).err().unwrap();
        assert!(error.message.contains("feature `rocksdb`") && !error.retryable, "{error}");
    }

    #[test]
    fn a_backend_of_ones_own_can_be_chosen_or_registered() {
        struct Own;
        impl StateBackend for Own {
            fn name(&self) -> &str {
                "own"
            }
            fn snapshot_target(&self) -> SnapshotTarget {
                SnapshotTarget::Files
            }
            fn open(&self, _: &millrace_state::KeyedBackendContext) -> Result<millrace_state::KeyedBackend> {
                Ok(millrace_state::KeyedBackend::Heap)
            }
        }
        let mut env = StreamExecutionEnvironment::new();
        env.set_state_backend(Own);
        assert_eq!(env.configuration().unwrap().settings().unwrap().state_backend, "own");
        assert!(backends(env.own_backends, &settings()).unwrap().get("own").is_ok());

        let mut env = StreamExecutionEnvironment::new();
        env.register_state_backend(Own).register_state_backend(Own);
        let error = backends(env.own_backends, &settings()).err().unwrap();
        assert!(error.message.contains("\"own\""), "{error}");
    }

    #[test]
    fn a_wrong_setting_is_told_by_execute() {
        let mut env = StreamExecutionEnvironment::new();
        env.enable_checkpointing(Duration::ZERO);
        let _ = env.from_collection([1i64]).print();
        let error = env.execute("wrong").unwrap_err();
        assert!(error.message.contains("execution.checkpointing.interval"), "{error}");
    }
}
