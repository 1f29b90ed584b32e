//! Clients that don't keep their task waiting when they are dropped.

use std::{ops::Deref, sync::mpsc, thread, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, Producer, PurgeConfig},
};

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
        drop_beside(close);
        // Ends with the limit, or when the thread has ended.
        let _ = is_closed.recv_timeout(wait);
    }
}

/// Closing a producer that has records under way lasts 100 ms at least, in which a job that recovers would wait for the
/// end of its tasks. What it has not sent is not sent any more when its drop returns; the rest is done beside.
pub(super) struct ClosingProducer(Option<BaseProducer<Context>>);

impl ClosingProducer {
    pub(super) fn new(producer: BaseProducer<Context>) -> Self {
        Self(Some(producer))
    }
}

impl Deref for ClosingProducer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("there is a producer until it is dropped")
    }
}

impl Drop for ClosingProducer {
    fn drop(&mut self) {
        let Some(producer) = self.0.take() else { return };
        producer.purge(PurgeConfig::default().queue().inflight());
        drop_beside(move || drop(producer));
    }
}

/// Dropping a client waits for librdkafka's threads: a task must not.
pub(super) fn drop_beside(drop: impl FnOnce() + Send + 'static) {
    // Where no thread can be had, the closure is dropped, and what it holds with it, here.
    let _ = thread::Builder::new().name("kafka-close".into()).spawn(drop);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::{ClientConfig, producer::BaseRecord};

    use super::*;

    #[test]
    fn a_producer_with_records_under_way_keeps_nobody_waiting() {
        // Takes connections and answers nothing.
        let broker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = broker.local_addr().unwrap().to_string();
        let with_a_record = || {
            let config = ClientConfig::from_iter([("bootstrap.servers".to_owned(), servers.clone())]);
            let producer: BaseProducer<Context> = config.create_with_context(Context::default()).unwrap();
            producer.send(BaseRecord::<(), str>::to("topic").payload("a record")).unwrap();
            producer
        };
        let time_of = |drop: &dyn Fn()| {
            let started = Instant::now();
            drop();
            started.elapsed()
        };
        let closing = || drop(ClosingProducer::new(with_a_record()));
        let bare = || drop(with_a_record());
        let (closing, bare) = (0..3).map(|_| (time_of(&closing), time_of(&bare))).min().unwrap();
        assert!(closing < bare / 2, "{closing:?}, and otherwise {bare:?}");
    }
}
