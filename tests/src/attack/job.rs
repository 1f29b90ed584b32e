//! The job that is attacked.

use std::path::PathBuf;

use super::Target;

/// What the job's sink promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// What it wrote after the last checkpoint may come again.
    #[default]
    AtLeastOnce,
    /// A reader of committed records sees each output once.
    ExactlyOnce,
}

/// A state backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `memory`, with checkpoints in an object store.
    Memory,
    /// `filesystem`, with checkpoints on a disk.
    Filesystem,
    /// `rocksdb`, on a disk, with incremental checkpoints in an object store.
    RocksDb,
}

impl Backend {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Filesystem => "filesystem",
            Self::RocksDb => "rocksdb",
        }
    }
}

/// What the outputs should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Those of a run of the same job over the same input without a fault.
    #[default]
    Reference,
    /// Those that [`effects`](super::effect::effects) computes, and those of such a run must be the same.
    Effects,
}

/// A program that reads a topic and writes to another one, to files or to a table.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, in which `{kafka}`, `{input}`, `{output}` and `{name}` are replaced.
    pub args: Vec<String>,
    /// Settings, beside those of every attack.
    pub config: Vec<(String, String)>,
    /// How many slots it needs.
    pub slots: usize,
    /// What its sink promises.
    pub guarantee: Guarantee,
    /// What it writes to.
    pub target: Target,
    /// What its outputs should be.
    pub expected: Expected,
    /// The records to feed it with, over and over again, a key and a value each; none: `key-<n> <number>`.
    pub records: Vec<(String, String)>,
}

impl Job {
    /// A job whose outputs are compared with those of a run without a fault.
    pub fn new(program: PathBuf, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program,
            args: args.into_iter().map(Into::into).collect(),
            config: Vec::new(),
            slots: 2,
            guarantee: Guarantee::default(),
            target: Target::default(),
            expected: Expected::default(),
            records: Vec::new(),
        }
    }

    /// The harness's own: see [`effect`](super::effect).
    pub fn own(program: PathBuf) -> Self {
        let args = ["--kafka", "{kafka}", "--input", "{input}", "--output", "{output}"];
        Self { expected: Expected::Effects, ..Self::new(program, args) }
    }

    /// The same with a sink that commits with the checkpoint.
    pub fn own_exactly_once(program: PathBuf) -> Self {
        let mut job = Self { guarantee: Guarantee::ExactlyOnce, ..Self::own(program) };
        job.args.extend(["--exactly-once", "{name}"].map(str::to_owned));
        job
    }

    /// The same with another target.
    pub fn to(mut self, target: Target) -> Self {
        self.target = target;
        // A file sink always commits with the checkpoint; rows that are written again are the same.
        if target != Target::Kafka {
            self.guarantee = Guarantee::ExactlyOnce;
        }
        self
    }

    /// The same with barriers that overtake records.
    pub fn unaligned(mut self) -> Self {
        self.config.push(("execution.checkpointing.unaligned.enabled".to_owned(), "true".to_owned()));
        self
    }

    /// Its arguments for these topics.
    pub(super) fn args(&self, kafka: &str, name: &str, input: &str, output: &str) -> Vec<String> {
        let fill = |arg: &String| {
            let filled = arg.replace("{kafka}", kafka).replace("{input}", input);
            filled.replace("{output}", output).replace("{name}", name)
        };
        self.args.iter().map(fill).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_filled_in() {
        let job = Job::new("x".into(), ["--from={kafka}/{input}", "{output}", "{name}", "{other}"]);
        assert_eq!(job.args("b:1", "n", "in", "out"), ["--from=b:1/in", "out", "n", "{other}"]);
    }
}
