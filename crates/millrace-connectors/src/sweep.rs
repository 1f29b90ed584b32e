//! What sinks do again and again as long as they write.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use millrace_core::Result;

/// A thread that looks for what zombies have left since. It ends soon after this is dropped.
pub(crate) struct Sweeper {
    _running: mpsc::Sender<()>,
}

impl Sweeper {
    /// Sweeps after each of these delays. What a sweep can't reach, the next one may.
    pub(crate) fn start(
        name: &'static str,
        delays: impl Iterator<Item = Duration> + Send + 'static,
        mut sweep: impl FnMut() -> Result<()> + Send + 'static,
    ) -> Self {
        let (running, over) = mpsc::channel::<()>();
        let work = move || {
            for delay in delays {
                if over.recv_timeout(delay) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                if let Err(error) = sweep() {
                    tracing::warn!(thread = name, "what zombies may have left is looked for again later: {error}");
                }
            }
        };
        if let Err(error) = thread::Builder::new().name(name.into()).spawn(work) {
            tracing::warn!(thread = name, "no thread to look for what zombies leave: {error}");
        }
        Self { _running: running }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use millrace_core::Error;

    use super::*;

    #[test]
    fn it_goes_on_after_a_failure_and_ends_when_it_is_dropped() {
        let (swept, sweeps) = mpsc::channel();
        let sweep = move || {
            swept.send(()).map_err(|_| Error::internal("nobody looks"))?;
            Err(Error::external("the store is away"))
        };
        let sweeper = Sweeper::start("test", iter::repeat(Duration::from_millis(1)), sweep);
        assert_eq!(sweeps.iter().take(3).count(), 3);
        drop(sweeper);
        // The thread has let go of its end.
        sweeps.iter().for_each(drop);
    }
}
