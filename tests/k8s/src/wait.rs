//! Waiting for what happens in the cluster.

use std::time::{Duration, Instant};

use crate::{Result, bail};

/// How long anything may take that a test waits for: long enough for a machine that is very busy.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(150);

/// Asks again and again until there is an answer. Without one in time it fails with what `explain` says.
pub async fn until<T>(
    awaited: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
    explain: impl AsyncFnOnce() -> String,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("no {awaited} within {} s\n{}", limit.as_secs(), explain().await);
        }
        tokio::time::sleep(POLL).await;
    }
}
