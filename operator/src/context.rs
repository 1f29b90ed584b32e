//! What reconciles share, and when one that failed is tried again.

use std::{sync::Arc, time::Duration};

use kube::{Client, ResourceExt, runtime::controller::Action};
use millrace_api::StreamJob;

use crate::{
    build::BuildContext,
    engine::EngineClient,
    error::{Error, ErrorClass},
    memory::Memory,
    metrics::Metrics,
    observe::cluster::Caches,
};

/// What all reconciles of a scope share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The jobmanagers.
    pub engine: EngineClient,
    /// What the operator's settings give to the objects of jobs.
    pub build: BuildContext,
    /// The operator's name in events.
    pub reporter: String,
    /// How often a running job's numbers are read.
    pub poll_interval: Duration,
    /// What is kept between reconciles.
    pub memory: Arc<Memory>,
    /// The operator's metrics.
    pub metrics: Metrics,
    /// What is known of the cluster.
    pub caches: Caches,
}

/// When to try again after an error.
pub fn error_policy(job: Arc<StreamJob>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.memory.update(&job.uid().unwrap_or_default(), |memory| {
        memory.failures += 1;
        memory.failures
    });
    let (class, name, namespace) = (error.class(), job.name_any(), job.namespace().unwrap_or_default());
    if class == ErrorClass::Conflict {
        tracing::debug!(namespace, name, failures, "{error}");
    } else {
        tracing::warn!(namespace, name, class = class.name(), failures, "{error}");
    }
    Action::requeue(class.back_off(failures))
}
