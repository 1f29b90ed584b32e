//! The configuration as a whole: precedence, names, origins, values and what is refused.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use millrace_core::{
    checkpoint::{CheckpointConfig, CheckpointingMode, Retention},
    ids::JobId,
    restart::RestartStrategy,
};

use super::*;

fn from(variables: &[(&str, &str)]) -> Result<Configuration> {
    Configuration::from_variables(variables.iter().map(|(key, value)| (key.to_string(), value.to_string())))
}

fn explicit(settings: &[(&str, &str)]) -> Result<Configuration> {
    let mut config = Configuration::default();
    settings.iter().try_for_each(|(key, value)| config.set_explicit(key, value))?;
    Ok(config)
}

fn settings(settings: &[(&str, &str)]) -> Result<Settings> {
    explicit(settings)?.settings()
}

fn message<T: fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert!(!error.retryable, "no restart cures {error}");
    error.message
}

#[test]
fn without_anything_set_the_defaults_hold() {
    let settings = Configuration::default().settings().unwrap();
    assert_eq!(settings.parallelism, 1);
    assert_eq!(settings.max_parallelism, 128);
    assert_eq!(settings.checkpoint, CheckpointConfig::default());
    assert_eq!(settings.restart_strategy, RestartStrategy::None);
    assert_eq!(settings.state_backend, "memory");
    assert_eq!(settings.memory_max_state_size, 5 << 20);
    assert_eq!(settings.data_inline_threshold, 20 << 10);
    assert_eq!((settings.rest.port, settings.jobmanager.rpc_port), (0, 0), "a local run takes any free port");
    assert_eq!(settings.heartbeat.timeout, Duration::from_secs(3));
    assert_eq!((settings.metrics_port, settings.job_id, settings.cluster_directory), (None, None, None));
    let cluster = from(&[(ROLE, "jobmanager")]).unwrap().settings().unwrap();
    assert_eq!((cluster.rest.port, cluster.jobmanager.rpc_port), (8081, 6123));
}

#[test]
fn a_later_layer_wins_and_is_the_origin() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("conf.yaml");
    fs::write(&file, "# ours\nrest.port: 1\nparallelism.default: 2\njobmanager.rpc.port: 3\n").unwrap();
    let file = file.to_str().unwrap();
    let mut config = from(&[
        (CONF, file),
        ("MILLRACE_REST_PORT", "11"),
        ("MILLRACE_PARALLELISM_DEFAULT", "12"),
        ("MILLRACE_LOG_FORMAT", "json"),
        (OVERRIDES, "rest.port=31\n\nlog.format = text\n"),
    ])
    .unwrap();
    config.set_from_program("parallelism.default", 22).unwrap();
    config.set_from_program("rest.port", 21).unwrap();
    config.set_from_program("task.cancellation.timeout", "9 s").unwrap();

    let told = |key: &str| {
        let entry = config.entries().into_iter().find(|entry| entry.key == key).unwrap();
        assert_eq!(config.origin(key).unwrap(), entry.origin);
        (entry.value, entry.origin.to_string())
    };
    let pair = |value: &str, origin: &str| (value.to_string(), origin.to_string());
    assert_eq!(told("rest.port"), pair("31", "-D"));
    assert_eq!(told("parallelism.default"), pair("22", "program"));
    assert_eq!(told("task.cancellation.timeout"), pair("9 s", "program"));
    assert_eq!(told("log.format"), pair("text", "-D"));
    assert_eq!(told("jobmanager.rpc.port"), pair("3", &format!("{file} line 4")));
    assert_eq!(told("heartbeat.interval"), pair("1 s", "default"));
    let settings = config.settings().unwrap();
    assert_eq!((settings.rest.port, settings.parallelism, settings.jobmanager.rpc_port), (31, 22, 3));
    assert_eq!(settings.taskmanager.cancellation_timeout, Duration::from_secs(9));
}

#[test]
fn an_alias_in_a_stronger_layer_overrides_the_key_in_a_weaker_one() {
    let mut config = from(&[("MILLRACE_STATE_CHECKPOINTS_DIR", "file:///a")]).unwrap();
    config.set_from_program("state.backend.fs.checkpointdir", "file:///b").unwrap();
    assert_eq!(config.settings().unwrap().checkpoint_dir.as_deref(), Some("file:///b"));
    assert_eq!(config.origin("execution.checkpointing.dir").unwrap(), Origin::Program);
}

