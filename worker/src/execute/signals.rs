//! SIGTERM and SIGINT. A jobmanager ends at once, and the job goes on without it; a taskmanager hands its tasks over
//! first when it gets a SIGTERM.

use std::time::Duration;

use millrace_core::{Error, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// What a shell reports of a process that a signal ended.
const BY_SIGNAL: i32 = 128;

/// Ends the process when it is told to. Nothing is written as the job's end, so that the next process goes on where
/// this one stood; its connections close with it, which its peers notice at once.
pub fn end_on_signals(what: &'static str) -> Result<()> {
    watch_signals(async move |mut signals| {
        let (name, kind) = signals.next().await;
        tracing::info!("{name}: the {what} ends");
        end_by(kind)
    })
}

/// Tells a taskmanager to leave at the first SIGTERM. The process ends by itself then; or here after `limit`, at another
/// signal, or at a SIGINT.
pub fn leave_on_signals(limit: Duration) -> Result<watch::Receiver<bool>> {
    let (leave, leaving) = watch::channel(false);
    watch_signals(async move |mut signals| {
        let (name, kind) = signals.next().await;
        if kind != SignalKind::terminate() || limit.is_zero() {
            tracing::info!("{name}: the taskmanager ends");
            end_by(kind);
        }
        tracing::info!("{name}: the taskmanager hands its tasks over and ends, within {limit:?}");
        let _ = leave.send(true);
        match tokio::time::timeout(limit, signals.next()).await {
            Ok((name, kind)) => {
                tracing::warn!("{name}: the taskmanager ends before its tasks were handed over");
                end_by(kind)
            }
            Err(_) => {
                tracing::warn!("the taskmanager's tasks were not handed over within {limit:?}; it ends");
                end_by(kind)
            }
        }
    })?;
    Ok(leaving)
}

/// Ends the process as a SIGTERM would.
pub fn end_by_sigterm() -> ! {
    end_by(SignalKind::terminate())
}

fn end_by(kind: SignalKind) -> ! {
    std::process::exit(BY_SIGNAL + kind.as_raw_value())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
        }
    }
}

/// Handles signals on a thread of their own, so that a busy runtime does not delay the end. (The first process of a
/// container dies of no signal that it does not handle.)
fn watch_signals(handle: impl AsyncFnOnce(Signals) + Send + 'static) -> Result<()> {
    let failed = |error: std::io::Error| Error::external(format!("signals can't be handled: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let signals = {
        let _inside = runtime.enter();
        Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        }
    };
    let wait = move || runtime.block_on(handle(signals));
    std::thread::Builder::new().name("signals".to_string()).spawn(wait).map_err(failed)?;
    Ok(())
}
