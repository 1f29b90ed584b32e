//! The vocabulary that every part of Millrace shares: identifiers, key groups, batches of records, errors that keep
//! their class across process boundaries, and the interfaces of sources and sinks.
//!
//! This crate is the leaf of the workspace: it does no IO and knows neither tokio nor Kubernetes.

pub mod batch;
pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod error;
pub mod ids;
pub mod key;
pub mod operator_state;
pub mod rest;
pub mod restart;
pub mod schema;
pub mod sink;
pub mod source;

pub use batch::{Batch, RecordBatch};
pub use error::{BoxError, Error, ErrorDomain, FunctionResult, Result};

use serde::{Serialize, de::DeserializeOwned};

/// What can travel through a job: plain data that serde can encode, so that an edge may cross processes.
///
/// Implemented for every type that qualifies.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Record for T {}
