//! A consumer that does not keep its task waiting when it is dropped.

use std::{ops::Deref, sync::mpsc, thread, time::Duration};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;

/// So long a commit that is under way is waited for: enough for a broker that answers.
const COMMIT_LIMIT: Duration = Duration::from_secs(1);

/// Closing a consumer waits for its answers, as long as its requests may last: for a commit to a broker that is gone
/// that was measured as 45 s, in which a task could not be cancelled. So it is closed on a thread of its own.
pub(super) struct ClosingConsumer(Option<BaseConsumer<Context>>);

impl ClosingConsumer {
    pub(super) fn new(consumer: BaseConsumer<Context>) -> Self {
        Self(Some(consumer))
    }
}

impl Deref for ClosingConsumer {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("there is a consumer until it is dropped")
    }
}

impl Drop for ClosingConsumer {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        let wait = if consumer.context().is_committing() { COMMIT_LIMIT } else { Duration::ZERO };
        let (closed, is_closed) = mpsc::channel::<()>();
        let close = move || {
            drop(consumer);
            drop(closed);
        };
        // Where no thread can be had, the closure is dropped, and the consumer with it, here.
        let _ = thread::Builder::new().name("kafka-close".into()).spawn(close);
        // Ends with the limit, or when the thread has ended.
        let _ = is_closed.recv_timeout(wait);
    }
}
