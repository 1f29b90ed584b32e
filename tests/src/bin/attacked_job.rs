//! The job that the attack harness has of its own: see `millrace_tests::attack::effect`.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use clap::Parser;
use millrace::{
    DataStream,
    connectors::{
        file::{FileCommittable, FileSink, TextLines},
        kafka::StartingOffsets,
        postgres::PostgresSink,
    },
    prelude::*,
    sink::{Committer, CommitterContext, DeliveryGuarantee, Sink, SinkWriter, WriterContext},
};
use millrace_testkit::cluster::exit_code;
use millrace_tests::attack::{
    KAFKA_SOCKET_TIMEOUT,
    effect::{Effect, key_of},
};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    /// Commits outputs with the checkpoint, in transactions whose ids begin with this.
    #[arg(long, value_name = "PREFIX")]
    exactly_once: Option<String>,
    /// Commits part files again under another name: a job that an attack must find out.
    #[arg(long)]
    not_idempotent: bool,
    /// Keeps the effects where no checkpoint finds them: a job that an attack must find out.
    #[arg(long)]
    forgetful: bool,
}

/// Writes the effect of each record, in a state.
#[derive(Clone, Default)]
struct Effects {
    state: ValueState<Effect>,
}

impl KeyedFlatMapFunction<String, String> for Effects {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.state = context.value_state("effect", Effect::default())?;
        Ok(())
    }

    fn flat_map(&mut self, record: String, out: &mut Collector<String>) -> FunctionResult {
        let effect = self.state.modify(|effect| effect.apply(&record))?;
        out.collect(format!("{},{effect}", key_of(&record)));
        Ok(())
    }
}

/// The same without a state.
#[derive(Clone, Default)]
struct Forgetful {
    effects: BTreeMap<String, Effect>,
}

impl KeyedFlatMapFunction<String, String> for Forgetful {
    fn flat_map(&mut self, record: String, out: &mut Collector<String>) -> FunctionResult {
        let effect = self.effects.entry(key_of(&record).to_owned()).or_default().apply(&record);
        out.collect(format!("{},{effect}", key_of(&record)));
        Ok(())
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let env = StreamExecutionEnvironment::new();
    let socket_timeout = KAFKA_SOCKET_TIMEOUT.as_millis().to_string();
    let source = KafkaSource::strings()
        .bootstrap_servers(&args.kafka)
        .topics([&args.input])
        .group_id(&args.output)
        .starting_offsets(StartingOffsets::Earliest)
        .property("socket.timeout.ms", &socket_timeout)
        .build()?;
    let keyed = env.from_source(source, "records").uid("records").key_by(|record: &String| key_of(record).to_owned());
    let effects = match args.forgetful {
        false => keyed.flat_map(Effects::default()),
        true => keyed.flat_map(Forgetful::default()),
    };
    if let Some((url, table)) = args.output.split_once('#') {
        let row = |line: &String| {
            let (key, effect) = line.split_once(',').unwrap_or((line, ""));
            // Each effect has a row of its own: a row that is lost is missing in the end.
            let number: i64 = effect.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(-1);
            vec![Box::new(key.to_owned()) as _, Box::new(number) as _, Box::new(effect.to_owned()) as _]
        };
        let sink = PostgresSink::upsert(url, table, ["key", "number"], ["value"], row)?;
        effects.name("Effects").uid("effects").sink_to(sink).name("Output").uid("output");
        env.execute("attacked")?;
        return Ok(());
    }
    if args.output.contains("://") {
        write_files(&effects.name("Effects").uid("effects"), args)?;
        env.execute("attacked")?;
        return Ok(());
    }
    let mut sink = KafkaSink::strings().bootstrap_servers(&args.kafka).topic(&args.output);
    sink = sink.property("socket.timeout.ms", socket_timeout);
    if let Some(prefix) = &args.exactly_once {
        sink = sink.delivery_guarantee(DeliveryGuarantee::ExactlyOnce).transactional_id_prefix(prefix);
    }
    effects.name("Effects").uid("effects").sink_to(sink.build()?).name("Output").uid("output");
    env.execute("attacked")?;
    Ok(())
}

/// To two buckets, in files that are full before a checkpoint comes, and in others.
fn write_files(effects: &DataStream<String>, args: &Args) -> Result<(), Error> {
    let bucket = |line: &String| format!("key={}", line.split(',').next().map_or(0, str::len) % 2);
    // An upload takes several requests: with parts as small as those of files they would be all that the job does.
    let part_size = if args.output.starts_with("s3://") { 64 << 10 } else { 2048 };
    let sink = FileSink::new(&args.output, TextLines)?.buckets(bucket).max_part_size(part_size);
    match args.not_idempotent {
        false => effects.sink_to(sink).name("Output").uid("output"),
        true => effects.sink_to(NotIdempotent(sink)).name("Output").uid("output"),
    };
    Ok(())
}

/// A file sink whose committer is wrong: what was committed already it commits again, under another name, and it leaves
/// a file behind.
struct NotIdempotent(FileSink<String>);

impl Sink for NotIdempotent {
    type Record = String;
    type Committable = FileCommittable;

    fn create_writer(
        &self,
        context: &mut WriterContext<FileCommittable>,
    ) -> Result<Box<dyn SinkWriter<String, FileCommittable>>, Error> {
        self.0.create_writer(context)
    }

    fn create_committer(&self, context: &CommitterContext) -> Result<Box<dyn Committer<FileCommittable>>, Error> {
        Ok(Box::new(CommitsAgain(self.0.create_committer(context)?)))
    }
}

struct CommitsAgain(Box<dyn Committer<FileCommittable>>);

impl Committer<FileCommittable> for CommitsAgain {
    fn commit(&mut self, committables: &[FileCommittable]) -> Result<(), Error> {
        for committable in committables {
            if let FileCommittable::Rename { from, to, .. } = committable
                && !Path::new(from).exists()
            {
                for name in ["part-again", ".left-by-part-"] {
                    std::fs::copy(to, to.replacen("part-", name, 1))
                        .map_err(|error| Error::external(format!("{to} can't be copied: {error}")))?;
                }
            }
        }
        self.0.commit(committables)
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}
