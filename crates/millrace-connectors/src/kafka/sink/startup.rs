//! What is checked before the first transaction begins.

use std::time::Duration;

use millrace_core::{Error, Result};
use rdkafka::producer::BaseProducer;

use super::{
    Settings,
    coordinator::{Coordinators, failed},
};
use crate::kafka::context::Context;

const BROKERS_LIMIT: &str = "transaction.max.timeout.ms";

/// A client that writes nothing.
fn client(settings: &Settings) -> Result<BaseProducer<Context>> {
    let config = settings.properties.producer(millrace_core::sink::DeliveryGuarantee::AtLeastOnce)?;
    let client = config.create_with_context(Context::default());
    client.map_err(|error| Error::invalid(format!("Kafka client refused: {error}")))
}

/// That the topic is there, and that the broker lets a transaction be open for so long as we ask for.
pub(super) fn check(settings: &Settings, check_topic: impl FnOnce(&BaseProducer<Context>) -> Result<()>) -> Result<()> {
    check_topic(&client(settings)?)?;
    let asked = settings.properties.transaction_timeout()?;
    let servers = settings.properties.servers();
    let mut coordinators = Coordinators::new(servers);
    let brokers = coordinators.brokers();
    for (id, address) in brokers.map_err(|failure| failed("looking up the brokers", servers, &failure))? {
        let limit = match coordinators.broker_setting(&address, id, BROKERS_LIMIT) {
            Ok(limit) => limit.and_then(|limit| limit.parse().ok()).map(Duration::from_millis),
            // Not everybody may read it. The broker refuses what is too long in any case.
            Err(failure) => {
                tracing::warn!("{BROKERS_LIMIT} of broker {address} can't be read: {failure}");
                continue;
            }
        };
        if let Some(limit) = limit.filter(|limit| *limit < asked) {
            return Err(Error::invalid(format!(
                "the Kafka sink's transaction.timeout.ms is {}, and broker {address} allows {} at most \
                 ({BROKERS_LIMIT}): set the property transaction.timeout.ms to that or less, or raise the broker's limit",
                asked.as_millis(),
                limit.as_millis()
            )));
        }
    }
    Ok(())
}
