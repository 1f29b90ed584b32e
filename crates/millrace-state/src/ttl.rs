//! How long state lives.

use std::time::Duration;

use millrace_core::{Error, Result};

/// A state's time to live, as in Flink: each value, each element of a list and each entry of a map expires by itself when
/// it was not written (or read, if so configured) for so long.
///
/// Expired state is dropped when it is come across: on access, a few entries further with each access, by the backend
/// (RocksDB while it compacts), and when a snapshot is written; there are no scans of all state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTtlConfig {
    ttl: Duration,
    update_type: UpdateType,
    visibility: StateVisibility,
}

/// What lets state live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateType {
    /// Creating and writing it.
    OnCreateAndWrite,
    /// Reading it too.
    OnReadAndWrite,
}

/// Whether expired state may still be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateVisibility {
    /// Never.
    NeverReturnExpired,
    /// Once more, if it is still there.
    ReturnExpiredIfNotCleanedUp,
}

impl StateTtlConfig {
    /// State lives so long after it was written, and is not seen after it has expired.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, update_type: UpdateType::OnCreateAndWrite, visibility: StateVisibility::NeverReturnExpired }
    }

    /// What lets state live on.
    pub fn set_update_type(mut self, update_type: UpdateType) -> Self {
        self.update_type = update_type;
        self
    }

    /// Whether expired state may still be seen.
    pub fn set_state_visibility(mut self, visibility: StateVisibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// When what is written `now` expires.
    pub(crate) fn expiry(&self, now: u64) -> u64 {
        now.saturating_add(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn updates_on_read(&self) -> bool {
        self.update_type == UpdateType::OnReadAndWrite
    }

    pub(crate) fn shows_expired(&self) -> bool {
        self.visibility == StateVisibility::ReturnExpiredIfNotCleanedUp
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.ttl < Duration::from_millis(1) {
            return Err(Error::invalid(format!(
                "a time to live of {:?} is too short: state lives at least one millisecond",
                self.ttl
            )));
        }
        Ok(())
    }
}
