//! The settings as types, checked against each other.

use std::{fmt, path::PathBuf, time::Duration};

use millrace_core::{
    Error, Result,
    checkpoint::{CheckpointConfig, Retention},
    ids::JobId,
    restart::RestartStrategy,
};
use millrace_runtime::{scheduler::AdaptiveSettings, task::DebloatSettings};

use super::{ConfigOption, Configuration, Role, options as o, value};

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(super::REDACTED)
    }
}

/// All settings of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the process is.
    pub role: Role,
    /// How many subtasks an operator has that says nothing else.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// When and how checkpoints are taken.
    pub checkpoint: CheckpointConfig,
    /// Snapshots up to this many bytes lie in the checkpoint's metadata.
    pub data_inline_threshold: u64,
    /// Whether and when a failed job starts again.
    pub restart_strategy: RestartStrategy,
    /// The state backend's name: `memory`, `filesystem`, `rocksdb` or one that the program registers.
    pub state_backend: String,
    /// Where checkpoints go; `None`: into the jobmanager's memory.
    pub checkpoint_dir: Option<String>,
    /// The largest snapshot of a state of a subtask that the memory backend ships, in bytes.
    pub memory_max_state_size: u64,
    /// What the RocksDB backend may use.
    pub rocksdb: RocksDBSettings,
    /// Where local copies of state lie; `None`: there are none.
    pub local_state: Option<PathBuf>,
    /// What the job starts from.
    pub restore: RestoreSettings,
    /// How S3 is reached.
    pub s3: S3Settings,
    /// Where the jobmanager is.
    pub jobmanager: JobManagerSettings,
    /// Where the REST server is.
    pub rest: RestSettings,
    /// What a taskmanager is like.
    pub taskmanager: TaskManagerSettings,
    /// How jobmanager and taskmanagers watch each other.
    pub heartbeat: HeartbeatSettings,
    /// The port of the process's metrics; `None`: none.
    pub metrics_port: Option<u16>,
    /// What is logged.
    pub log: LogSettings,
    /// The job's id, where somebody chose it.
    pub job_id: Option<JobId>,
    /// The number of the job's deployment.
    pub deployment: u64,
    /// Whether the jobmanager's process ends with its job.
    pub shutdown_on_finish: bool,
    /// Where the jobmanager announces itself.
    pub cluster_directory: Option<PathBuf>,
    /// Where the process's logs go, where that is known.
    pub log_directory: Option<PathBuf>,
    /// What the processes of a cluster show each other.
    pub security_token: Option<Secret>,
}

/// What the RocksDB backend may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksDBSettings {
    /// In memory, in the whole process, in bytes.
    pub memory_size: u64,
    /// On disk; `None`: a directory of its own among the system's temporary files.
    pub local_directory: Option<PathBuf>,
    /// Whether a checkpoint writes only what the last one has not.
    pub incremental: bool,
}

/// What a job starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreSettings {
    /// A retained checkpoint.
    pub path: Option<String>,
    /// Whether state that no operator claims is dropped.
    pub allow_non_restored_state: bool,
    /// Whether a damaged newest checkpoint may be stepped over although a sink committed past it.
    pub allow_older_checkpoint: bool,
}

/// How S3 is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// URL of the service; `None`: AWS.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Access key; `None`: the environment's or the profile's credentials.
    pub access_key: Option<Secret>,
    /// Secret key.
    pub secret_key: Option<Secret>,
    /// More certificates of authorities to trust.
    pub ca_bundle: Option<PathBuf>,
    /// Whether buckets are addressed by path.
    pub path_style_access: bool,
}

/// Where the jobmanager is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobManagerSettings {
    /// Host at which taskmanagers find it.
    pub rpc_address: String,
    /// Port at which taskmanagers find it; 0: any free one.
    pub rpc_port: u16,
    /// Address on which it listens.
    pub bind_host: String,
    /// How long a new one waits for the tasks that run.
    pub adoption_timeout: Duration,
    /// How it makes do with fewer slots; `None`: it waits for all.
    pub adaptive: Option<AdaptiveSettings>,
}

/// Where the REST server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestSettings {
    /// Host at which clients find it.
    pub address: String,
    /// Port; 0: any free one.
    pub port: u16,
    /// Address on which it listens.
    pub bind_address: String,
}

