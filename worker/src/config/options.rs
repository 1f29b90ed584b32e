//! The table of all settings. The documentation, the checks and the mapping from environment variables are made from
//! it.

use std::time::Duration;

use millrace_core::key::HIGHEST_MAX_PARALLELISM;

use super::value::ValueKind::{self, Choice, Count, Factor, Flag, JobId, Port, Size, Text};

/// A setting.
#[derive(Debug)]
pub struct ConfigOption {
    /// Its name.
    pub key: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What its value may be.
    pub kind: ValueKind,
    /// A word that is allowed instead of such a value, and means that there is none.
    pub or: Option<&'static str>,
    /// What holds when it is not set; `None` where it then depends on other things, or where nothing holds.
    pub default: Option<&'static str>,
    /// Whether its value must not be shown.
    pub secret: bool,
    /// What it is for.
    pub doc: &'static str,
}

impl ConfigOption {
    const fn new(key: &'static str, kind: ValueKind, doc: &'static str) -> Self {
        Self { key, aliases: &[], kind, or: None, default: None, secret: false, doc }
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn or(mut self, word: &'static str) -> Self {
        self.or = Some(word);
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// All its names, the proper one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.key).chain(self.aliases.iter().copied())
    }

    /// Whether a text is a value of it, and if not, why.
    pub fn check(&self, text: &str) -> Result<(), String> {
        match self.or {
            Some(word) if text.eq_ignore_ascii_case(word) => Ok(()),
            Some(word) => self.kind.check(text).map_err(|why| format!("{why}, or {word}")),
            None => self.kind.check(text),
        }
    }
}

/// Settings that belong together in the documentation.
#[derive(Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Its settings.
    pub options: &'static [&'static ConfigOption],
}

/// The setting with this name or alias.
pub fn find(name: &str) -> Option<&'static ConfigOption> {
    all().find(|option| option.names().any(|known| known == name))
}

/// All settings.
pub fn all() -> impl Iterator<Item = &'static ConfigOption> {
    SECTIONS.iter().flat_map(|section| section.options.iter().copied())
}

const fn millis(least: u64) -> ValueKind {
    ValueKind::Duration { least: Duration::from_millis(least) }
}

const fn from(least: u32) -> ValueKind {
    Count { least, most: u32::MAX }
}

const ANY_SIZE: ValueKind = Size { most: u64::MAX };
const MODES: ValueKind = Choice(&[&["EXACTLY_ONCE"], &["AT_LEAST_ONCE"]]);
const RETENTIONS: ValueKind = Choice(&[&["DELETE_ON_CANCELLATION"], &["RETAIN_ON_CANCELLATION"]]);
const SCHEDULERS: ValueKind = Choice(&[&["default"], &["adaptive"]]);
const STRATEGIES: ValueKind = Choice(&[
    &["none", "off", "disable"],
    &["fixed-delay", "fixeddelay"],
    &["exponential-delay", "exponentialdelay"],
    &["failure-rate", "failurerate"],
]);

macro_rules! options {
    ($($title:literal { $($name:ident = $key:literal, $kind:expr, $doc:literal $(, $method:ident $argument:tt)*;)* })*) => {
        $($(
            #[doc = concat!("`", $key, "`")]
            pub static $name: ConfigOption = ConfigOption::new($key, $kind, $doc)$(.$method $argument)*;
        )*)*
        /// All settings, in the order of the documentation.
        pub static SECTIONS: &[Section] = &[$(Section { title: $title, options: &[$(&$name),*] }),*];
    };
}

