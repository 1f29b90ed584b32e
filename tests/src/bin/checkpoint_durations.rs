//! How long checkpoints take under backpressure, aligned and unaligned: `checkpoint_example` counts more and more slowly
//! what it reads from files as fast as it can. Prints a table; `--write DIR` writes it and a plot there as
//! `unaligned.md` and `unaligned.svg`. `make unaligned` builds and runs it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use millrace_core::rest::{CheckpointStatistics, CheckpointStatus, CheckpointingStatistics};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, Result, program},
    plot::Plot,
};

/// Measures how long checkpoints take under backpressure.
#[derive(Parser)]
struct Arguments {
    /// How many checkpoints of each job are measured.
    #[arg(long, default_value_t = 10)]
    checkpoints: usize,
    /// How long the counter takes for a record, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 10, 30, 100])]
    per_record_ms: Vec<u64>,
    /// Where to write the table and the plot.
    #[arg(long)]
    write: Option<PathBuf>,
}

const INTERVAL: Duration = Duration::from_secs(1);
const PARALLELISM: u64 = 4;
const LINES: u64 = 200_000;
/// So many checkpoints come before those that are measured: queues fill meanwhile.
const WARM_UP: usize = 2;
/// How long a job is watched at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured of a job: end-to-end durations in milliseconds, ascending.
struct Row {
    per_record_ms: u64,
    unaligned: bool,
    durations: Vec<u64>,
}

impl Row {
    fn median(&self) -> u64 {
        self.durations[self.durations.len() / 2]
    }

    fn longest(&self) -> u64 {
        self.durations[self.durations.len() - 1]
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let input = tempfile::tempdir().expect("a directory can be made");
    for file in 0..PARALLELISM {
        let lines: String = (0..LINES).map(|line| format!("key-{}\n", (line * 7 + file) % 5000)).collect();
        fs::write(input.path().join(format!("{file}.txt")), lines).expect("a file can be written");
    }
    let mut rows = Vec::new();
    for per_record_ms in &arguments.per_record_ms {
        for unaligned in [false, true] {
            let row = measure(input.path(), *per_record_ms, unaligned, arguments.checkpoints)?;
            println!("{per_record_ms} ms a record, unaligned {unaligned}: {:?} ms", row.durations);
            rows.push(row);
        }
    }
    let table = table(&rows);
    println!("{table}");
    if let Some(directory) = &arguments.write {
        fs::write(directory.join("unaligned.md"), page(&table)).expect("the table can be written");
        fs::write(directory.join("unaligned.svg"), plot(&rows).to_svg()).expect("the plot can be written");
    }
    Ok(())
}

fn measure(input: &Path, per_record_ms: u64, unaligned: bool, checkpoints: usize) -> Result<Row> {
    let storage = tempfile::tempdir().expect("a directory can be made");
    let spec = ClusterSpec::new(program("checkpoint_example")?)
        .args(["--files".to_owned(), input.display().to_string()])
        .args(["--key-by", "record", "--state-backend", "filesystem", "--checkpoints", "--interval", "1s"])
        .args(["--throttle-count".to_owned(), format!("{per_record_ms}ms")])
        .args(["--parallelism".to_owned(), PARALLELISM.to_string()])
        .args(["--checkpoint-dir".to_owned(), format!("file://{}", storage.path().display())])
        .set("execution.checkpointing.unaligned.enabled", unaligned.to_string())
        .taskmanagers(2)
        .slots(2);
    let mut cluster = JobCluster::start(spec)?;
    cluster.wait_until_running()?;
    let mut seen = BTreeMap::new();
    let wanted = checkpoints + WARM_UP;
    let watched = cluster.wait_for("checkpoints", PATIENCE, |cluster| {
        let found = cluster.state().map(|state| state.checkpoints);
        found.into_iter().for_each(|statistics| note(&statistics, &mut seen));
        ((seen.len() >= wanted).then_some(()), format!("{} of {wanted}", seen.len()))
    });
    if seen.len() <= WARM_UP {
        watched?;
    }
    let mut durations: Vec<_> = seen.into_values().skip(WARM_UP).collect();
    durations.sort_unstable();
    Ok(Row { per_record_ms, unaligned, durations })
}

fn note(statistics: &CheckpointingStatistics, seen: &mut BTreeMap<u64, u64>) {
    let completed = |checkpoint: &&CheckpointStatistics| checkpoint.status == CheckpointStatus::Completed;
    let durations = statistics.history.iter().filter(completed);
    seen.extend(durations.map(|checkpoint| (checkpoint.id, checkpoint.end_to_end_duration)));
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| time for a record | barriers | checkpoints | median | longest |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let barriers = if row.unaligned { "unaligned" } else { "aligned" };
        let _ = writeln!(
            text,
            "| {} ms | {barriers} | {} | {} ms | {} ms |",
            row.per_record_ms,
            row.durations.len(),
            row.median(),
            row.longest()
        );
    }
    text
}

fn page(table: &str) -> String {
    let build = if cfg!(debug_assertions) { "an unoptimized build" } else { "a release build" };
    format!(
        "# How long checkpoints take under backpressure\n\n<!-- Written by `make unaligned`. -->\n\n\
         `checkpoint_example` with parallelism {PARALLELISM} on two taskmanagers of one machine reads files as fast as it \
         can and counts by key; the counter takes the time in the first column for each record, so everything before it \
         waits. Checkpoints every {INTERVAL:?}, to a local directory; from trigger to completion. The first {WARM_UP} of \
         each job are left out. Measured with {build}.\n\n![median durations, both axes logarithmic](unaligned.svg)\n\n{table}"
    )
}

/// Median durations over the time for a record.
fn plot(rows: &[Row]) -> Plot {
    let line = |name: &str, unaligned: bool| {
        let of = rows.iter().filter(|row| row.unaligned == unaligned);
        (name.to_owned(), of.map(|row| (row.per_record_ms as f64, row.median().max(1) as f64)).collect())
    };
    Plot {
        title: "Duration of a checkpoint (median)".to_owned(),
        x: "time that the counter takes for a record, ms".to_owned(),
        y: "ms".to_owned(),
        lines: vec![line("aligned", false), line("unaligned", true)],
        logarithmic: true,
        ..Plot::default()
    }
}
