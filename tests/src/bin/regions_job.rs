//! A job of two graphs that have nothing to do with each other: one copies records straight on, each subtask for itself,
//! the other through an exchange. Both commit what they write with the checkpoint.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use millrace::{connectors::kafka::StartingOffsets, prelude::*, sink::DeliveryGuarantee};
use millrace_testkit::cluster::exit_code;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    kafka: String,
    /// The topic that is copied straight on, to `<topic>-copy`.
    #[arg(long)]
    straight: String,
    /// The topic that is copied through an exchange, to `<topic>-copy`.
    #[arg(long)]
    exchanged: String,
    /// The second graph fails when it finds this file, which it removes.
    #[arg(long)]
    fail_on: PathBuf,
}

fn copy(env: &StreamExecutionEnvironment, args: &Args, topic: &str, fails: bool) -> Result<(), Error> {
    let output = format!("{topic}-copy");
    let source = KafkaSource::strings()
        .bootstrap_servers(&args.kafka)
        .topics([topic])
        .group_id(topic)
        .starting_offsets(StartingOffsets::Earliest)
        .discovery_interval(Duration::from_millis(500))
        .build()?;
    let sink = KafkaSink::strings()
        .bootstrap_servers(&args.kafka)
        .topic(&output)
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .transactional_id_prefix(&output)
        .build()?;
    let records = env.from_source(source, topic).uid(topic);
    let fail_on = args.fail_on.clone();
    let copied = match fails {
        false => records.map(|record: String| record),
        true => records.rebalance().try_map(move |record: String| match fs::remove_file(&fail_on) {
            Ok(()) => Err("the file to fail on was there"),
            Err(_) => Ok(record),
        }),
    };
    copied.name(format!("{topic} map")).uid(format!("{topic}-map")).sink_to(sink).name("Copy").uid(&output);
    Ok(())
}

fn run(args: &Args) -> Result<(), Error> {
    let mut env = StreamExecutionEnvironment::new();
    env.set_parallelism(2);
    copy(&env, args, &args.straight, false)?;
    copy(&env, args, &args.exchanged, true)?;
    env.execute("regions")?;
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}
