//! The same jobs on Millrace and on Flink, in turns, in one run, and what the hardware can do by hand beside them.
//!
//! `make bench` builds and runs it. It prints machine, versions and workload, a line for each case, and the table that
//! `docs/benchmarks.md` shows; it judges nothing.

mod case;
mod contender;
mod keyed_count;
mod machine;
mod measure;
mod pipeline;
mod table;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares Millrace with Flink.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Only cases whose line begins with this, such as `keyed-count` or `keyed-count backend=heap keys=1000000`.
    #[arg(long, default_value = "")]
    only: String,
    /// How long a measurement lasts.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How long a job runs before it is measured.
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How often the cells with a goal are measured; the others once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What `scripts/fetch-flink.sh` printed; without it Flink is left out.
    #[arg(long)]
    flink: Option<PathBuf>,
    /// Writes the table into this file, in place of the one in it.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cases: Vec<_> =
        keyed_count::cases().into_iter().filter(|case| case.line().starts_with(&arguments.only)).collect();
    if cases.is_empty() {
        let all: String = keyed_count::cases().iter().map(|case| format!("\n  {}", case.line())).collect();
        bail!("no case begins with {:?}; there are{all}", arguments.only);
    }
    for line in machine::describe(arguments.flink.as_deref()) {
        println!("{line}");
    }
    let mut rows = Vec::new();
    for case in &cases {
        rows.push(case.run(&arguments)?);
    }
    let table = table::markdown(&arguments, &rows);
    println!("\n{table}");
    if let Some(file) = &arguments.write {
        table::replace(file, &table)?;
    }
    Ok(())
}
