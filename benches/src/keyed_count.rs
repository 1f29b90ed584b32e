//! The keyed count (`examples/src/keyed_count.rs`, `flink/src/millrace/bench/KeyedCount.java`): strings `key-<n>` are made,
//! keyed by themselves, counted in a `ValueState`, and thrown away.

use std::{env, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    Arguments,
    case::Row,
    contender::{Counter, Running, flink, free_port},
    measure::{Measurement, watch},
    pipeline,
};

/// So many that no run comes to its end.
const ENDLESS: u64 = 1 << 40;
/// So many are counted, by both, when their results are compared.
const CHECKED: u64 = 2_000_000;
/// So many are counted by hand.
const BY_HAND: u64 = 100_000_000;

/// A cell of the table.
#[derive(Clone, Copy, Debug)]
pub struct KeyedCount {
    backend: &'static str,
    keys: u64,
    parallelism: u32,
    checkpoint: &'static str,
}

/// All cells.
pub fn cases() -> Vec<KeyedCount> {
    let mut cases = Vec::new();
    for backend in ["heap", "rocksdb"] {
        for keys in [100_000, 1_000_000, 10_000_000] {
            for parallelism in [1, 2] {
                for checkpoint in ["off", "1s"] {
                    cases.push(KeyedCount { backend, keys, parallelism, checkpoint });
                }
            }
        }
    }
    cases
}

impl KeyedCount {
    /// Its name with its parameters.
    pub fn line(&self) -> String {
        let Self { backend, keys, parallelism, checkpoint } = self;
        format!("keyed-count backend={backend} keys={keys} parallelism={parallelism} checkpoint={checkpoint}")
    }

    /// Whether a goal is set for it.
    fn has_goal(&self) -> bool {
        match self.backend {
            "heap" => self.keys == 1_000_000 && self.parallelism == 1,
            _ => self.keys >= 1_000_000 && self.parallelism == 1 && self.checkpoint == "1s",
        }
    }

    /// Runs it and prints its line.
    pub fn run(&self, arguments: &Arguments) -> Result<Row> {
        self.check(arguments)?;
        let mut row = Row { name: self.line(), millrace: Vec::new(), flink: Vec::new(), by_hand: Vec::new() };
        for _ in 0..if self.has_goal() { arguments.runs } else { 1 } {
            row.millrace.push(self.measure(self.start_millrace(ENDLESS, "discard")?, arguments)?);
            if let Some(home) = &arguments.flink {
                row.flink.push(self.measure(self.start_flink(home, ENDLESS, "discard")?, arguments)?);
            }
            if self.has_goal() && self.backend == "heap" && self.checkpoint == "off" {
                row.by_hand.push(pipeline::rate(BY_HAND, self.keys));
            }
        }
        println!("{}", row.line());
        Ok(row)
    }

    fn measure(&self, mut job: Running, arguments: &Arguments) -> Result<Measurement> {
        let measured = watch(&mut job, arguments.warm_up, arguments.time)?;
        ensure!(
            self.checkpoint == "off" || measured.checkpoints > 0,
            "{}: no checkpoint was completed meanwhile\n{}",
            self.line(),
            job.log()
        );
        Ok(measured)
    }

    /// Both must count the same.
    fn check(&self, arguments: &Arguments) -> Result<()> {
        let Some(home) = &arguments.flink else { return Ok(()) };
        let sum = |output: String| {
            let sum = output.lines().find_map(|line| line.strip_prefix("checksum=")).map(str::to_owned);
            sum.with_context(|| format!("no checksum in\n{output}"))
        };
        let ours = sum(self.start_millrace(CHECKED, "checksum")?.finish()?)?;
        let theirs = sum(self.start_flink(home, CHECKED, "checksum")?.finish()?)?;
        ensure!(ours == theirs, "{}: the results differ: checksum {ours} here, {theirs} with Flink", self.line());
        Ok(())
    }

    fn start_millrace(&self, records: u64, sink: &str) -> Result<Running> {
        let program = env::current_exe()?.with_file_name("keyed_count");
        let directory = tempfile::tempdir()?;
        let (metrics, rest) = (free_port()?, free_port()?);
        let checkpoints = directory.path().join("checkpoints");
        let mut command = Command::new(program);
        command.env("MILLRACE_METRICS_PORT", metrics.to_string()).env("MILLRACE_REST_PORT", rest.to_string());
        command.env("MILLRACE_STATE_BACKEND_ROCKSDB_LOCALDIR", directory.path().join("rocksdb"));
        // As much as Flink's managed memory, see Settings.java.
        command.env("MILLRACE_STATE_BACKEND_ROCKSDB_MEMORY_SIZE", "2gb");
        command.env("MILLRACE_EXECUTION_CHECKPOINTING_INCREMENTAL", "true");
        command.args(["--records", &records.to_string(), "--keys", &self.keys.to_string(), "--sink", sink]);
        command.args(["--parallelism", &self.parallelism.to_string(), "--checkpoint-interval", self.checkpoint]);
        command.args(["--state-backend", if self.backend == "heap" { "filesystem" } else { self.backend }]);
        command.args(["--checkpoint-dir", &format!("file://{}", checkpoints.display())]);
        let label = "task_name=\"Count";
        let records = Counter { port: metrics, name: "millrace_taskmanager_job_task_numRecordsIn", label };
        let completed = "millrace_jobmanager_job_numberOfCompletedCheckpoints";
        let checkpoints = (self.checkpoint != "off").then_some(Counter { port: rest, name: completed, label: "" });
        Running::start(command, directory, records, checkpoints)
    }

    fn start_flink(&self, home: &std::path::Path, records: u64, sink: &str) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let checkpoints = directory.path().join("checkpoints");
        let mut command = flink(home, "KeyedCount");
        command.args(["--records", &records.to_string(), "--keys", &self.keys.to_string(), "--sink", sink]);
        command.args(["--backend", self.backend, "--parallelism", &self.parallelism.to_string()]);
        command.args(["--checkpoint", self.checkpoint, "--metrics-port", &port.to_string()]);
        command.args(["--checkpoint-dir", &format!("file://{}", checkpoints.display())]);
        let label = "operator_name=\"Count";
        let records = Counter { port, name: "flink_taskmanager_job_task_operator_numRecordsIn{", label };
        let completed = "flink_jobmanager_job_numberOfCompletedCheckpoints";
        let checkpoints = (self.checkpoint != "off").then_some(Counter { port, name: completed, label: "" });
        Running::start(command, directory, records, checkpoints)
    }
}