/// What a taskmanager is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManagerSettings {
    /// Its name, which it keeps when it is started again.
    pub resource_id: String,
    /// Host at which others find it.
    pub host: String,
    /// Address on which it listens.
    pub bind_host: String,
    /// Port at which others find it for records; 0: the one that it listens on.
    pub data_port: u16,
    /// Port on which it listens for them; 0: any free one.
    pub data_bind_port: u16,
    /// How many slots it offers.
    pub slots: u32,
    /// What its process may take of memory, in bytes; `None`: what its container or machine has.
    pub process_memory: Option<u64>,
    /// How many batches may wait in a channel.
    pub buffers_per_channel: u32,
    /// How what may wait in channels adapts; `None`: not at all.
    pub debloat: Option<DebloatSettings>,
    /// How long a new one tries to reach the jobmanager.
    pub registration_timeout: Duration,
    /// How long tasks go on without a jobmanager.
    pub jobmanager_loss_timeout: Duration,
    /// How long it may take to hand its tasks over when it is told to end.
    pub drain_timeout: Duration,
    /// How long a task may take to end.
    pub cancellation_timeout: Duration,
}

/// How jobmanager and taskmanagers watch each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// Time between two heartbeats.
    pub interval: Duration,
    /// A silence this long is a loss.
    pub timeout: Duration,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Filter directives of `tracing`.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads all settings and checks them against each other.
pub(super) fn read(config: &Configuration) -> Result<Settings> {
    let reader = Reader(config);
    let checkpoint = reader.checkpoint()?;
    let checkpoint_dir = reader.text(&o::CHECKPOINT_DIRECTORY);
    let settings = Settings {
        role: config.role,
        parallelism: reader.count(&o::PARALLELISM)?,
        max_parallelism: reader.count(&o::MAX_PARALLELISM)?,
        data_inline_threshold: reader.size(&o::DATA_INLINE_THRESHOLD)?,
        restart_strategy: reader.restart_strategy(checkpoint.is_enabled())?,
        state_backend: reader.state_backend(checkpoint_dir.is_some()),
        memory_max_state_size: reader.size(&o::MEMORY_MAX_STATE_SIZE)?,
        rocksdb: RocksDBSettings {
            memory_size: reader.size(&o::ROCKSDB_MEMORY_SIZE)?,
            local_directory: reader.text(&o::ROCKSDB_LOCAL_DIRECTORY).map(PathBuf::from),
            incremental: reader.flag(&o::CHECKPOINT_INCREMENTAL)?,
        },
        local_state: match reader.flag(&o::FROM_LOCAL)? {
            true => Some(reader.text(&o::LOCAL_ROOT).map_or_else(std::env::temp_dir, PathBuf::from)),
            false => None,
        },
        restore: RestoreSettings {
            path: reader.text(&o::RESTORE_PATH),
            allow_non_restored_state: reader.flag(&o::ALLOW_NON_RESTORED)?,
            allow_older_checkpoint: reader.flag(&o::ALLOW_OLDER)?,
        },
        s3: reader.s3()?,
        jobmanager: reader.jobmanager()?,
        rest: reader.rest()?,
        taskmanager: reader.taskmanager()?,
        heartbeat: reader.heartbeat()?,
        metrics_port: match config.read(&o::METRICS_PORT, value::port)? {
            None if config.role == Role::TaskManager && !config.is_set(&o::METRICS_PORT) => Some(0),
            port => port,
        },
        log: reader.log()?,
        job_id: config.read(&o::JOB_ID, |text| text.parse().map_err(|error: Error| error.message))?,
        deployment: reader.count(&o::DEPLOYMENT)?.into(),
        shutdown_on_finish: reader.flag(&o::SHUTDOWN_ON_FINISH)?,
        cluster_directory: reader.text(&o::CLUSTER_DIRECTORY).map(PathBuf::from),
        log_directory: reader.text(&o::LOG_DIRECTORY).map(PathBuf::from),
        security_token: reader.text(&o::SECURITY_TOKEN).map(Secret),
        checkpoint,
        checkpoint_dir,
    };
    if settings.parallelism > settings.max_parallelism {
        let why = format!("is above {}, which is {}", o::MAX_PARALLELISM.key, settings.max_parallelism);
        return Err(config.error(&o::PARALLELISM, &why));
    }
    Ok(settings)
}

struct Reader<'a>(&'a Configuration);

