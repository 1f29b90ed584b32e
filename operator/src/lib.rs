//! Millrace's Kubernetes operator: runs a `StreamJob` as a jobmanager and taskmanagers, and says how it is.
//!
//! A reconciliation reads observe, validate, decide, build, apply, report. Observe and apply talk to the cluster; the
//! others are pure.

pub mod apply;
pub mod build;
pub mod check;
pub mod context;
pub mod controller;
pub mod decide;
pub mod engine;
pub mod error;
pub mod leader;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod reconcile;
pub mod report;
pub mod server;
pub mod settings;
pub mod validate;

#[cfg(test)]
mod fixture;
