//! What a cluster is made of.

use std::path::PathBuf;

/// The processes to start: all run the same program with the same arguments.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The job's program; [`program`](super::program) finds those of this workspace.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// How many taskmanagers.
    pub taskmanagers: usize,
    /// How many slots each offers.
    pub slots: u32,
    /// Settings, which override what the program sets; of several for one key the last holds.
    pub config: Vec<(String, String)>,
    /// Environment variables beside those of the test; of several for one name the last holds.
    pub env: Vec<(String, String)>,
}

impl ClusterSpec {
    /// A jobmanager and one taskmanager with one slot.
    pub fn new(program: PathBuf) -> Self {
        let spec = Self { program, args: Vec::new(), taskmanagers: 1, slots: 1, config: Vec::new(), env: Vec::new() };
        // A killed process is noticed by its connection. On a busy machine silence alone is no failure.
        spec.set("heartbeat.timeout", "30 s")
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the number of taskmanagers.
    pub fn taskmanagers(mut self, taskmanagers: usize) -> Self {
        self.taskmanagers = taskmanagers;
        self
    }

    /// Sets the number of slots of each.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Sets a configuration key.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}
