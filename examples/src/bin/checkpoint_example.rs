//! The job everyone tries first: count records, take checkpoints or not, kill the taskmanager, and see what is printed.
//!
//! Strings from Kafka or from files are keyed, counted in a `ValueState` and printed as `<timestamp>: (<record>,<count>)`.
//! Three things are to play with: whether checkpoints are on, their interval, and their mode.
//! `docs/checkpoint-example.md` says what to expect of each.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, ValueEnum};
use millrace::{
    connectors::{file::FileStart, kafka::StartingOffsets},
    prelude::*,
};

/// Counts records and prints each with its number.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    input: Input,
    /// The topic to read.
    #[arg(long, default_value = "input-topic")]
    topic: String,
    /// The consumer group that offsets are committed to when a checkpoint is complete.
    #[arg(long, value_name = "NAME", default_value = "checkpoint-example")]
    group: String,
    /// A librdkafka property, such as `security.protocol=ssl`. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = property)]
    kafka_property: Vec<(String, String)>,
    /// Where reading starts when there is no checkpoint.
    #[arg(long, value_enum, default_value_t = Start::Latest)]
    start: Start,
    /// Take checkpoints.
    #[arg(long)]
    checkpoints: bool,
    /// Time between two checkpoints.
    #[arg(long, default_value = "1000ms", value_parser = interval)]
    interval: Duration,
    /// How often each record counts after a failure.
    #[arg(long, default_value = "exactly-once")]
    mode: CheckpointingMode,
    /// Where state lives: memory, filesystem, or a registered backend.
    #[arg(long, value_name = "NAME")]
    state_backend: Option<String>,
    /// Where checkpoints go: file:///… or s3://….
    #[arg(long, value_name = "URI")]
    checkpoint_dir: Option<String>,
    /// How many subtasks each operator has.
    #[arg(long)]
    parallelism: Option<u32>,
    /// What is counted: all records together, or each text.
    #[arg(long, value_enum, default_value_t = KeyBy::Constant)]
    key_by: KeyBy,
    /// Write what is printed to this topic as well, at least once.
    #[arg(long, value_name = "TOPIC", requires = "kafka")]
    kafka_out: Option<String>,
    /// Let one source subtask take this long for each record, to see what an unaligned input does.
    #[arg(long, value_name = "SUBTASK=DELAY", value_parser = throttle, hide = true)]
    throttle_subtask: Option<(u32, Duration)>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Read a Kafka topic of this broker.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Read the lines of the files in this directory, and follow them.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Start {
    Latest,
    Earliest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyBy {
    Constant,
    Record,
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is no property: write KEY=VALUE"))?;
    Ok((pair.0.to_string(), pair.1.to_string()))
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval.is_zero() => Err("an interval of 0 is none: choose 10ms or more".to_string()),
        Ok(interval) => Ok(interval),
        Err(error) => Err(format!("{text:?} is no duration ({error}): write 1000ms or 1s")),
    }
}

fn throttle(text: &str) -> Result<(u32, Duration), String> {
    let (subtask, delay) = text.split_once('=').ok_or("write SUBTASK=DELAY")?;
    let subtask = subtask.parse().map_err(|error| format!("subtask {subtask:?}: {error}"))?;
    Ok((subtask, humantime::parse_duration(delay).map_err(|error| format!("delay {delay:?}: {error}"))?))
}

/// Counts the records of its key.
#[derive(Clone, Default)]
struct Count {
    count: ValueState<i32>,
}

impl KeyedFlatMapFunction<String, String> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("CheckpointExample", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, record: String, out: &mut Collector<String>) -> FunctionResult {
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        out.collect(format!("{:.3}: ({record},{count})", jiff::Timestamp::now()));
        Ok(())
    }
}

/// Passes records on, slowly in one subtask.
#[derive(Clone)]
struct Throttle {
    slow: u32,
    delay: Duration,
    active: bool,
}

impl MapFunction<String, String> for Throttle {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.active = context.index_of_this_subtask() == self.slow;
        Ok(())
    }

    fn map(&mut self, record: String) -> FunctionResult<String> {
        if self.active {
            // The slowness is what this function is for.
            std::thread::sleep(self.delay);
        }
        Ok(record)
    }
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut env = StreamExecutionEnvironment::new();
    if arguments.checkpoints {
        env.enable_checkpointing_with(arguments.interval, arguments.mode);
    }
    if let Some(name) = &arguments.state_backend {
        env.configure("state.backend", name);
    }
    if let Some(uri) = &arguments.checkpoint_dir {
        env.configure("state.checkpoints.dir", uri);
    }
    if let Some(parallelism) = arguments.parallelism {
        env.set_parallelism(parallelism);
    }
    let settings = env.configuration()?.settings()?;
    eprintln!(
        "checkpoints: {}; restart strategy: {}",
        if settings.checkpoint.is_enabled() { settings.checkpoint.mode.to_string() } else { "off".to_string() },
        settings.restart_strategy.name()
    );

    let mut records = read(&env, &arguments)?;
    if let Some((slow, delay)) = arguments.throttle_subtask {
        records = records.map_with(Throttle { slow, delay, active: false }).name("throttle").uid("throttle");
    }
    let counted = match arguments.key_by {
        KeyBy::Constant => records.key_by(|_| 1).flat_map(Count::default()),
        KeyBy::Record => records.key_by_ref(|record| record).flat_map(Count::default()),
    };
    let counted = counted.name("count").uid("count");
    if let (Some(topic), Some(broker)) = (&arguments.kafka_out, &arguments.input.kafka) {
        let mut sink = KafkaSink::<String>::strings().bootstrap_servers(broker).topic(topic);
        for (key, value) in &arguments.kafka_property {
            sink = sink.property(key, value);
        }
        counted.sink_to(sink.build()?).name("kafka out").uid("kafka-out");
    }
    counted.print().uid("print");
    env.execute("checkpoint-example")?;
    Ok(())
}

fn read(env: &StreamExecutionEnvironment, arguments: &Arguments) -> Result<DataStream<String>, Error> {
    let stream = if let Some(broker) = &arguments.input.kafka {
        let start = match arguments.start {
            Start::Latest => StartingOffsets::Latest,
            Start::Earliest => StartingOffsets::Earliest,
        };
        let mut source = KafkaSource::<String>::strings()
            .bootstrap_servers(broker)
            .topics([&arguments.topic])
            .group_id(&arguments.group)
            .starting_offsets(start);
        for (key, value) in &arguments.kafka_property {
            source = source.property(key, value);
        }
        env.from_source(source.build()?, "kafka")
    } else {
        let start = match arguments.start {
            Start::Latest => FileStart::Latest,
            Start::Earliest => FileStart::Earliest,
        };
        let directory = arguments.input.files.clone().unwrap_or_default();
        env.from_source(FileSource::directory(directory).start(start), "files")
    };
    Ok(stream.uid("source"))
}
