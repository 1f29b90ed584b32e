//! Structured logs, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, Settings};

/// Begins to log.
pub fn init(settings: &Settings) -> Result<(), String> {
    let filter: Targets =
        settings.log_level.parse().map_err(|error| format!("log-level {:?}: {error}", settings.log_level))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let initialised = match settings.log_format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_ansi(stderr().is_terminal())).try_init(),
    };
    initialised.map_err(|error| error.to_string())
}
