//! Structured logs, on standard error.

use std::io::{IsTerminal, stderr};

use millrace_core::{Error, Result};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSettings};

/// Begins to log. The first call of a process decides; a program that set up `tracing` itself keeps what it has.
pub fn init(settings: &LogSettings) -> Result<()> {
    let wrong = |error| Error::invalid(format!("log.level {:?}: {error}", settings.level));
    let filter: Targets = settings.level.parse().map_err(wrong)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    // An error means that a subscriber is there already.
    let _ = match settings.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_ansi(stderr().is_terminal())).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_call_decides_and_a_wrong_level_is_named() {
        let settings = |level: &str| LogSettings { level: level.to_string(), format: LogFormat::Text };
        init(&settings("error")).unwrap();
        init(&settings("info,millrace_runtime=debug")).unwrap();
        let error = init(&settings("info,x=loudly")).unwrap_err();
        assert!(error.message.contains("info,x=loudly"), "{error}");
    }
}
