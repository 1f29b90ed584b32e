//! SIGTERM and SIGINT: the process ends at once, and the job goes on without it.

use millrace_core::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell reports of a process that a signal ended.
const BY_SIGNAL: i32 = 128;

/// Ends the process when it is told to. Nothing is written as the job's end, so that the next process goes on where
/// this one stood; its connections close with it, which its peers notice at once.
///
/// The first process of a container dies of no signal that it does not handle. The signals are awaited on a thread of
/// their own, so that a busy runtime does not delay the end.
pub fn end_on_signals(what: &'static str) -> Result<()> {
    let failed = |error: std::io::Error| Error::external(format!("signals can't be handled: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let wait = move || {
        let (name, number) = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", SignalKind::terminate()),
                _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            }
        });
        tracing::info!("{name}: the {what} ends");
        std::process::exit(BY_SIGNAL + number.as_raw_value());
    };
    std::thread::Builder::new().name("signals".to_string()).spawn(wait).map_err(failed)?;
    Ok(())
}