options! {
    "Parallelism" {
        PARALLELISM = "parallelism.default", Count { least: 1, most: HIGHEST_MAX_PARALLELISM },
            "How many subtasks an operator has that says nothing else.", default("1");
        MAX_PARALLELISM = "pipeline.max-parallelism", Count { least: 1, most: HIGHEST_MAX_PARALLELISM },
            "The number of key groups: the highest parallelism that the job can ever have. It is fixed for the job's \
             life, a checkpoint of another maximum is refused.", default("128");
    }
    "Checkpoints" {
        CHECKPOINT_INTERVAL = "execution.checkpointing.interval", millis(10),
            "Time between the starts of two checkpoints. Without it checkpoints are off.", or("off"), default("off");
        CHECKPOINT_MODE = "execution.checkpointing.mode", MODES,
            "Whether each record's effect is in state exactly once after a failure, or may be there again.",
            default("EXACTLY_ONCE");
        CHECKPOINT_TIMEOUT = "execution.checkpointing.timeout", millis(1),
            "A checkpoint that takes longer is abandoned.", default("10 min");
        CHECKPOINT_MIN_PAUSE = "execution.checkpointing.min-pause", millis(0),
            "Least time between the end of a checkpoint and the start of the next.", default("0 ms");
        CHECKPOINT_MAX_CONCURRENT = "execution.checkpointing.max-concurrent-checkpoints", from(1),
            "How many checkpoints may be under way at once.", default("1");
        CHECKPOINT_TOLERABLE_FAILED = "execution.checkpointing.tolerable-failed-checkpoints", from(0),
            "How many checkpoints may fail in a row before the job fails. (Flink's default is 0.)",
            or("unlimited"), default("unlimited");
        CHECKPOINT_NUM_RETAINED = "execution.checkpointing.num-retained", from(1),
            "How many completed checkpoints are kept. (Flink's default is 1.)",
            aliases(&["state.checkpoints.num-retained"]), default("3");
        CHECKPOINT_RETENTION = "execution.checkpointing.externalized-checkpoint-retention", RETENTIONS,
            "Whether checkpoints are deleted when a user cancels the job or it finishes. A failed job keeps them.",
            default("DELETE_ON_CANCELLATION");
        CHECKPOINT_UNALIGNED = "execution.checkpointing.unaligned.enabled", Flag,
            "Under backpressure barriers overtake records, which then belong to the checkpoint, so that it completes in \
             spite of them. Needs `EXACTLY_ONCE` and at most one checkpoint at once; edges that are neither by key nor \
             rebalanced stay aligned.",
            aliases(&["execution.checkpointing.unaligned"]), default("false");
        ALIGNED_TIMEOUT = "execution.checkpointing.aligned-checkpoint-timeout", millis(0),
            "With unaligned checkpoints: for so long after its trigger a checkpoint's barriers overtake nothing.",
            aliases(&["execution.checkpointing.alignment-timeout"]), default("0 ms");
        DATA_INLINE_THRESHOLD = "execution.checkpointing.data-inline-threshold", Size { most: 1 << 20 },
            "State of a subtask up to this size lies in the checkpoint's metadata instead of a file of its own.",
            aliases(&["state.storage.fs.memory-threshold"]), default("20kb");
        CHECKPOINT_INCREMENTAL = "execution.checkpointing.incremental", Flag,
            "`rocksdb`: a checkpoint writes only the files that the last one has not, instead of all state.",
            aliases(&["state.backend.incremental"]), default("false");
    }
    "Restarts" {
        RESTART_STRATEGY = "restart-strategy.type", STRATEGIES,
            "Whether and when a failed job starts again. Where it is not set: `exponential-delay` with checkpoints, \
             `none` without.", aliases(&["restart-strategy"]);
        FIXED_DELAY_ATTEMPTS = "restart-strategy.fixed-delay.attempts", from(0),
            "`fixed-delay`: how many restarts.", default("1");
        FIXED_DELAY_DELAY = "restart-strategy.fixed-delay.delay", millis(0),
            "`fixed-delay`: time before each restart.", default("1 s");
        EXPONENTIAL_INITIAL = "restart-strategy.exponential-delay.initial-backoff", millis(1),
            "`exponential-delay`: time before the second restart; the first is immediate.", default("1 s");
        EXPONENTIAL_MAX = "restart-strategy.exponential-delay.max-backoff", millis(1),
            "`exponential-delay`: longest time before a restart.", default("1 min");
        EXPONENTIAL_MULTIPLIER = "restart-strategy.exponential-delay.backoff-multiplier",
            Factor { least: 1.0, most: 1000.0 },
            "`exponential-delay`: what the time is multiplied by from one restart to the next.", default("1.5");
        EXPONENTIAL_RESET = "restart-strategy.exponential-delay.reset-backoff-threshold", millis(1),
            "`exponential-delay`: after this long without a failure the next restart counts as the first.",
            default("1 h");
        FAILURE_RATE_FAILURES = "restart-strategy.failure-rate.max-failures-per-interval", from(1),
            "`failure-rate`: how many failures within the interval are borne.", default("1");
        FAILURE_RATE_INTERVAL = "restart-strategy.failure-rate.failure-rate-interval", millis(1),
            "`failure-rate`: the time over which failures are counted.", default("1 min");
        FAILURE_RATE_DELAY = "restart-strategy.failure-rate.delay", millis(0),
            "`failure-rate`: time before each restart.", default("1 s");
    }
    "State" {
        STATE_BACKEND = "state.backend", Text,
            "Where state lives: `memory` (also `jobmanager`), `filesystem`, or the name of a backend that \
             the program registers; `rocksdb` in programs that are built with Millrace's feature of that name. \
             `hashmap` is whichever of the first two suits `state.checkpoints.dir`, as if \
             nothing were set: `memory` without a checkpoint directory, `filesystem` with one.",
            aliases(&["state.backend.type"]);
        CHECKPOINT_DIRECTORY = "state.checkpoints.dir", Text,
            "Where checkpoints go: `file:///path`, `s3://bucket/path`, a path or, in programs that are built with \
             Millrace's feature `hdfs`, `hdfs://namenode:port/path`. Without it they live in the jobmanager's memory and \
             end with it.",
            aliases(&["execution.checkpointing.dir", "state.backend.fs.checkpointdir"]);
        MEMORY_MAX_STATE_SIZE = "state.backend.memory.max-state-size", ANY_SIZE,
            "`memory`: the largest snapshot of one state of one subtask. A larger one fails the checkpoint.",
            default("5mb");
        ROCKSDB_MEMORY_SIZE = "state.backend.rocksdb.memory.size", ANY_SIZE,
            "`rocksdb`: what it may hold in memory in each taskmanager, whatever the number of operators and slots: \
             cache, indexes, filters and the hot entries in front of them. At least 8mb, and 512kb for each subtask with \
             keyed state: where there are more, they take more, and a warning says so.",
            default("256mb");
        ROCKSDB_LOCAL_DIRECTORY = "state.backend.rocksdb.localdir", Text,
            "`rocksdb`: the directory in which a taskmanager's state lies; no two taskmanagers can share it. Unset: one \
             of its own among the system's temporary files.";
        FROM_LOCAL = "execution.state-recovery.from-local", Flag,
            "Whether taskmanagers keep local copies of the state that they write to the checkpoint directory, and go back to \
             them. (Flink's default is false.) A directory of this machine (`file://`) is read as it is. `rocksdb` keeps \
             links to its own files, in its local directory.",
            aliases(&["state.backend.local-recovery"]), default("true");
        LOCAL_ROOT = "taskmanager.state.local.root-dirs", Text,
            "The directory below which local copies lie. A taskmanager takes over what a dead one of the same job has left \
             there. Unset: the system's directory for temporary files.";
        RESTORE_PATH = "execution.state-recovery.path", Text,
            "A retained checkpoint to start the job from, such as `file:///path/<job-id>/chk-7`.",
            aliases(&["execution.savepoint.path", "from-checkpoint"]);
        ALLOW_NON_RESTORED = "execution.state-recovery.ignore-unclaimed-state", Flag,
            "Start although the checkpoint holds state that no operator of the job claims; that state is dropped.",
            aliases(&["execution.savepoint.ignore-unclaimed-state", "allow-non-restored-state"]), default("false");
        ALLOW_OLDER = "execution.state-recovery.allow-older-checkpoint", Flag,
            "Go back to an older checkpoint where the newest is damaged, although a sink may have committed past it: \
             what it committed since is committed again.", aliases(&["allow-older-checkpoint"]), default("false");
    }
    "Object store" {
        S3_ENDPOINT = "s3.endpoint", Text, "URL of an S3-compatible service. Unset: AWS.";
        S3_REGION = "s3.region", Text, "Region. Unset: the environment's (`AWS_REGION`), or `us-east-1`.",
            aliases(&["s3.endpoint.region"]);
        S3_ACCESS_KEY = "s3.access-key", Text,
            "Access key. Unset: the environment's or the profile's credentials.", aliases(&["s3.access.key"]), secret();
        S3_SECRET_KEY = "s3.secret-key", Text, "Secret key that belongs to the access key.",
            aliases(&["s3.secret.key"]), secret();
        S3_CA_BUNDLE = "s3.ssl.ca-bundle", Text,
            "PEM file with certificates of authorities that the service's certificate may be signed by, besides those \
             of the system.";
        S3_PATH_STYLE = "s3.path.style.access", Flag,
            "Address buckets by path (`host/bucket`) instead of by host name. Unset: by path with an endpoint.",
            aliases(&["s3.path-style-access"]);
    }
    "Jobmanager" {
        RPC_ADDRESS = "jobmanager.rpc.address", Text, "Host at which taskmanagers find the jobmanager.",
            default("localhost");
        RPC_PORT = "jobmanager.rpc.port", Port,
            "Port at which taskmanagers find the jobmanager. Unset: 6123, in local mode any free one.";
        JOBMANAGER_BIND_HOST = "jobmanager.bind-host", Text,
            "Address on which the jobmanager listens for taskmanagers; `0.0.0.0` for all.",
            aliases(&["jobmanager.rpc.bind-host"]), default("localhost");
        ADOPTION_TIMEOUT = "jobmanager.adoption-timeout", millis(0),
            "How long a jobmanager that takes over waits until all tasks of the job that run under the one before have \
             been reported, so that it can go on with them. After that, or with 0 at once, it starts the job anew.",
            default("3 s");
        SCHEDULER = "jobmanager.scheduler", SCHEDULERS,
            "What a job does that has fewer slots than it wants, because a taskmanager is gone or has not come: `default` \
             waits for them; `adaptive` runs with those that there are, at a lower parallelism, and with more when they \
             come.", default("default");
        ADAPTIVE_SUBMISSION_WAIT = "jobmanager.adaptive-scheduler.submission.resource-wait-timeout", millis(0),
            "`adaptive`: how long a job that starts, or starts again, waits for slots at most. After that it runs with \
             those that there are, or fails where there are none. (Flink's default is 5 min.)", or("off"),
            aliases(&["jobmanager.adaptive-scheduler.resource-wait-timeout"]), default("off");
        ADAPTIVE_SUBMISSION_STABILIZATION = "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout",
            millis(0), "`adaptive`: how long a job that starts, or starts again, and has at least one slot waits for the \
             others.", aliases(&["jobmanager.adaptive-scheduler.resource-stabilization-timeout"]), default("10 s");
        ADAPTIVE_EXECUTING_STABILIZATION = "jobmanager.adaptive-scheduler.executing.resource-stabilization-timeout",
            millis(0), "`adaptive`: how long a job that could run with more slots, but not with all that it wants, waits \
             for the others before it takes those that there are. For the last ones it waits for nothing.",
            default("1 min");
        ADAPTIVE_COOLDOWN = "jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling", millis(0),
            "`adaptive`: least time that a job runs at a parallelism before it takes more slots.",
            aliases(&["jobmanager.adaptive-scheduler.scaling-interval.min"]), default("30 s");
        JOB_ID = "job.id", JobId, "The job's id. Unset: a new one at each start.";
        DEPLOYMENT = "job.deployment", from(0),
            "The number of the job's deployment. A job that has failed for good is not run again, except by a \
             jobmanager whose number is higher than that of the one that gave it up: it goes on from the newest \
             checkpoint.", default("0");
        SHUTDOWN_ON_FINISH = "execution.shutdown-on-application-finish", Flag,
            "Whether the jobmanager's process ends with its job. If not, it answers REST requests about the job that \
             has ended until it gets a SIGTERM.", default("true");
    }
    "REST" {
        REST_ADDRESS = "rest.address", Text, "Host at which clients find the REST server.", default("localhost");
        REST_PORT = "rest.port", Port, "Port of the REST server. Unset: 8081, in local mode any free one.";
        REST_BIND_ADDRESS = "rest.bind-address", Text, "Address on which the REST server listens; `0.0.0.0` for all.",
            aliases(&["rest.bind-host"]), default("localhost");
    }
    "Taskmanager" {
        RESOURCE_ID = "taskmanager.resource-id", Text,
            "The taskmanager's name, which it keeps when it is started again; its id begins with it. Unset: `tm-` and \
             its process id.";
        TASKMANAGER_HOST = "taskmanager.host", Text, "Host at which other taskmanagers find this one.",
            default("localhost");
        TASKMANAGER_BIND_HOST = "taskmanager.bind-host", Text,
            "Address on which the taskmanager listens for others; `0.0.0.0` for all.", default("localhost");
        DATA_PORT = "taskmanager.data.port", Port,
            "Port at which other taskmanagers find this one for records; 0: the one that it listens on.", default("0");
        DATA_BIND_PORT = "taskmanager.data.bind-port", Port,
            "Port on which the taskmanager listens for records, where that is another than the one at which it is \
             found: behind a proxy, say. Unset: `taskmanager.data.port`.";
        TASK_SLOTS = "taskmanager.numberOfTaskSlots", Count { least: 1, most: 4096 },
            "How many slots the taskmanager offers; one holds a subtask of every operator.", default("1");
        PROCESS_MEMORY = "taskmanager.memory.process.size", ANY_SIZE,
            "What the taskmanager's process may take of memory: state on the heap that makes it take more fails its task, \
             with an error that names it. Unset: its container's limit, or what the machine has left.";
        BUFFERS_PER_CHANNEL = "taskmanager.network.memory.buffers-per-channel", Count { least: 1, most: 4096 },
            "How many batches may wait in a channel between two subtasks.",
            aliases(&["taskmanager.network.buffers-per-channel"]), default("16");
        DEBLOAT_ENABLED = "taskmanager.network.memory.buffer-debloat.enabled", Flag,
            "Whether what may wait in front of a task adapts to what the task gets through, so that it is less than \
             `buffer-debloat.target` of work. (Flink's default is false.)", default("true");
        DEBLOAT_TARGET = "taskmanager.network.memory.buffer-debloat.target", millis(1),
            "How much work may wait in front of a task, in all its channels together; a batch in each at any rate.",
            default("1 s");
        DEBLOAT_PERIOD = "taskmanager.network.memory.buffer-debloat.period", millis(1),
            "How often a task's throughput is measured.", default("200 ms");
        DEBLOAT_SAMPLES = "taskmanager.network.memory.buffer-debloat.samples", from(1),
            "Over how many measurements the throughput is averaged.", default("20");
        DEBLOAT_THRESHOLD = "taskmanager.network.memory.buffer-debloat.threshold-percentages",
            Count { least: 0, most: 100 },
            "Changes below this many percent are left out.", default("25");
        REGISTRATION_TIMEOUT = "taskmanager.registration.timeout", millis(1),
            "How long a starting taskmanager tries to reach the jobmanager before it ends.", default("5 min");
        JOBMANAGER_LOSS_TIMEOUT = "taskmanager.jobmanager-loss-timeout", millis(0),
            "How long tasks go on without a jobmanager.", default("60 s");
        DRAIN_TIMEOUT = "taskmanager.drain-timeout", millis(0),
            "How long a taskmanager that gets a SIGTERM may take to hand its tasks over at a checkpoint. After that, or \
             at a second signal, it ends at once. On Kubernetes it must be below the pod's grace period.",
            default("20 s");
        CANCELLATION_TIMEOUT = "task.cancellation.timeout", millis(1),
            "A task that does not end this long after it was told to ends its process.", default("30 s");
    }
    "Heartbeats" {
        HEARTBEAT_INTERVAL = "heartbeat.interval", millis(10),
            "Time between two heartbeats of jobmanager and taskmanager.", default("1 s");
        HEARTBEAT_TIMEOUT = "heartbeat.timeout", millis(10),
            "A peer that was silent this long is lost. A closed connection is noticed at once.", default("3 s");
    }
    "Metrics, logs, cluster" {
        METRICS_PORT = "metrics.port", Port,
            "Port for `/metrics` and `/health`, on the bind host, or `off`. Unset: a taskmanager takes any free one, which \
             its log names; the jobmanager none, since it serves both on the REST port as well. Each process of a machine \
             needs one of its own: 0.", or("off");
        LOG_LEVEL = "log.level", Text,
            "What is logged: `error`, `warn`, `info`, `debug` or `trace`, also for single modules, such as \
             `info,millrace_runtime=debug`.", default("info");
        LOG_FORMAT = "log.format", Choice(&[&["text"], &["json"]]), "How it is logged, to standard error.",
            default("text");
        LOG_DIRECTORY = "env.log.dir", Text,
            "Where `millrace run` puts the logs of the processes that it starts. Unset: `millrace/log` in the user's \
             state directory (`$XDG_STATE_HOME` or `~/.local/state`).";
        CLUSTER_DIRECTORY = "cluster.directory", Text,
            "Where a jobmanager announces itself to the `millrace` command of this machine. Unset: it does not; the \
             command uses `$XDG_RUNTIME_DIR/millrace` or `millrace-<user>` in the system's temporary directory.";
        SECURITY_TOKEN = "security.token", Text,
            "A word that the processes of a cluster show each other. Unset: none is asked for.", secret();
    }
}
