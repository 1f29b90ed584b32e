//! What the schema cannot say about a spec. Pure.

mod configuration;
mod max_parallelism;
mod pod_template;
mod storage;

#[cfg(test)]
mod tests;

use std::fmt;

use millrace_api::StreamJob;

/// Why a spec cannot be deployed: all its problems, a sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(Vec<String>);

impl Invalid {
    /// The problems.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Invalid {}

/// Checks what the schema cannot check.
pub fn validate(job: &StreamJob) -> Result<(), Invalid> {
    let problems = [
        configuration::problems(&job.spec),
        max_parallelism::problems(job),
        pod_template::problems(job),
        storage::problems(&job.spec),
    ]
    .concat();
    if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
}
