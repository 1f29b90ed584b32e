//! The job that everyone tries first: it counts records, and shows what checkpoints are for.
//!
//! Strings from Kafka (or from files) are keyed, by one key for all or each by itself, and counted in a `ValueState`.
//! Each prints a line `<timestamp>: (<record>,<count>)` on the taskmanager's standard output, where the timestamp is the
//! time of processing in UTC, as in `2026-05-04T03:02:01.000Z`. With a parallelism above 1 a line begins with the
//! subtask that printed it, as in `2> `.
//!
//! Kill the taskmanager while it runs, and start another:
//!
//! - Without `--checkpoints` what arrived in between is never seen, and the count begins anew: nothing was kept. The
//!   counts that are printed are right for what was seen since the last start.
//! - With `--checkpoints` no record is lost and the count goes on as if nothing had happened. What was printed after the
//!   last completed checkpoint is printed again: standard output can't take back a line. A line that is printed again
//!   has the same count.
//! - With `--checkpoints --mode at-least-once` no record is lost either, but some may be counted again.

use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Parser, ValueEnum};
use millrace::{
    config::Role,
    connectors::{file::FileStart, kafka::StartingOffsets},
    prelude::*,
    sink::DeliveryGuarantee,
};

use crate::{pair, positive_duration};

/// Counts records from Kafka or from files, and prints each with its count.
#[derive(Parser)]
#[command(group(ArgGroup::new("source").required(true).args(["kafka", "files"])))]
pub struct Args {
    /// A Kafka broker to read from.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// The topic to read.
    #[arg(long, default_value = "input-topic", conflicts_with = "files")]
    topic: String,
    /// The consumer group that offsets are committed to when a checkpoint completes.
    #[arg(long, value_name = "NAME", default_value = "checkpoint-example", conflicts_with = "files")]
    group: String,
    /// A property of librdkafka, for source and sink; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "files")]
    kafka_property: Vec<(String, String)>,
    /// A topic to write to what is printed.
    #[arg(long, value_name = "TOPIC", conflicts_with = "files")]
    kafka_out: Option<String>,
    /// What is promised for that topic. Exactly once: readers with isolation.level=read_committed see each line once,
    /// when its checkpoint is complete.
    #[arg(long, value_enum, default_value_t = Mode::AtLeastOnce)]
    kafka_out_guarantee: Mode,
    /// A directory of growing files to read from, instead of Kafka.
    #[arg(long, value_name = "DIR")]
    files: Option<String>,
    /// Where to begin [default: latest for Kafka, earliest for files].
    #[arg(long)]
    start: Option<Start>,
    /// Turns checkpoints on.
    #[arg(long)]
    checkpoints: bool,
    /// Time between two checkpoints.
    #[arg(long, default_value = "1000ms", value_parser = positive_duration, allow_hyphen_values = true)]
    interval: Duration,
    /// Whether a record may be counted again after a failure.
    #[arg(long, value_enum, default_value_t = Mode::ExactlyOnce)]
    mode: Mode,
    /// memory, filesystem, or another backend's name [default: as configured].
    #[arg(long, value_name = "NAME")]
    state_backend: Option<String>,
    /// Where checkpoints go: file:///..., s3://...
    #[arg(long, value_name = "URI")]
    checkpoint_dir: Option<String>,
    /// How many subtasks each operator has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,
    /// Count all records together, or each different one by itself.
    #[arg(long, value_enum, default_value_t = KeyChoice::Constant)]
    key_by: KeyChoice,
    /// Makes one subtask of the source slow, for tests: so long for each record.
    #[arg(long, value_name = "SUBTASK=DURATION", value_parser = throttle, hide = true)]
    throttle_subtask: Option<Throttle>,
    /// Makes counting slow, for tests: so long for each record.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, hide = true)]
    throttle_count: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Start {
    Latest,
    Earliest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyChoice {
    Constant,
    Record,
}

/// Holds up one subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Throttle {
    subtask: u32,
    delay: Duration,
    /// Whether this is the subtask.
    here: bool,
}

fn throttle(text: &str) -> Result<Throttle, String> {
    let (subtask, delay) = pair(text)?;
    let subtask = subtask.parse().map_err(|error| format!("subtask {subtask:?}: {error}"))?;
    Ok(Throttle { subtask, delay: positive_duration(&delay)?, here: false })
}

impl MapFunction<String, String> for Throttle {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.here = context.index_of_this_subtask() == self.subtask;
        Ok(())
    }

