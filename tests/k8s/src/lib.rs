//! The proof on a real cluster: the operator is installed with Helm as a user installs it, jobs run in pods against a
//! real MinIO and a real Kafka, and faults are real.
//!
//! Without further ado the cluster is the project's own (`tests/cluster`), brought up for the tests and taken down
//! after them; one that runs already is used and left running. `MILLRACE_TEST_KUBECONFIG` names another one instead.
//! There
//!
//! - the images `millrace/operator:<version>`, `millrace/worker:<version>` and, the same as the latter,
//!   `millrace/worker:next` must be on every node;
//! - `MILLRACE_TEST_HOST_ADDRESS` says at which of this machine's addresses pods reach it: MinIO and Kafka run here;
//! - faults that need the node itself (a killed process, a packet filter) are skipped, loudly.
//!
//! `MILLRACE_TEST_IMAGES` names a directory with `operator.tar` and `worker.tar` to load into the project's own
//! cluster; without it they are built.

pub mod chaos;
pub mod cluster;
pub mod commands;
pub mod job;
pub mod load;
pub mod suite;
pub mod wait;

pub use anyhow::{Context, Result, bail, ensure};