impl Reader<'_> {
    fn text(&self, option: &ConfigOption) -> Option<String> {
        self.0.get(option).map(str::to_string)
    }

    /// The value of a setting that has a default.
    fn always<T>(&self, option: &ConfigOption, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T> {
        let value = self.0.read(option, read)?;
        value.ok_or_else(|| Error::internal(format!("setting {} has no default", option.key)))
    }

    fn name(&self, option: &ConfigOption) -> Result<String> {
        self.always(option, |text| Ok(text.to_string()))
    }

    fn count(&self, option: &ConfigOption) -> Result<u32> {
        self.always(option, |text| value::count(text, 0, u32::MAX))
    }

    fn flag(&self, option: &ConfigOption) -> Result<bool> {
        self.always(option, value::flag)
    }

    fn size(&self, option: &ConfigOption) -> Result<u64> {
        self.always(option, value::size)
    }

    fn duration(&self, option: &ConfigOption) -> Result<Duration> {
        self.always(option, value::duration)
    }

    /// The port, or what holds outside and inside of local mode.
    fn port(&self, option: &ConfigOption, otherwise: u16) -> Result<u16> {
        let unset = if self.0.role == Role::Local { 0 } else { otherwise };
        Ok(self.0.read(option, value::port)?.unwrap_or(unset))
    }

    /// The name of the choice, `None` where nothing is set and nothing holds by default.
    fn choice(&self, option: &ConfigOption) -> Result<Option<&'static str>> {
        let value::ValueKind::Choice(groups) = option.kind else {
            return Err(Error::internal(format!("setting {} is no choice", option.key)));
        };
        self.0.read(option, |text| value::choice(text, groups))
    }

    fn checkpoint(&self) -> Result<CheckpointConfig> {
        let config = CheckpointConfig {
            interval: self.0.read(&o::CHECKPOINT_INTERVAL, value::duration)?,
            mode: self.always(&o::CHECKPOINT_MODE, |text| text.parse().map_err(|error: Error| error.message))?,
            timeout: self.duration(&o::CHECKPOINT_TIMEOUT)?,
            min_pause: self.duration(&o::CHECKPOINT_MIN_PAUSE)?,
            max_concurrent: self.count(&o::CHECKPOINT_MAX_CONCURRENT)?,
            tolerable_failed: self.0.read(&o::CHECKPOINT_TOLERABLE_FAILED, |t| value::count(t, 0, u32::MAX))?,
            num_retained: self.count(&o::CHECKPOINT_NUM_RETAINED)?,
            retention: match self.choice(&o::CHECKPOINT_RETENTION)? {
                Some("RETAIN_ON_CANCELLATION") => Retention::RetainOnCancellation,
                _ => Retention::DeleteOnCancellation,
            },
            unaligned: self.flag(&o::CHECKPOINT_UNALIGNED)?,
            aligned_timeout: self.duration(&o::ALIGNED_TIMEOUT)?,
        };
        config.validate()?;
        Ok(config)
    }

    fn restart_strategy(&self, checkpoints: bool) -> Result<RestartStrategy> {
        let unset = if checkpoints { "exponential-delay" } else { "none" };
        let strategy = match self.choice(&o::RESTART_STRATEGY)?.unwrap_or(unset) {
            "fixed-delay" => RestartStrategy::FixedDelay {
                attempts: self.count(&o::FIXED_DELAY_ATTEMPTS)?,
                delay: self.duration(&o::FIXED_DELAY_DELAY)?,
            },
            "exponential-delay" => RestartStrategy::ExponentialDelay {
                initial: self.duration(&o::EXPONENTIAL_INITIAL)?,
                max: self.duration(&o::EXPONENTIAL_MAX)?,
                multiplier: self.always(&o::EXPONENTIAL_MULTIPLIER, |t| value::factor(t, 1.0, 1000.0))?,
                reset_threshold: self.duration(&o::EXPONENTIAL_RESET)?,
            },
            "failure-rate" => RestartStrategy::FailureRate {
                failures: self.count(&o::FAILURE_RATE_FAILURES)?,
                interval: self.duration(&o::FAILURE_RATE_INTERVAL)?,
                delay: self.duration(&o::FAILURE_RATE_DELAY)?,
            },
            _ => RestartStrategy::None,
        };
        strategy.validate()?;
        Ok(strategy)
    }

    /// `hashmap` and no choice at all are the heap backend that suits the checkpoint directory; the other names are
    /// one backend each.
    fn state_backend(&self, directory: bool) -> String {
        let heap = if directory { "filesystem" } else { "memory" };
        let name = self.0.get(&o::STATE_BACKEND).unwrap_or("hashmap").to_ascii_lowercase();
        match name.as_str() {
            "hashmap" => heap.to_string(),
            "memory" | "jobmanager" => "memory".to_string(),
            // That these need a directory is the job's to say: who reads this may not know the program's settings.
            "filesystem" | "rocksdb" => name,
            // A registered name is the program's: taken as it is written.
            _ => self.0.get(&o::STATE_BACKEND).unwrap_or_default().to_string(),
        }
    }

    fn s3(&self) -> Result<S3Settings> {
        let endpoint = self.text(&o::S3_ENDPOINT);
        let (access, secret) = (self.text(&o::S3_ACCESS_KEY), self.text(&o::S3_SECRET_KEY));
        if access.is_some() != secret.is_some() {
            let set = if access.is_some() { &o::S3_ACCESS_KEY } else { &o::S3_SECRET_KEY };
            let other = if access.is_some() { &o::S3_SECRET_KEY } else { &o::S3_ACCESS_KEY };
            return Err(self.0.error(set, &format!("is of no use alone: set {} too", other.key)));
        }
        Ok(S3Settings {
            path_style_access: self.0.read(&o::S3_PATH_STYLE, value::flag)?.unwrap_or(endpoint.is_some()),
            endpoint,
            region: self.text(&o::S3_REGION),
            ca_bundle: self.text(&o::S3_CA_BUNDLE).map(PathBuf::from),
            access_key: access.map(Secret),
            secret_key: secret.map(Secret),
        })
    }

    fn jobmanager(&self) -> Result<JobManagerSettings> {
        Ok(JobManagerSettings {
            rpc_address: self.name(&o::RPC_ADDRESS)?,
            rpc_port: self.port(&o::RPC_PORT, 6123)?,
            bind_host: self.name(&o::JOBMANAGER_BIND_HOST)?,
            adoption_timeout: self.duration(&o::ADOPTION_TIMEOUT)?,
            adaptive: self.adaptive()?,
        })
    }

    fn adaptive(&self) -> Result<Option<AdaptiveSettings>> {
        let settings = AdaptiveSettings {
            submission_wait: self.0.read(&o::ADAPTIVE_SUBMISSION_WAIT, value::duration)?,
            submission_stabilization: self.duration(&o::ADAPTIVE_SUBMISSION_STABILIZATION)?,
            executing_stabilization: self.duration(&o::ADAPTIVE_EXECUTING_STABILIZATION)?,
            cooldown_after_rescaling: self.duration(&o::ADAPTIVE_COOLDOWN)?,
        };
        Ok((self.choice(&o::SCHEDULER)? == Some("adaptive")).then_some(settings))
    }

    fn rest(&self) -> Result<RestSettings> {
        Ok(RestSettings {
            address: self.name(&o::REST_ADDRESS)?,
            port: self.port(&o::REST_PORT, 8081)?,
            bind_address: self.name(&o::REST_BIND_ADDRESS)?,
        })
    }

    fn taskmanager(&self) -> Result<TaskManagerSettings> {
        let data_port = self.always(&o::DATA_PORT, value::port)?;
        Ok(TaskManagerSettings {
            resource_id: self.text(&o::RESOURCE_ID).unwrap_or_else(|| format!("tm-{}", std::process::id())),
            host: self.name(&o::TASKMANAGER_HOST)?,
            bind_host: self.name(&o::TASKMANAGER_BIND_HOST)?,
            data_port,
            data_bind_port: self.port(&o::DATA_BIND_PORT, data_port)?,
            slots: self.count(&o::TASK_SLOTS)?,
            process_memory: self.0.read(&o::PROCESS_MEMORY, value::size)?,
            buffers_per_channel: self.count(&o::BUFFERS_PER_CHANNEL)?,
            debloat: self.debloat()?,
            registration_timeout: self.duration(&o::REGISTRATION_TIMEOUT)?,
            jobmanager_loss_timeout: self.duration(&o::JOBMANAGER_LOSS_TIMEOUT)?,
            drain_timeout: self.duration(&o::DRAIN_TIMEOUT)?,
            cancellation_timeout: self.duration(&o::CANCELLATION_TIMEOUT)?,
        })
    }

    fn debloat(&self) -> Result<Option<DebloatSettings>> {
        let settings = DebloatSettings {
            target: self.duration(&o::DEBLOAT_TARGET)?,
            period: self.duration(&o::DEBLOAT_PERIOD)?,
            samples: self.count(&o::DEBLOAT_SAMPLES)?,
            threshold_percentages: self.count(&o::DEBLOAT_THRESHOLD)?,
        };
        Ok(self.flag(&o::DEBLOAT_ENABLED)?.then_some(settings))
    }

    fn heartbeat(&self) -> Result<HeartbeatSettings> {
        let heartbeat = HeartbeatSettings {
            interval: self.duration(&o::HEARTBEAT_INTERVAL)?,
            timeout: self.duration(&o::HEARTBEAT_TIMEOUT)?,
        };
        if heartbeat.timeout <= heartbeat.interval {
            let why = format!("must be longer than {} ({:?})", o::HEARTBEAT_INTERVAL.key, heartbeat.interval);
            return Err(self.0.error(&o::HEARTBEAT_TIMEOUT, &why));
        }
        Ok(heartbeat)
    }

    fn log(&self) -> Result<LogSettings> {
        let level = self.name(&o::LOG_LEVEL)?;
        let parsed = level.parse::<tracing_subscriber::filter::Targets>();
        parsed.map_err(|error| self.0.error(&o::LOG_LEVEL, &format!("is no log level: {error}")))?;
        let format = match self.choice(&o::LOG_FORMAT)? {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        };
        Ok(LogSettings { level, format })
    }
}
