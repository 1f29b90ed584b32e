//! Attacks on a job: a seeded schedule of faults at steps of the protocol and at random moments, each of which must have
//! happened, and a checker that reads the input topic and the output and decides whether every input had its effect
//! exactly once, in order for each key.
//!
//! The job is any program that reads a topic and writes to another one, or the harness's own, which writes files and rows
//! too; `docs/attack.md` says what is asked of it. It runs as it is: what is struck at is found in its log, its processes,
//! and the proxies that stand between them.

mod campaign;
pub mod checker;
pub mod effect;
mod fault;
mod feed;
mod job;
mod output;
mod parts;
mod place;
mod report;
mod schedule;
mod steps;
mod strike;
mod table;
mod team;
mod watch;

pub use campaign::Campaign;
pub use fault::{Fault, Moment, SINK_STEPS};
pub use job::{Backend, Expected, Guarantee, Job};
pub use output::Target;
pub use report::{Report, Struck};
pub use schedule::{Focus, Strike, schedule};
pub use steps::{LOG_LEVEL, Logs, is_step};
pub use strike::KAFKA_SOCKET_TIMEOUT;

/// An error is a sentence.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
