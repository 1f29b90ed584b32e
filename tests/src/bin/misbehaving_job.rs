//! A job that counts words and can be told to misbehave, for the tests of bad input.
//!
//! Each line of the input is a word; every one is printed as `word count`, where the count is that of the word's key.

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{ArgGroup, Parser, ValueEnum};
use millrace::{
    connectors::{FileSource, Undecodable, kafka::StartingOffsets},
    prelude::*,
};
use millrace_testkit::cluster::exit_code;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(group(ArgGroup::new("source").required(true).args(["kafka", "files"])))]
struct Args {
    /// A directory of files to follow.
    #[arg(long)]
    files: Option<String>,
    /// Read the files to their end only.
    #[arg(long)]
    bounded: bool,
    /// A broker to read a topic of, from its beginning.
    #[arg(long)]
    kafka: Option<String>,
    #[arg(long, default_value = "words")]
    topic: String,
    /// Leave out what is no record.
    #[arg(long)]
    skip_undecodable: bool,
    #[arg(long)]
    parallelism: Option<u32>,
    #[arg(long)]
    max_parallelism: Option<u32>,
    /// Milliseconds between checkpoints.
    #[arg(long)]
    checkpoints: Option<u64>,
    #[arg(long)]
    checkpoint_dir: Option<String>,
    /// What the counter's state belongs to.
    #[arg(long, default_value = "counter")]
    counter_uid: String,
    #[arg(long, value_enum, default_value_t = Counting::Right)]
    counting: Counting,
    /// A word that the function fails on.
    #[arg(long)]
    fails_on: Option<String>,
    /// A word that the function panics on.
    #[arg(long)]
    panics_on: Option<String>,
    /// Keep so many bytes of state for each word.
    #[arg(long)]
    hoards: Option<usize>,
    /// A file without which the function fails, and which it makes then: it fails once.
    #[arg(long)]
    fails_without: Option<String>,
    /// Look for a file, and have one operator more where it is: a job that depends on more than its arguments.
    #[arg(long)]
    extra_operator_if: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Counting {
    /// In one `i64`.
    Right,
    /// One name for two states of different types.
    TwoTypes,
    /// In a type whose form serde does not tell beforehand.
    Untraceable,
    /// In a type that is not what it was.
    AnotherType,
}

/// Serde finds out by trial which variant it is: bytes that don't describe themselves can't be read that way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untraceable {
    Number(i64),
    Text(String),
}

#[derive(Clone)]
struct Count {
    counting: Counting,
    fails_on: Option<String>,
    panics_on: Option<String>,
    fails_without: Option<String>,
    hoards: Option<usize>,
    count: ValueState<i64>,
    hoard: MapState<i64, Vec<u8>>,
}

impl Count {
    fn new(args: &Args) -> Self {
        Self {
            counting: args.counting,
            fails_on: args.fails_on.clone(),
            panics_on: args.panics_on.clone(),
            fails_without: args.fails_without.clone(),
            hoards: args.hoards,
            count: ValueState::default(),
            hoard: MapState::default(),
        }
    }
}

impl KeyedFlatMapFunction<String, String> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        match self.counting {
            Counting::Right => {}
            Counting::TwoTypes => drop(context.value_state("count", String::new())?),
            Counting::Untraceable => drop(context.value_state("count", Untraceable::Text("none".into()))?),
            Counting::AnotherType => {
                context.value_state("count", String::new())?;
                return Ok(());
            }
        }
        self.count = context.value_state("count", 0)?;
        if self.hoards.is_some() {
            self.hoard = context.map_state("hoard")?;
        }
        Ok(())
    }

    fn flat_map(&mut self, word: String, out: &mut Collector<String>) -> FunctionResult {
        if self.fails_on.as_ref() == Some(&word) {
            return Err(format!("{word:?} is not to my taste").into());
        }
        if self.panics_on.as_ref() == Some(&word) {
            panic!("{word:?} frightens me");
        }
        if let Some(path) = self.fails_without.as_ref().filter(|path| !Path::new(path).exists()) {
            std::fs::write(path, "")?;
            return Err(format!("{path} was not there").into());
        }
        let count = self.count.get()? + 1;
        self.count.set(count)?;
        if let Some(bytes) = self.hoards {
            self.hoard.put(count, noise(count, bytes))?;
        }
        out.collect(format!("{word} {count}"));
        Ok(())
    }
}

/// So many bytes that can't be compressed.
fn noise(seed: i64, bytes: usize) -> Vec<u8> {
    let mut state = (seed as u64) | 1 << 40;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend(next());
    }
    noise.truncate(bytes);
    noise
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Error> {
    let mut env = StreamExecutionEnvironment::new();
    if let Some(parallelism) = args.parallelism {
        env.set_parallelism(parallelism);
    }
    if let Some(max_parallelism) = args.max_parallelism {
        env.set_max_parallelism(max_parallelism);
    }
    if let Some(interval) = args.checkpoints {
        env.enable_checkpointing(Duration::from_millis(interval));
    }
    if let Some(directory) = &args.checkpoint_dir {
        env.checkpoint_config().set_directory(directory);
    }
    let mut words = source(&env, args)?;
    if args.extra_operator_if.as_ref().is_some_and(|path| Path::new(path).exists()) {
        words = words.map(|word| word).name("Extra").uid("extra");
    }
    words.key_by(|_| 0).flat_map(Count::new(args)).name("Count").uid(&args.counter_uid).print().uid("print");
    env.execute("misbehaving job")?;
    Ok(())
}

fn source(env: &StreamExecutionEnvironment, args: &Args) -> Result<DataStream<String>, Error> {
    let policy = if args.skip_undecodable { Undecodable::SkipAndCount } else { Undecodable::Fail };
    let source = match (&args.kafka, &args.files) {
        (Some(broker), _) => {
            let source = KafkaSource::strings()
                .bootstrap_servers(broker)
                .topics([&args.topic])
                .starting_offsets(StartingOffsets::Earliest)
                .on_undecodable(policy);
            env.from_source(source.build()?, "words")
        }
        (None, directory) => {
            let mut source = FileSource::directory(directory.as_deref().unwrap_or_default()).on_undecodable(policy);
            if args.bounded {
                source = source.bounded();
            }
            env.from_source(source, "words")
        }
    };
    Ok(source.uid("words"))
}
