//! A transaction of one writer, from its beginning until it is prepared.

use std::time::{Duration, Instant};

use millrace_core::{Error, Result};
use rdkafka::{
    error::{KafkaError, RDKafkaError},
    producer::{BaseProducer, Producer},
    types::RDKafkaErrorCode as Code,
    util::Timeout,
};

use super::{
    committer::KafkaCommittable,
    coordinator::{Coordinators, Described, END_TXN_VERSION, failed},
};
use crate::kafka::{closing::drop_beside, context::Context, properties::Properties};

/// So long a transaction may take to begin.
const INIT_LIMIT: Duration = Duration::from_secs(15);

/// A producer whose transaction has begun.
pub(super) struct Transaction {
    /// There until the transaction is prepared.
    producer: Option<BaseProducer<Context>>,
    id: String,
    producer_id: i64,
    producer_epoch: i16,
    servers: String,
}

impl Transaction {
    /// Takes the id over and begins: an open transaction of this id would be aborted.
    ///
    /// librdkafka does not tell producer id and epoch, so the coordinator is asked. Whoever takes the id over in between
    /// fences this producer: no record of it is taken then, and the transaction can't be prepared.
    pub fn begin(properties: &Properties, id: String) -> Result<Self> {
        let servers = properties.servers().to_owned();
        let producer: BaseProducer<Context> = properties
            .transactional(&id)?
            .create_with_context(Context::default())
            .map_err(|error| Error::invalid(format!("Kafka client refused: {error}")))?;
        init(&producer, &id, &servers)?;
        let begun = producer.begin_transaction();
        begun.map_err(|error| transaction_failed("beginning", &id, &servers, &error, &producer))?;
        let what = format!("asking for transaction {id}");
        let described = Coordinators::new(&servers).describe(&id);
        let described = described.map_err(|failure| failed(&what, &servers, &failure))?;
        let described = described.ok_or_else(|| {
            Error::external(format!("Kafka at {servers} does not know transaction {id}, which was just begun"))
        })?;
        let (producer_id, producer_epoch) = (described.producer_id, described.producer_epoch);
        Ok(Self { producer: Some(producer), id, producer_id, producer_epoch, servers })
    }

    pub fn producer(&self) -> Result<&BaseProducer<Context>> {
        self.producer.as_ref().ok_or_else(|| Error::internal("a transaction is written to after it was prepared"))
    }

    /// All records have arrived: nothing but the commit is missing. The producer goes; the transaction stays.
    pub fn prepare(mut self, coordinators: &mut Coordinators) -> Result<KafkaCommittable> {
        let what = format!("preparing transaction {}", self.id);
        let described = coordinators.describe(&self.id);
        let described = described.map_err(|failure| failed(&what, &self.servers, &failure))?;
        let is_ours = |d: &Described| (d.producer_id, d.producer_epoch) == (self.producer_id, self.producer_epoch);
        match described {
            Some(described) if is_ours(&described) && described.state == "Ongoing" => {}
            other => {
                let now = other.map_or("that it does not know it".to_string(), |described| described.to_string());
                return Err(Error::external(format!(
                    "transaction {} of producer {} and epoch {} can't be prepared: its coordinator on Kafka at {} says \
                     {now}. It was open for longer than transaction.timeout.ms, or another producer has taken it over: \
                     another job with the same transactional_id_prefix, or another start of this one",
                    self.id, self.producer_id, self.producer_epoch, self.servers
                )));
            }
        }
        if let Some(producer) = self.producer.take() {
            drop_beside(move || drop(producer));
        }
        Ok(KafkaCommittable::new(self.id.clone(), self.producer_id, self.producer_epoch))
    }
}

impl Drop for Transaction {
    /// What was not prepared is aborted, so that readers don't have to wait for its timeout. Where that does not succeed,
    /// the next start does it.
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        let (servers, id) = (std::mem::take(&mut self.servers), std::mem::take(&mut self.id));
        let (producer_id, epoch) = (self.producer_id, self.producer_epoch);
        drop_beside(move || {
            // First, or records that are under way could begin another one.
            drop(producer);
            let ended = Coordinators::new(&servers).end(&id, producer_id, epoch, END_TXN_VERSION, false);
            if let Err(failure) = ended {
                tracing::debug!(id, "an open transaction is left to the next start: {failure}");
            }
        });
    }
}

fn init(producer: &BaseProducer<Context>, id: &str, servers: &str) -> Result<()> {
    let give_up = Instant::now() + INIT_LIMIT;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        match producer.init_transactions(Timeout::After(left)) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < give_up => {}
            Err(error) => return Err(transaction_failed("taking over", id, servers, &error, producer)),
        }
    }
}

fn transaction_failed(
    what: &str,
    id: &str,
    servers: &str,
    error: &KafkaError,
    producer: &BaseProducer<Context>,
) -> Error {
    let code = match error {
        KafkaError::Transaction(error) => Some(RDKafkaError::code(error)),
        error => error.rdkafka_error_code(),
    };
    let why =
        producer.context().take_last_error().map(|reported| format!(" ({})", reported.reason)).unwrap_or_default();
    let failed = Error::external(format!("{what} transaction {id} failed on Kafka at {servers}: {error}{why}"));
    match code {
        Some(Code::TransactionalIdAuthorizationFailed | Code::ClusterAuthorizationFailed) => failed.fatal(),
        Some(Code::InvalidTransactionTimeout) => failed.fatal(),
        _ => failed,
    }
}
