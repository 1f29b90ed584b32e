//! The keyed count beside the same work without an engine, in turns, in one run: what the engine costs.
//!
//! `make bench` builds and runs it. It prints the machine, the workload, each contender's median and spread, and the
//! ratio; it judges nothing.

mod pipeline;

use std::{path::Path, process::Command};

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Compares `keyed_count` with the same work by hand.
#[derive(Debug, Parser)]
struct Arguments {
    /// Records for each run.
    #[arg(long, default_value_t = 40_000_000)]
    records: u64,
    /// Different keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Counted runs of each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// `off`, or the time between checkpoints.
    #[arg(long, default_value = "off")]
    checkpoint_interval: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let program = std::env::current_exe()?.with_file_name("keyed_count");
    println!("machine: {}", machine());
    println!(
        "workload: {} records, {} keys \"key-<n>\", parallelism 1 (a source and a keyed operator), checkpoints {}",
        arguments.records, arguments.keys, arguments.checkpoint_interval
    );
    let (mut limit, mut millrace) = (Vec::new(), Vec::new());
    // The first round warms up and is not counted.
    for round in 0..=arguments.runs {
        let by_hand = pipeline::rate(arguments.records, arguments.keys);
        let by_job = keyed_count(&program, &arguments)?;
        if round > 0 {
            println!("run {round}: pipeline {by_hand:.0}/s, keyed_count {by_job:.0}/s, ratio {:.2}", by_job / by_hand);
            limit.push(by_hand);
            millrace.push(by_job);
        }
    }
    let mut ratios: Vec<f64> = millrace.iter().zip(&limit).map(|(job, hand)| job / hand).collect();
    println!("pipeline    {}", spread(&mut limit, 0));
    println!("keyed_count {} (with its start and end)", spread(&mut millrace, 0));
    println!("ratio       {}", spread(&mut ratios, 2));
    Ok(())
}

/// Runs the example and reads its last line, `records=N seconds=S rate=R`.
fn keyed_count(program: &Path, arguments: &Arguments) -> Result<f64> {
    let output = Command::new(program)
        .args(["--records", &arguments.records.to_string(), "--keys", &arguments.keys.to_string()])
        .args(["--checkpoint-interval", &arguments.checkpoint_interval])
        .output()
        .map_err(|error| format!("{} can't be run: {error}; `make bench` builds it", program.display()))?;
    let text = String::from_utf8(output.stdout)?;
    let rate = text.lines().last().and_then(|line| line.rsplit_once("rate=")).and_then(|(_, rate)| rate.parse().ok());
    rate.ok_or_else(|| format!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr)).into())
}

fn spread(numbers: &mut [f64], digits: usize) -> String {
    numbers.sort_by(f64::total_cmp);
    let (median, least, most) = (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1]);
    format!("median {median:.digits$}, min {least:.digits$}, max {most:.digits$}")
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_string();
    format!("{}, {cores} cores, load {load} at the start", model.unwrap_or("unknown processor"))
}
