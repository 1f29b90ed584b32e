//! Chaos on a cluster: `make chaos-k8s N=… SEED=…`. The last line sums it up; the exit code is not 0 where a record was
//! lost or counted twice.

use std::process::ExitCode;

use clap::Parser;
use millrace_k8s_tests::{
    Result, bail,
    chaos::Campaign,
    cluster::{Cluster, Release},
};

#[derive(Parser)]
#[command(about = "Strikes faults at a job in a cluster and checks that each record is counted once")]
struct Args {
    /// How many faults.
    #[arg(long, default_value_t = 30)]
    faults: usize,
    /// Decides their order, whom they hit and when [default: a random one].
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos-k8s: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<ExitCode> {
    let cluster = match Cluster::up().await? {
        Ok(cluster) => cluster,
        Err(why) => bail!("no fault was struck: {why}"),
    };
    let release = Release::install(&cluster, "millrace", "millrace-system", &[]).await?;
    let campaign = Campaign { faults: args.faults, seed: args.seed.unwrap_or_else(rand::random) };
    let report = campaign.run(&cluster, &release).await?;
    println!("{report}{}", report.last_line());
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
