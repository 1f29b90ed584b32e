//! How long records take from when they are due to the end of the job, at half of the rate that the keyed count reaches
//! (`bin/bench_job/latency.rs`).

use anyhow::{Context, Result};

use crate::{
    Arguments,
    case::{Case, Cell, Row},
    contender::MillraceJob,
    keyed_count::KeyedCount,
};

const KEYS: u64 = 1_000_000;
/// In the order in which the job prints them.
const PERCENTILES: [&str; 4] = ["p50", "p99", "p99.9", "max"];

struct Latency {
    checkpoint: &'static str,
}

/// Checkpoints off and on.
pub fn cases() -> Vec<Box<dyn Case>> {
    let cell = |checkpoint| Box::new(Latency { checkpoint }) as Box<dyn Case>;
    ["off", "1s"].into_iter().map(cell).collect()
}

impl Case for Latency {
    fn name(&self) -> String {
        format!("latency backend=heap keys={KEYS} parallelism=1 checkpoint={}", self.checkpoint)
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let rate = KeyedCount::on_heap(KEYS, 1, self.checkpoint).millrace(arguments)?.rate / 2.0;
        let time = |time| humantime::format_duration(time).to_string();
        let job = MillraceJob::new("bench_job")?
            .args(["latency", "--keys", &KEYS.to_string(), "--rate", &rate.to_string()])
            .args(["--warm-up", &time(arguments.warm_up), "--time", &time(arguments.time)])
            .state("heap", self.checkpoint);
        let counted = job.taken_by("Count");
        let output = job.start(counted)?.finish()?;
        let mut cells = vec![Cell::rates("rate", &[rate])];
        for key in PERCENTILES {
            let found = output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')?.parse::<f64>().ok());
            let ms = found.with_context(|| format!("no {key} in\n{output}"))? / 1e3;
            cells.push(Cell::number(key, ms, format!("{ms:.1}ms")));
        }
        Ok(Row { name: self.name(), cells })
    }
}
