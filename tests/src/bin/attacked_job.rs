//! The job that the attack harness has of its own: see `millrace_tests::attack::effect`.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Parser;
use millrace::{connectors::kafka::StartingOffsets, prelude::*, sink::DeliveryGuarantee};
use millrace_testkit::cluster::exit_code;
use millrace_tests::attack::effect::{Effect, key_of};

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
    let source = KafkaSource::strings()
        .bootstrap_servers(&args.kafka)
        .topics([&args.input])
        .group_id(&args.output)
        .starting_offsets(StartingOffsets::Earliest)
        .build()?;
    let keyed = env.from_source(source, "records").uid("records").key_by(|record: &String| key_of(record).to_owned());
    let effects = match args.forgetful {
        false => keyed.flat_map(Effects::default()),
        true => keyed.flat_map(Forgetful::default()),
    };
    let mut sink = KafkaSink::strings().bootstrap_servers(&args.kafka).topic(&args.output);
    if let Some(prefix) = &args.exactly_once {
        sink = sink.delivery_guarantee(DeliveryGuarantee::ExactlyOnce).transactional_id_prefix(prefix);
    }
    effects.name("Effects").uid("effects").sink_to(sink.build()?).name("Output").uid("output");
    env.execute("attacked")?;
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}