#[test]
fn two_names_of_one_setting_in_one_layer_are_refused() {
    assert_eq!(
        message(explicit(&[("state.checkpoints.dir", "/a"), ("execution.checkpointing.dir", "/b")])),
        "execution.checkpointing.dir (-D) and state.checkpoints.dir (-D) are the same setting: set one of them"
    );
    assert_eq!(
        message(from(&[("MILLRACE_STATE_BACKEND", "memory"), ("MILLRACE_STATE_BACKEND_TYPE", "memory")])),
        "environment variables MILLRACE_STATE_BACKEND and MILLRACE_STATE_BACKEND_TYPE are the same setting: set one of \
         them"
    );
    // The same name again is what shells and scripts do to override.
    assert_eq!(settings(&[("rest.port", "1"), ("rest.port", "2")]).unwrap().rest.port, 2);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let mut config = Configuration::default();
    let error = config.set_from_program("execution.checkpointing.intervall", "1 s").unwrap_err();
    assert_eq!(
        error.message,
        "unknown setting \"execution.checkpointing.intervall\" (program): did you mean \
         execution.checkpointing.interval?"
    );
    assert_eq!(
        message(explicit(&[("web.submit.enable", "x")])),
        "unknown setting \"web.submit.enable\" (-D): docs/configuration.md lists all settings"
    );
    for (variable, hint) in [
        ("MILLRACE_RESTPORT", "did you mean MILLRACE_REST_PORT?"),
        ("MILLRACE_PARALLELISM", "did you mean MILLRACE_PARALLELISM_DEFAULT?"),
        ("MILLRACE_CONFIG", "did you mean MILLRACE_CONF?"),
        ("MILLRACE_WHATEVER", "no setting has this name; names that begin with MILLRACE_TEST_ are free"),
    ] {
        let meant = format!("unknown environment variable {variable}: {hint}");
        assert_eq!(message(from(&[(variable, "1")])), meant);
    }
}

#[test]
fn a_file_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("conf.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, "rest.port: 8081\n\nrest.prot: 1\n").unwrap();
    let meant = format!("unknown setting \"rest.prot\" ({path} line 3): did you mean rest.port?");
    assert_eq!(message(from(&[(CONF, path)])), meant);
    fs::write(&file, "heartbeat.timeout: 3 fortnights\n").unwrap();
    let meant = format!(
        "heartbeat.timeout: \"3 fortnights\" is not a duration: write a whole number with a unit, such as 1000ms, 1 s \
         or 10 min ({path} line 1)"
    );
    assert_eq!(message(from(&[(CONF, path)])), meant);
    fs::remove_file(&file).unwrap();
    let error = message(from(&[(CONF, path)]));
    assert!(error.starts_with(&format!("configuration file {path} (MILLRACE_CONF) cannot be read: ")), "{error}");
}

