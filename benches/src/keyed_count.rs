//! The keyed count (`examples/src/keyed_count.rs`, `flink/src/millrace/bench/KeyedCount.java`): strings `key-<n>` are made,
//! keyed by themselves, counted in a `ValueState`, and thrown away.

use std::{cell::RefCell, collections::BTreeSet, path::Path, rc::Rc};

use anyhow::{Context, Result, ensure};

use crate::{
    Arguments,
    case::{Case, Row},
    comparison::Comparison,
    contender::{FlinkJob, MillraceJob, Running},
    measure::{Measurement, Watched, watch},
    pipeline,
};

/// So many that no run comes to its end.
const ENDLESS: u64 = 1 << 40;
/// So many are counted, by both, when their results are compared.
const CHECKED: u64 = 2_000_000;
/// So many are counted by hand.
const BY_HAND: u64 = 100_000_000;

/// What was checked in this run: backend and parallelism.
type Checked = Rc<RefCell<BTreeSet<(&'static str, u32)>>>;

/// A cell of the table.
pub struct KeyedCount {
    backend: &'static str,
    keys: u64,
    parallelism: u32,
    checkpoint: &'static str,
    checked: Checked,
}

/// All cells.
pub fn cases() -> Vec<Box<dyn Case>> {
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    let checked = Checked::default();
    for backend in ["heap", "rocksdb"] {
        for keys in [100_000, 1_000_000, 10_000_000] {
            for parallelism in [1, 2] {
                for checkpoint in ["off", "1s"] {
                    let checked = Rc::clone(&checked);
                    cases.push(Box::new(KeyedCount { backend, keys, parallelism, checkpoint, checked }));
                }
            }
        }
    }
    cases
}

impl Case for KeyedCount {
    fn name(&self) -> String {
        let Self { backend, keys, parallelism, checkpoint, .. } = self;
        format!("keyed-count backend={backend} keys={keys} parallelism={parallelism} checkpoint={checkpoint}")
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        if self.checked.borrow_mut().insert((self.backend, self.parallelism)) {
            self.check(arguments)?;
        }
        let mut measured = Comparison::default();
        for _ in 0..if self.has_goal() { arguments.runs } else { 1 } {
            measured.millrace.push(self.millrace(arguments)?);
            if let Some(home) = &arguments.flink {
                measured.flink.push(self.measure(self.endless_on_flink(home)?, arguments)?);
            }
            if self.has_goal() && self.backend == "heap" && self.checkpoint == "off" {
                measured.by_hand.push(pipeline::rate(BY_HAND, self.keys));
            }
        }
        Ok(measured.row(self.name()))
    }
}

impl KeyedCount {
    /// A cell on the heap.
    pub fn on_heap(keys: u64, parallelism: u32, checkpoint: &'static str) -> Self {
        Self { backend: "heap", keys, parallelism, checkpoint, checked: Checked::default() }
    }

    /// Starts it on Millrace; it does not end by itself.
    pub fn endless(&self) -> Result<Running> {
        self.start_millrace(ENDLESS, "discard")
    }

    /// Starts it on Flink; it does not end by itself.
    pub fn endless_on_flink(&self, home: &Path) -> Result<Running> {
        self.start_flink(home, ENDLESS, "discard")
    }

    /// The arguments of a job that does not end by itself, without its state's.
    pub fn endless_arguments(&self) -> [String; 8] {
        self.job_arguments(ENDLESS, "discard")
    }

    fn job_arguments(&self, records: u64, sink: &str) -> [String; 8] {
        let (records, keys, parallelism) = (records.to_string(), self.keys.to_string(), self.parallelism.to_string());
        ["--records", &records, "--keys", &keys, "--sink", sink, "--parallelism", &parallelism].map(str::to_owned)
    }

    /// Measures it on Millrace.
    pub fn millrace(&self, arguments: &Arguments) -> Result<Measurement> {
        self.measure(self.endless()?, arguments)
    }

    /// Whether a goal is set for it.
    fn has_goal(&self) -> bool {
        match self.backend {
            "heap" => self.keys == 1_000_000 && self.parallelism == 1,
            _ => self.keys >= 1_000_000 && self.parallelism == 1 && self.checkpoint == "1s",
        }
    }

    fn measure(&self, mut job: Running, arguments: &Arguments) -> Result<Measurement> {
        let measured = watch(&mut job, arguments.warm_up, arguments.time)?;
        ensure!(
            self.checkpoint == "off" || measured.checkpoints > 0,
            "{}: no checkpoint was completed meanwhile\n{}",
            self.name(),
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
        ensure!(ours == theirs, "{}: the results differ: checksum {ours} here, {theirs} with Flink", self.name());
        Ok(())
    }

    fn start_millrace(&self, records: u64, sink: &str) -> Result<Running> {
        let job = MillraceJob::new("keyed_count")?
            .args(self.job_arguments(records, sink))
            .state(self.backend, self.checkpoint);
        let counted = job.taken_by("Count");
        job.start(counted)
    }

    fn start_flink(&self, home: &Path, records: u64, sink: &str) -> Result<Running> {
        let job = FlinkJob::new(home, "KeyedCount")?
            .args(self.job_arguments(records, sink))
            .state(self.backend, self.checkpoint);
        let counted = job.taken_by("Count");
        job.start(counted)
    }
}
