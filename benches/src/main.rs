//! The same jobs on Millrace and on Flink, in turns, in one run, and what the hardware can do by hand beside them.
//!
//! `make bench` builds and runs it. It prints machine, versions and workload, a line for each case, and the tables that
//! `docs/benchmarks.md` shows.

mod case;
mod checkpoints;
mod cluster;
mod comparison;
mod contender;
mod goals;
mod kafka;
mod kafka_to_kafka;
mod keyed_count;
mod latency;
mod machine;
mod measure;
mod network_edge;
mod nexmark;
mod pipeline;
mod plots;
mod process;
mod scaling;
mod table;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::Parser;

use case::{Case, Row};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares Millrace with Flink.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Only cases whose name begins with this, such as `keyed-count` or `keyed-count backend=heap keys=1000000`.
    #[arg(long, default_value = "")]
    only: String,
    /// How long a measurement lasts.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How long a job runs before it is measured.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How often the cases with a goal are measured; the others once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What `scripts/fetch-flink.sh` printed; without it Flink is left out.
    #[arg(long)]
    flink: Option<PathBuf>,
    /// Writes the tables into this file, each in place of the one in it.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// All cases, workload by workload.
fn cases() -> Vec<Box<dyn Case>> {
    let workloads = [
        keyed_count::cases(),
        kafka_to_kafka::cases(),
        nexmark::cases(),
        checkpoints::cases(),
        latency::cases(),
        process::cases(),
        scaling::cases(),
        network_edge::cases(),
    ];
    workloads.into_iter().flatten().collect()
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let all = cases();
    let chosen: Vec<_> = all.iter().filter(|case| case.name().starts_with(&arguments.only)).collect();
    if chosen.is_empty() {
        let all: String = all.iter().map(|case| format!("\n  {}", case.name())).collect();
        bail!("no case begins with {:?}; there are{all}", arguments.only);
    }
    for line in machine::describe(&arguments) {
        println!("{line}");
    }
    let mut failed = Vec::new();
    for of_workload in chosen.chunk_by(|a, b| case::workload(&a.name()) == case::workload(&b.name())) {
        let mut rows: Vec<Row> = Vec::new();
        for case in of_workload {
            match case.run(&arguments) {
                Ok(row) => {
                    println!("{}", row.line());
                    rows.push(row);
                }
                // The others can be measured all the same.
                Err(error) => {
                    println!("{} FAILED: {error:#}", case.name());
                    failed.push(case.name());
                }
            }
        }
        let Some(workload) = rows.first().map(|row| row.workload().to_owned()) else { continue };
        let table = table::markdown(&arguments, &rows);
        println!("\n{table}");
        if let Some(file) = &arguments.write {
            table::replace(file, &workload, &(table + &plots::write(file, &rows)?))?;
        }
    }
    ensure!(failed.is_empty(), "these could not be measured: {}", failed.join("; "));
    Ok(())
}
