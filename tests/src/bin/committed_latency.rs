//! How long it takes until a reader sees what a job commits with its checkpoints: `checkpoint_example` counts an even
//! stream of records from Kafka, and writes to Kafka exactly once. Prints a table; `--write DIR` writes it there as
//! `committed-latency.md`. `make latency` builds and runs it.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use clap::Parser;
use millrace_testkit::{
    cluster::{JobCluster, Result},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::{
    committed::CommittedReader,
    committing_example,
    feed::{Feed, PARTITIONS, Target},
    unique,
};

/// Measures how late committed output is seen.
#[derive(Parser)]
struct Arguments {
    /// The checkpoint intervals to measure, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 500, 1000, 5000])]
    interval_ms: Vec<u64>,
    /// How many records of each job are measured.
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// Where to write the table.
    #[arg(long)]
    write: Option<PathBuf>,
    /// A sentence for the page: what else the machine was doing, for one.
    #[arg(long, default_value = "")]
    note: String,
}

/// So many records are left out at the beginning: a job that starts has a backlog.
const WARM_UP: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(180);

/// What was measured at an interval: milliseconds from processing to reading, ascending.
struct Row {
    interval: Duration,
    latencies: Vec<u64>,
}

impl Row {
    fn at(&self, share: usize) -> u64 {
        self.latencies[(self.latencies.len() - 1) * share / 100]
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kafka = KafkaBroker::shared();
    let mut rows = Vec::new();
    for interval in &arguments.interval_ms {
        rows.push(measure(kafka, Duration::from_millis(*interval), arguments.records)?);
    }
    let table = table(&rows);
    println!("{table}");
    if let Some(directory) = &arguments.write {
        fs::write(directory.join("committed-latency.md"), page(&table, &arguments.note))
            .expect("the table can be written");
    }
    Ok(())
}

fn measure(kafka: &'static KafkaBroker, interval: Duration, records: usize) -> Result<Row> {
    let (input, output) = (unique("to-be-counted"), unique("counted"));
    kafka.create_topic(&input, PARTITIONS)?;
    // One partition, whose order shows whether any record came twice.
    kafka.create_topic(&output, 1)?;
    let checkpoints = tempfile::tempdir().expect("a directory can be made");
    let spec = committing_example(kafka, &input, &output, interval, checkpoints.path())?;
    let mut cluster = JobCluster::start(spec)?;
    let reader = CommittedReader::start(kafka, &output)?;
    cluster.wait_until_running()?;
    let feed = Feed::start(Target::Kafka(kafka, &input), 7);
    cluster.wait_for("committed output", PATIENCE, |_| {
        let seen = reader.total() as usize;
        ((seen >= WARM_UP + records).then_some(()), format!("{seen} of {} records", WARM_UP + records))
    })?;
    feed.finish();
    cluster.cancel()?;
    cluster.wait_end()?;
    let seen = reader.end();
    assert!(seen.wrong.is_empty(), "each is seen once and in order: {:?}", seen.wrong);
    let mut latencies: Vec<_> = seen.latencies.into_iter().skip(WARM_UP).take(records).collect();
    latencies.sort_unstable();
    Ok(Row { interval, latencies })
}

fn table(rows: &[Row]) -> String {
    let mut text = "| checkpoint interval | records | median | 99 % | longest |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let (records, median, most, longest) = (row.latencies.len(), row.at(50), row.at(99), row.at(100));
        let _ = writeln!(text, "| {:?} | {records} | {median} ms | {most} ms | {longest} ms |", row.interval);
    }
    text
}

fn page(table: &str, note: &str) -> String {
    let build = if cfg!(debug_assertions) { "an unoptimized build" } else { "a release build" };
    let space = if note.is_empty() { "" } else { " " };
    format!(
        "# How late committed output is seen\n\n<!-- Written by `make latency`. -->\n\n`checkpoint_example` on two \
         taskmanagers counts an even stream of records from Kafka (some 450 a second) and writes to a topic with \
         `DeliveryGuarantee::ExactlyOnce`; a reader with `isolation.level=read_committed` and `fetch.wait.max.ms` 20 \
         runs all the time. From the processing of a record until it was read. The first {WARM_UP} records of each job are \
         left out. Job, Kafka and reader share one machine. Measured with {build}.{space}{note}\n\nA record waits for the next barrier, \
         for its checkpoint to complete, and for the commit of its transaction: half of the interval on average, and what \
         a checkpoint takes.\n\n{table}"
    )
}
