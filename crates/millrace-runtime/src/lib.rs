//! Millrace's dataflow runtime: the job graph, tasks and what flows between them, barrier alignment, the checkpoint
//! coordinator and the scheduler.
//!
//! Protocols are pure state machines, `(state, event) -> effects`, without clock, network or disk; thin shells run the
//! effects. This crate knows neither Kubernetes nor Kafka.

/// The target of the log lines, at level `debug`, that each name a step of checkpointing or recovery as it is taken:
/// `docs/attack.md` lists them. Faults can be struck at them.
pub const STEP: &str = "millrace::step";

pub mod alignment;
pub mod coordinator;
pub mod exchange;
pub mod graph;
pub mod metrics;
pub mod network;
pub mod operator;
pub mod scheduler;
pub mod source;
pub mod task;