#[test]
fn values_that_make_no_sense_are_refused_naming_key_value_and_origin() {
    for (key, value, why) in [
        ("parallelism.default", "0", "\"0\" is out of range: choose a whole number from 1 to 32768"),
        ("parallelism.default", "-1", "\"-1\" is out of range: choose a whole number from 1 to 32768"),
        ("parallelism.default", "two", "\"two\" is not a whole number from 1 to 32768"),
        ("pipeline.max-parallelism", "40000", "\"40000\" is out of range: choose a whole number from 1 to 32768"),
        ("execution.checkpointing.interval", "0", "\"0\" is too short: 10 ms is the least, or off"),
        (
            "execution.checkpointing.interval",
            "-1 s",
            "\"-1 s\" is not a duration: write a whole number with a unit, such as 1000ms, 1 s or 10 min, or off",
        ),
        ("execution.checkpointing.timeout", "0 s", "\"0 s\" is too short: 1 ms is the least"),
        ("execution.checkpointing.mode", "TWICE", "\"TWICE\" is unknown: choose EXACTLY_ONCE or AT_LEAST_ONCE"),
        ("execution.checkpointing.num-retained", "0", "\"0\" is out of range: choose a whole number from 1"),
        (
            "execution.checkpointing.tolerable-failed-checkpoints",
            "some",
            "\"some\" is not a whole number from 0, or unlimited",
        ),
        ("execution.checkpointing.data-inline-threshold", "2mb", "\"2mb\" is too large: 1048576 bytes are the most"),
        (
            "restart-strategy",
            "sometimes",
            "\"sometimes\" is unknown: choose none or fixed-delay or exponential-delay or failure-rate",
        ),
        (
            "state.backend.memory.max-state-size",
            "5 apples",
            "\"5 apples\" is not a size: write a whole number with a unit, such as 20kb or 5 MiB",
        ),
        ("state.backend.memory.max-state-size", "999999999999 tb", "\"999999999999 tb\" is too large a size"),
        ("rest.port", "65536", "\"65536\" is not a port: choose 0 (any free one) to 65535"),
        ("allow-non-restored-state", "yes", "\"yes\" is neither true nor false"),
        ("state.checkpoints.dir", " ", "\"\" is empty: give it a value or leave the setting out"),
        ("job.id", "12", "\"12\" is not 32 hexadecimal digits"),
        (
            "restart-strategy.exponential-delay.backoff-multiplier",
            "NaN",
            "\"NaN\" is out of range: choose a number from 1 to 1000",
        ),
    ] {
        assert_eq!(message(explicit(&[(key, value)])), format!("{key}: {why} (-D)"));
        let variable = variable_name(key);
        let meant = format!(": {why} (environment variable {variable})");
        assert!(message(from(&[(&variable, value)])).ends_with(&meant), "{key}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    assert_eq!(
        message(settings(&[("parallelism.default", "9"), ("pipeline.max-parallelism", "8")])),
        "parallelism.default: \"9\" is above pipeline.max-parallelism, which is 8 (-D)"
    );
    assert_eq!(
        message(settings(&[("heartbeat.interval", "5 s")])),
        "heartbeat.timeout: \"3 s\" must be longer than heartbeat.interval (5s) (default)"
    );
    assert_eq!(
        message(settings(&[("s3.access-key", "AKIA")])),
        "s3.access-key: ****** is of no use alone: set s3.secret-key too (-D)"
    );
    let error = message(settings(&[
        ("restart-strategy", "exponential-delay"),
        ("restart-strategy.exponential-delay.max-backoff", "1 ms"),
    ]));
    assert!(error.contains("0 < initial <= max"), "{error}");
    let error = message(settings(&[("log.level", "info,x=loudly")]));
    assert!(error.starts_with("log.level: \"info,x=loudly\" is no log level: "), "{error}");
}

#[test]
fn durations_and_sizes_are_read_as_flink_reads_them() {
    for (text, millis) in [
        ("1000ms", 1000),
        ("1 s", 1000),
        ("10 min", 600_000),
        ("10m", 600_000),
        ("250", 250),
        ("2 H", 7_200_000),
        ("1 day", 86_400_000),
        ("5000000 ns", 5),
    ] {
        assert_eq!(value::duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for (text, bytes) in [("5mb", 5 << 20), ("20kb", 20 << 10), ("5 MiB", 5 << 20), ("7", 7), ("1g", 1 << 30), ("0", 0)]
    {
        assert_eq!(value::size(text), Ok(bytes), "{text}");
    }
    for wrong in ["", "s", "1.5 s", "-1 s", "+1 s", "1 s 2", "99999999999999999999 ms"] {
        assert!(value::duration(wrong).is_err(), "{wrong}");
    }
    assert_eq!(value::duration("18446744073709551615 d"), Err("is too long a duration".to_string()));
    for duration in [0, 1, 1500, 60_000, 90_000, 7_200_000, 86_400_000].map(Duration::from_millis) {
        assert_eq!(value::duration(&value::show_duration(duration)), Ok(duration));
    }
}

#[test]
fn checkpoint_settings_are_read() {
    let read = settings(&[
        ("execution.checkpointing.interval", "1000ms"),
        ("execution.checkpointing.mode", "at-least-once"),
        ("execution.checkpointing.min-pause", "500"),
        ("execution.checkpointing.max-concurrent-checkpoints", "2"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "4"),
        ("state.checkpoints.num-retained", "7"),
        ("execution.checkpointing.externalized-checkpoint-retention", "retain_on_cancellation"),
    ]);
    let meant = CheckpointConfig {
        interval: Some(Duration::from_secs(1)),
        mode: CheckpointingMode::AtLeastOnce,
        min_pause: Duration::from_millis(500),
        max_concurrent: 2,
        tolerable_failed: Some(4),
        num_retained: 7,
        retention: Retention::RetainOnCancellation,
        ..CheckpointConfig::default()
    };
    assert_eq!(read.unwrap().checkpoint, meant);
}

#[test]
fn unaligned_checkpoints_are_one_at_a_time_and_exactly_once() {
    let on = ("execution.checkpointing.unaligned", "true");
    let read = settings(&[on, ("execution.checkpointing.aligned-checkpoint-timeout", "2 s")]).unwrap().checkpoint;
    assert_eq!((read.unaligned, read.aligned_timeout), (true, Duration::from_secs(2)));
    for wrong in
        [("execution.checkpointing.mode", "AT_LEAST_ONCE"), ("execution.checkpointing.max-concurrent-checkpoints", "2")]
    {
        let error = settings(&[on, wrong]).unwrap_err();
        assert!(error.message.contains("execution.checkpointing.unaligned.enabled"), "{error}");
        assert!(error.message.contains(wrong.1), "{error}");
    }
}

#[test]
fn checkpoints_can_be_switched_off_over_a_weaker_layer() {
    let mut config = explicit(&[("execution.checkpointing.interval", "off")]).unwrap();
    config.set_from_program("execution.checkpointing.interval", "1 s").unwrap();
    assert!(!config.settings().unwrap().checkpoint.is_enabled());
}

#[test]
fn the_restart_strategy_follows_the_checkpoints_unless_it_is_chosen() {
    let on = ("execution.checkpointing.interval", "1 s");
    assert_eq!(settings(&[on]).unwrap().restart_strategy, RestartStrategy::exponential_delay());
    for off in ["none", "off", "disable"] {
        assert_eq!(settings(&[on, ("restart-strategy", off)]).unwrap().restart_strategy, RestartStrategy::None);
    }
    let fixed = settings(&[
        ("restart-strategy.type", "fixeddelay"),
        ("restart-strategy.fixed-delay.attempts", "2147483647"),
        ("restart-strategy.fixed-delay.delay", "0"),
    ]);
    let meant = RestartStrategy::FixedDelay { attempts: i32::MAX as u32, delay: Duration::ZERO };
    assert_eq!(fixed.unwrap().restart_strategy, meant);
    let rate = settings(&[
        ("restart-strategy.type", "failure-rate"),
        ("restart-strategy.failure-rate.max-failures-per-interval", "3"),
        ("restart-strategy.failure-rate.failure-rate-interval", "5 min"),
        ("restart-strategy.failure-rate.delay", "10 s"),
    ]);
    let meant = RestartStrategy::FailureRate {
        failures: 3,
        interval: Duration::from_secs(300),
        delay: Duration::from_secs(10),
    };
    assert_eq!(rate.unwrap().restart_strategy, meant);
}

#[test]
fn the_state_backend_follows_the_checkpoint_directory_unless_it_is_chosen() {
    let directory = ("state.backend.fs.checkpointdir", "file:///c");
    for (chosen, without, with) in [
        (None, "memory", "filesystem"),
        (Some("hashmap"), "memory", "filesystem"),
        (Some("memory"), "memory", "memory"),
        (Some("jobmanager"), "memory", "memory"),
        (Some("Filesystem"), "filesystem", "filesystem"),
        (Some("rocksdb"), "rocksdb", "rocksdb"),
        (Some("MyBackend"), "MyBackend", "MyBackend"),
    ] {
        let chosen: Vec<_> = chosen.map(|name| ("state.backend", name)).into_iter().collect();
        let read = |more: &[(&str, &str)]| settings(&[&chosen, more].concat()).map(|read| read.state_backend);
        assert_eq!(read(&[]).unwrap(), without, "{chosen:?}");
        assert_eq!(read(&[directory]).unwrap(), with, "{chosen:?}");
    }
}

#[test]
fn s3_is_addressed_by_path_where_there_is_an_endpoint() {
    assert!(!settings(&[]).unwrap().s3.path_style_access);
    let minio = [("s3.endpoint", "http://localhost:9000")];
    assert!(settings(&minio).unwrap().s3.path_style_access);
    let by_host = [minio[0], ("s3.path-style-access", "false")];
    assert!(!settings(&by_host).unwrap().s3.path_style_access);
}

#[test]
fn secrets_are_shown_nowhere() {
    let config =
        explicit(&[("s3.access-key", "AKIA1"), ("s3.secret-key", "hush"), ("security.token", "hush")]).unwrap();
    let settings = config.settings().unwrap();
    assert_eq!(settings.s3.secret_key, Some(Secret("hush".to_string())));
    let shown = format!("{config:?} {settings:?} {:?}", config.entries());
    assert!(!shown.contains("hush") && !shown.contains("AKIA1"), "{shown}");
    let token = config.entries().into_iter().find(|entry| entry.key == "security.token").unwrap();
    assert_eq!((token.value.as_str(), token.origin), (REDACTED, Origin::Explicit));
}

#[test]
fn the_role_comes_from_the_environment() {
    assert_eq!(from(&[]).unwrap().role(), Role::Local);
    assert_eq!(from(&[(ROLE, "taskmanager")]).unwrap().settings().unwrap().role, Role::TaskManager);
    assert_eq!(
        message(from(&[(ROLE, "worker")])),
        "MILLRACE_ROLE=\"worker\" is no role: choose local, jobmanager or taskmanager"
    );
}

#[test]
fn variables_of_others_are_passed_over() {
    let reserved = environment::RESERVED.map(|variable| (variable, "/x"));
    let others = [&reserved[..], &[("PATH", "/bin"), ("MILLRACE_TEST_SEED", "7")]].concat();
    assert!(from(&others).unwrap().entries().iter().all(|entry| entry.origin == Origin::Default));
}

#[test]
fn overrides_survive_their_encoding() {
    let settings = [("s3.endpoint", "http://h:1/?a=b;c"), ("job.id", "000000000000000000000000000000ab")];
    let config = from(&[(OVERRIDES, &encode_overrides(settings).unwrap())]).unwrap();
    let read = config.settings().unwrap();
    assert_eq!(read.s3.endpoint.as_deref(), Some("http://h:1/?a=b;c"));
    assert_eq!(read.job_id, Some(JobId(0xab)));
    assert!(encode_overrides([("log.level", "a\nrest.port=1")]).is_err());
    assert_eq!(
        message(from(&[(OVERRIDES, "rest.port")])),
        "MILLRACE_OVERRIDES: \"rest.port\" is no setting: write key=value, such as rest.port=8081"
    );
}

#[test]
fn no_name_and_no_variable_means_two_settings() {
    let mut names = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for option in options::all() {
        for name in option.names() {
            assert!(names.insert(name, option.key).is_none(), "{name} is two settings");
            let other = variables.insert(variable_name(name), option.key);
            assert!(other.is_none_or(|other| other == option.key), "{} is two settings", variable_name(name));
        }
    }
    for variable in variables.keys() {
        let reserved =
            [CONF, ROLE, OVERRIDES].iter().chain(&environment::RESERVED).any(|reserved| reserved == variable);
        assert!(!reserved && !variable.starts_with("MILLRACE_TEST_"), "{variable}");
    }
}

#[test]
fn every_default_is_a_value_of_its_setting() {
    for option in options::all() {
        if let Some(default) = option.default {
            assert_eq!(option.check(default), Ok(()), "{}", option.key);
        }
        assert!(option.doc.ends_with('.') || option.doc.ends_with(')'), "{}", option.key);
    }
}

#[test]
fn configuration_docs_are_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let meant = docs::configuration_markdown();
    if std::env::var_os("MILLRACE_TEST_WRITE_DOCS").is_some() {
        fs::write(&path, &meant).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == meant, "docs/configuration.md is out of date: its head says how to write it anew");
}
