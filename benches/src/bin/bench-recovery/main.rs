//! How long a job is silent after a failure: Millrace beside Flink, in one run on one machine, by phase.
//!
//! `make bench-recovery` builds and runs it. Each contender reads the same records from the same broker at the same rate
//! and has state of the same size; a process of it is killed again and again, and what is measured is the time from the
//! kill to the first new count in its output topic behind the longest silence.

mod contender;
mod feed;
mod flink;
mod millrace;
mod outputs;
mod scenario;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use contender::Contender;
use scenario::Scenario;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Kills processes of jobs and measures the silence.
#[derive(Debug, Parser)]
struct Args {
    /// Kills of each contender in each scenario.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Records a second.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// The folder that `scripts/fetch-flink.sh` prints; without it only Millrace is measured.
    #[arg(long, value_name = "DIR")]
    flink: Option<PathBuf>,
    /// Who is measured [default: all].
    #[arg(long, value_delimiter = ',', value_parser = contender::named)]
    only: Vec<Contender>,
    /// What is measured [default: all].
    #[arg(long, value_delimiter = ',', value_parser = scenario::named)]
    scenario: Vec<Scenario>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-recovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let all = |given: &[Scenario]| if given.is_empty() { scenario::ALL.to_vec() } else { given.to_vec() };
    let contenders = if args.only.is_empty() { contender::ALL.to_vec() } else { args.only.clone() };
    println!("machine: {}", table::machine());
    println!("{} records a second, {} kills each, checkpoints every second", args.rate, args.kills);
    for scenario in all(&args.scenario) {
        let mut measured = Vec::new();
        let flink = args.flink.as_deref();
        for contender in contenders.iter().filter(|contender| contender.takes_part(scenario, flink.is_some())) {
            println!("{}: {}", scenario.title, contender.title());
            measured.push((*contender, scenario.measure(*contender, flink, args.kills, args.rate)?));
        }
        println!("\n## {}\n\n{}", scenario.title, table::table(&measured));
    }
    Ok(())
}
