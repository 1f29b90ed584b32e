//! How long a job is silent after a failure: Millrace beside Flink, in one run on one machine, by phase.
//!
//! `make bench-recovery` builds and runs it. Each contender reads the same records from the same broker at the same rate
//! and has state of the same size; a process of it is killed again and again, and what is measured is the time from the
//! kill to the first new count in its output topic behind the longest silence. A job whose jobmanager is killed goes on:
//! what is measured is the longest time without a new count.

mod contender;
mod feed;
mod flink;
mod millrace;
mod outputs;
mod scenario;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millrace_testkit::cluster::exit_code;

use contender::Contender;
use scenario::Scenario;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Kills processes of jobs and measures the silence.
#[derive(Debug, Parser)]
struct Args {
    /// Our kills in each scenario.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Flink's: with 2 GiB of state each takes it a minute or more.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    flink_kills: u32,
    /// Records a second.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// The folder that `scripts/fetch-flink.sh` prints; without it only Millrace is measured.
    #[arg(long, value_name = "DIR")]
    flink: Option<PathBuf>,
    /// A file for the tables.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Who is measured [default: all].
    #[arg(long, value_delimiter = ',', value_parser = contender::named)]
    only: Vec<Contender>,
    /// So many keys instead of the scenario's, to try it out: titles and goals are not meant for that.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// What is measured [default: all].
    #[arg(long, value_delimiter = ',', value_parser = scenario::named)]
    scenario: Vec<Scenario>,
}

const HEAD: &str = "# How long a job is silent after a failure

<!-- Written by `make bench-recovery`. -->

Records from Kafka are counted by key, with 1 KiB of state for each key on the heap and 128 bytes in RocksDB, in two
subtasks on two taskmanagers; records go round all keys, so that each is as often and as long ago as any other; the counts
of one key in 50 go to Kafka. A process is killed with SIGKILL at a random moment. *Silent* is the time from the kill to
the first new count behind the longest silence that followed, seen by a reader of the output topic. Tasks end with no
jobmanager: when that is killed, *silent* is the longest time without a new count, whenever it began; beside it stands
the longest in as much time before the kill. All contenders read at the same rate from a broker of their own on the same
machine, one after the other; checkpoints go to its disk. At the end each record must be counted exactly once.

Where a goal is about the checkpoint store, checkpoints go to MinIO on the same machine, and a plain client reads them once
before the first kill; Flink takes no part there, for the package that it is taken from has no client for S3.

A job that is behind its input for more than five minutes, after its state was filled or after a kill, takes no further part.

Phases are what the engine tells of itself, *until noticed* is the time from the kill to the first of them. Flink's are
those of its REST API: times of the job's and the tasks' states. *Flink, defaults* has its default heartbeats, restart
strategy and recovery from the checkpoint directory; what it has beside the job (state, memory, checkpoint interval) is
that `restart-strategy.exponential-delay.reset-backoff-threshold` is 1 s, so that each kill is restarted as a first one.
*Tuned* has heartbeats every second with a timeout of 3 s, 100 ms before a restart, and
`execution.state-recovery.from-local`. Flink takes no part either where the jobmanager is killed: without ZooKeeper or
Kubernetes, where it keeps what belongs to a job, its jobs end with their jobmanager.
";

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let all = |given: &[Scenario]| if given.is_empty() { scenario::ALL.to_vec() } else { given.to_vec() };
    let contenders = if args.only.is_empty() { contender::ALL.to_vec() } else { args.only.clone() };
    let mut report =
        format!("{HEAD}\nMachine: {}. {} records a second, checkpoints every second.\n", table::machine(), args.rate);
    if let Some(keys) = args.keys {
        report += &format!("\n**Tried out with {keys} keys: titles and goals are not meant for that.**\n");
    }
    println!("{report}");
    for scenario in all(&args.scenario) {
        let scenario = Scenario { keys: args.keys.unwrap_or(scenario.keys), ..scenario };
        let mut measured = Vec::new();
        let flink = args.flink.as_deref();
        let mut part = String::new();
        for contender in contenders.iter().filter(|contender| contender.takes_part(scenario, flink.is_some())) {
            println!("{}: {}", scenario.title, contender.title());
            let kills = if *contender == Contender::Millrace { args.kills } else { args.flink_kills };
            measured.push((*contender, scenario.measure(*contender, flink, kills, args.rate)?));
            part = format!("\n## {}\n\n{}", scenario.title, table::table(&measured));
            part.extend(table::verdict(scenario, &measured).map(|verdict| format!("\n{verdict}\n")));
            // After each, so that a run that is interrupted leaves what it has measured.
            if let Some(path) = &args.write {
                std::fs::write(path, format!("{report}{part}"))?;
            }
        }
        println!("{part}");
        report += &part;
    }
    Ok(())
}