    fn map(&mut self, record: String) -> FunctionResult<String> {
        if self.here {
            std::thread::sleep(self.delay);
        }
        Ok(record)
    }
}

/// Counts the records of each key.
#[derive(Clone, Default)]
struct CheckpointExample {
    count: ValueState<i32>,
    throttle: Option<Duration>,
}

impl KeyedFlatMapFunction<String, String> for CheckpointExample {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("CheckpointExample", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, record: String, out: &mut Collector<String>) -> FunctionResult {
        if let Some(delay) = self.throttle {
            std::thread::sleep(delay);
        }
        let count = self.count.get()? + 1;
        self.count.set(count)?;
        let timestamp = humantime::format_rfc3339_millis(SystemTime::now());
        out.collect(format!("{timestamp}: ({record},{count})"));
        Ok(())
    }
}

/// Runs the job.
pub fn run(args: &Args) -> Result<(), Error> {
    let mut env = StreamExecutionEnvironment::new();
    configure(&mut env, args);
    announce(&env, args)?;

    let mut records = source(&env, args)?;
    if let Some(throttle) = args.throttle_subtask {
        records = records.map_with(throttle).name("Throttle").uid("throttle");
    }
    let example = CheckpointExample { throttle: args.throttle_count, ..CheckpointExample::default() };
    let counted = match args.key_by {
        KeyChoice::Constant => records.key_by(|_| 1).flat_map(example),
        KeyChoice::Record => records.key_by_ref(|record| record).flat_map(example),
    };
    let counted = counted.name("CheckpointExample").uid("checkpoint-example");
    counted.print().uid("print");
    if let (Some(broker), Some(topic)) = (&args.kafka, &args.kafka_out) {
        let mut sink = KafkaSink::strings().bootstrap_servers(broker).topic(topic);
        if args.kafka_out_guarantee == Mode::ExactlyOnce {
            sink = sink.delivery_guarantee(DeliveryGuarantee::ExactlyOnce).transactional_id_prefix(topic);
        }
        for (name, value) in &args.kafka_property {
            sink = sink.property(name, value);
        }
        counted.sink_to(sink.build()?).name("Kafka sink").uid("kafka-sink");
    }
    env.execute("CheckpointExample")?;
    Ok(())
}

fn configure(env: &mut StreamExecutionEnvironment, args: &Args) {
    env.set_parallelism(args.parallelism);
    if args.checkpoints {
        let mode = match args.mode {
            Mode::ExactlyOnce => CheckpointingMode::ExactlyOnce,
            Mode::AtLeastOnce => CheckpointingMode::AtLeastOnce,
        };
        env.enable_checkpointing_with(args.interval, mode);
    } else {
        // The default without checkpoints is to end with the first failure, and there would be nothing to see.
        env.set_restart_strategy(RestartStrategy::FixedDelay { attempts: u32::MAX, delay: Duration::from_secs(1) });
    }
    if let Some(backend) = &args.state_backend {
        env.configure("state.backend", backend);
    }
    if let Some(directory) = &args.checkpoint_dir {
        env.checkpoint_config().set_directory(directory);
    }
}

