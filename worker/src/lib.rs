//! Millrace's processes. A job's program links this crate through the SDK; [`execute`] makes it a jobmanager, a
//! taskmanager, or both in one.

pub mod announce;
pub mod config;
mod execute;
mod fingerprint;
mod jobmanager;
pub mod logging;
mod memory;
pub mod metrics_server;
mod process_metrics;
pub mod reference;
pub mod rest;
pub mod rpc;
pub mod stores;
mod taskmanager;

pub use execute::execute;
pub use millrace_runtime::scheduler::JobResult;
