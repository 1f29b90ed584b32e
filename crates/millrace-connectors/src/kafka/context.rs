//! What librdkafka tells beside messages: its log goes to `tracing`, its last error is kept for a message to a person.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use rdkafka::{
    TopicPartitionList,
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult},
    message::DeliveryResult,
    producer::ProducerContext,
    types::RDKafkaErrorCode,
};

/// An error that librdkafka reported outside of any call.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) code: Option<RDKafkaErrorCode>,
    pub(super) reason: String,
}

/// The context of our clients.
#[derive(Default)]
pub(super) struct Context {
    last_error: Mutex<Option<Reported>>,
    commits: AtomicI64,
    failed_deliveries: AtomicU64,
    first_failed_delivery: Mutex<Option<String>>,
}

impl Context {
    /// The last error since this was asked.
    pub(super) fn take_last_error(&self) -> Option<Reported> {
        lock(&self.last_error).take()
    }

    /// A commit of offsets is under way.
    pub(super) fn commit_began(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a commit of offsets is under way.
    pub(super) fn is_committing(&self) -> bool {
        self.commits.load(Ordering::Relaxed) > 0
    }

    /// How many deliveries failed since this was asked, and why the first did; `None` if none did.
    pub(super) fn take_failed_deliveries(&self) -> Option<(u64, String)> {
        if self.failed_deliveries.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let first = lock(&self.first_failed_delivery).take().unwrap_or_default();
        Some((self.failed_deliveries.swap(0, Ordering::Relaxed), first))
    }

    fn delivery_failed(&self, why: String) {
        lock(&self.first_failed_delivery).get_or_insert(why);
        self.failed_deliveries.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    /// What librdkafka calls an error is one of a connection, and it tries again: nothing that fails a job.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    /// The log has it too.
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let code = error.rdkafka_error_code();
        let mut last = lock(&self.last_error);
        // "All brokers are down" follows what tells why, and says less.
        if last.is_none() || code != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last = Some(Reported { code, reason: reason.to_owned() });
        }
        if code == Some(RDKafkaErrorCode::Fatal) {
            self.delivery_failed(reason.to_owned());
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::debug!(target: "librdkafka", "{}", String::from_utf8_lossy(statistics));
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.commits.fetch_sub(1, Ordering::Relaxed);
        match result {
            Ok(()) => tracing::debug!(?offsets, "committed offsets to the consumer group"),
            // The checkpoint has them: nothing is lost, only what shows the group's progress is behind.
            Err(error) => tracing::warn!("committing offsets to the consumer group failed: {error}"),
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.delivery_failed(error.to_string());
        }
    }
}