fn source(env: &StreamExecutionEnvironment, args: &Args) -> Result<DataStream<String>, Error> {
    let Some(broker) = &args.kafka else {
        let start = if args.start == Some(Start::Latest) { FileStart::Latest } else { FileStart::Earliest };
        let directory = args.files.as_deref().unwrap_or_default();
        return Ok(env.from_source(FileSource::directory(directory).start(start), directory).uid("source"));
    };
    let start = match args.start {
        Some(Start::Earliest) => StartingOffsets::Earliest,
        Some(Start::Latest) | None => StartingOffsets::Latest,
    };
    let mut source = KafkaSource::strings()
        .bootstrap_servers(broker)
        .topics([&args.topic])
        .group_id(&args.group)
        .starting_offsets(start);
    for (name, value) in &args.kafka_property {
        source = source.property(name, value);
    }
    Ok(env.from_source(source.build()?, &args.topic).uid("source"))
}

/// Says what a failure will do, once for the whole job.
fn announce(env: &StreamExecutionEnvironment, args: &Args) -> Result<(), Error> {
    let configuration = env.configuration()?;
    if configuration.role() == Role::TaskManager {
        return Ok(());
    }
    let settings = configuration.settings()?;
    let checkpoints = match settings.checkpoint.interval {
        Some(interval) => format!("every {}, {}", humantime::format_duration(interval), settings.checkpoint.mode),
        None => "off".to_string(),
    };
    let strategy = settings.restart_strategy.name();
    let why = match strategy {
        "fixed-delay" if !args.checkpoints => " (this example's choice: without checkpoints the default is none)",
        _ => "",
    };
    eprintln!("checkpoints: {checkpoints}; restart strategy: {strategy}{why}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("checkpoint_example").chain(line.split_whitespace()))
    }

    #[test]
    fn the_flags_that_scripts_rely_on_are_there() {
        Args::command().debug_assert();
        let args = parse(
            "--kafka b:9092 --topic input-topic --group g --start earliest --checkpoints --interval 500ms \
             --mode at-least-once --state-backend filesystem --checkpoint-dir file:///c --parallelism 2 \
             --key-by record --kafka-out out --kafka-property a=b --kafka-property c=d --throttle-subtask 1=20ms",
        )
        .unwrap();
        assert_eq!(
            (args.interval, args.mode, args.key_by),
            (Duration::from_millis(500), Mode::AtLeastOnce, KeyChoice::Record)
        );
        assert_eq!((args.start, args.parallelism, args.checkpoints), (Some(Start::Earliest), 2, true));
        assert_eq!(args.kafka_property.len(), 2);
        let throttle = args.throttle_subtask.unwrap();
        assert_eq!((throttle.subtask, throttle.delay), (1, Duration::from_millis(20)));
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let args = parse("--files /in").unwrap();
        assert_eq!((args.checkpoints, args.interval, args.mode), (false, Duration::from_secs(1), Mode::ExactlyOnce));
        assert_eq!((args.key_by, args.parallelism, args.topic.as_str()), (KeyChoice::Constant, 1, "input-topic"));
    }

    #[test]
    fn senseless_flags_are_refused() {
        for wrong in [
            "",
            "--kafka b --files /in",
            "--files /in --kafka-out t",
            "--files /in --interval 0ms",
            "--files /in --interval -1s",
            "--files /in --interval 5",
            "--files /in --mode sometimes",
            "--files /in --parallelism 0",
            "--kafka b --start middle",
            "--kafka b --kafka-property x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let settings = |line: &str| {
            let mut env = StreamExecutionEnvironment::new();
            configure(&mut env, &parse(line).unwrap());
            env.configuration().unwrap().settings().unwrap()
        };
        let off = settings("--files /in");
        assert_eq!((off.checkpoint.interval, off.restart_strategy.name()), (None, "fixed-delay"));
        let on = settings("--files /in --checkpoints --mode at-least-once --checkpoint-dir file:///c --parallelism 3");
        assert_eq!(on.checkpoint.mode, CheckpointingMode::AtLeastOnce);
        assert_eq!((on.restart_strategy.name(), on.state_backend.as_str()), ("exponential-delay", "filesystem"));
        assert_eq!((on.parallelism, on.checkpoint_dir.as_deref()), (3, Some("file:///c")));
    }
}
