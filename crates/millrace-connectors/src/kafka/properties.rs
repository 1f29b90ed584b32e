//! Client settings: ours, the user's, and those that a user cannot have.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use millrace_core::{Error, Result, sink::DeliveryGuarantee};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

/// Better defaults than librdkafka's; users can change them.
const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    // A reader that was given a new partition waits no longer than this for a fetch of others that is under way.
    ("fetch.wait.max.ms", "50"),
    // After the queue was full, fetching pauses so long: 1 s by default, in which a fast job empties the queue.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
];
const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    // The partition of a key is the one that Java clients choose.
    ("partitioner", "murmur2_random"),
    // A broker's restart is survived; what takes longer fails while the task can still be cancelled in time.
    ("message.timeout.ms", "25000"),
    ("queue.buffering.max.kbytes", "65536"),
];
const COMMON_DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "millrace"),
    ("reconnect.backoff.ms", "50"),
    // 10 s by default: a broker that is back would be noticed that late.
    ("reconnect.backoff.max.ms", "1000"),
    ("log.connection.close", "false"),
];

/// What the engine's guarantees rest on. A user may repeat these values, not change them.
const CONSUMER_FIXED: &[(&str, &str, &str)] = &[
    ("enable.auto.commit", "false", "offsets are committed when a checkpoint completes, never otherwise"),
    ("enable.auto.offset.store", "false", "offsets are committed when a checkpoint completes, never otherwise"),
    ("auto.offset.reset", "error", "choose where to begin with starting_offsets; an offset is never reset silently"),
    ("enable.partition.eof", "false", "for an end, use bounded"),
    ("allow.auto.create.topics", "false", "a misspelt topic must be an error"),
];
const PRODUCER_FIXED: &[(&str, &str, &str)] =
    &[("acks", "all", "a record that one broker has could be lost with it, and at least once would not hold")];

const TRANSACTION_TIMEOUT: &str = "transaction.timeout.ms";
/// What a broker allows unless it is told otherwise: 15 minutes. librdkafka's own default is one.
const DEFAULT_TRANSACTION_TIMEOUT: &str = "900000";
const TRANSACTION_DEFAULTS: &[(&str, &str)] = &[
    ("partitioner", "murmur2_random"),
    ("message.timeout.ms", "25000"),
    ("queue.buffering.max.kbytes", "65536"),
    (TRANSACTION_TIMEOUT, DEFAULT_TRANSACTION_TIMEOUT),
];
const TRANSACTION_FIXED: &[(&str, &str, &str)] = &[
    ("acks", "all", "a record that one broker has could be lost with it, and exactly once would not hold"),
    ("enable.idempotence", "true", "a record that is sent again would be there twice"),
];

/// Properties with a setter of their own.
const SETTERS: &[(&str, &str)] = &[
    ("bootstrap.servers", "bootstrap_servers"),
    ("metadata.broker.list", "bootstrap_servers"),
    ("group.id", "group_id"),
    ("transactional.id", "transactional_id_prefix"),
];

/// Aliases that librdkafka knows.
fn canonical(name: &str) -> &str {
    match name {
        "request.required.acks" => "acks",
        "auto.commit.enable" => "enable.auto.commit",
        "delivery.timeout.ms" => "message.timeout.ms",
        name => name,
    }
}

/// The settings of a source's or sink's clients, without the consumer group.
#[derive(Clone)]
pub(super) struct Properties {
    servers: String,
    given: BTreeMap<String, String>,
}

impl Properties {
    pub(super) fn new(servers: String, given: BTreeMap<String, String>) -> Result<Self> {
        if servers.trim().is_empty() {
            return Err(Error::invalid("Kafka's bootstrap servers are missing: set bootstrap_servers(\"host:port\")"));
        }
        Ok(Self { servers, given })
    }

    /// The brokers, for messages.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// A consumer's configuration.
    pub(super) fn consumer(&self) -> Result<ClientConfig> {
        self.config(CONSUMER_DEFAULTS, CONSUMER_FIXED)
    }

    /// The configuration of a producer that gives this guarantee without transactions.
    pub(super) fn producer(&self, guarantee: DeliveryGuarantee) -> Result<ClientConfig> {
        if guarantee == DeliveryGuarantee::None {
            return self.config(PRODUCER_DEFAULTS, &[]);
        }
        let mut config = self.config(PRODUCER_DEFAULTS, PRODUCER_FIXED)?;
        if config.get("enable.idempotence").is_none() {
            config.set("enable.idempotence", "true");
        }
        Ok(config)
    }

    /// The configuration of a producer that writes in transactions of this id.
    pub(super) fn transactional(&self, id: &str) -> Result<ClientConfig> {
        let protocol = self.given.get("security.protocol");
        if let Some(protocol) = protocol.filter(|protocol| !protocol.eq_ignore_ascii_case("plaintext")) {
            return Err(Error::invalid(format!(
                "Kafka property security.protocol is {protocol}, with which the Kafka sink can't deliver exactly once \
                 yet: its commits are sent over plaintext connections only. Choose at least once, or a plaintext \
                 listener"
            )));
        }
        self.transaction_timeout()?;
        let mut config = self.config(TRANSACTION_DEFAULTS, TRANSACTION_FIXED)?;
        config.set("transactional.id", id);
        config.create_native_config().map_err(|error| Error::invalid(format!("Kafka property refused: {error}")))?;
        Ok(config)
    }

    /// How long a transaction may be open.
    pub(super) fn transaction_timeout(&self) -> Result<Duration> {
        let given = self.given.get(TRANSACTION_TIMEOUT).map_or(DEFAULT_TRANSACTION_TIMEOUT, String::as_str);
        given.parse().map(Duration::from_millis).map_err(|_| {
            Error::invalid(format!(
                "Kafka property {TRANSACTION_TIMEOUT} is {given:?}, which is no number of milliseconds"
            ))
        })
    }

    fn config(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str, &str)]) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        for (name, value) in COMMON_DEFAULTS.iter().chain(defaults) {
            config.set(*name, *value);
        }
        for (name, value) in &self.given {
            check(name, value, fixed)?;
            config.set(canonical(name), value);
        }
        for (name, value, _) in fixed {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.servers);
        let verbose = tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG);
        config.set_log_level(if verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
        // Names and values are checked by librdkafka itself.
        config.create_native_config().map_err(|error| Error::invalid(format!("Kafka property refused: {error}")))?;
        Ok(config)
    }

    /// Tells two sets of properties apart without giving away what is in them.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.given.hash(&mut hasher);
        hasher.finish()
    }
}

fn check(name: &str, value: &str, fixed: &[(&str, &str, &str)]) -> Result<()> {
    if let Some((_, setter)) = SETTERS.iter().find(|(reserved, _)| *reserved == name) {
        return Err(Error::invalid(format!("Kafka property {name} can't be set as a property: {setter}")));
    }
    let Some((_, only, why)) = fixed.iter().find(|(reserved, _, _)| *reserved == canonical(name)) else {
        return Ok(());
    };
    if value == *only || (name.ends_with("acks") && value == "-1") {
        return Ok(());
    }
    Err(Error::invalid(format!("Kafka property {name} is always {only} and can't be {value}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(given: &[(&str, &str)]) -> Properties {
        let given = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Properties::new("b:9092".into(), given).unwrap()
    }

    #[test]
    fn properties_are_passed_through_and_win_over_defaults() {
        let config = properties(&[("fetch.wait.max.ms", "7"), ("session.timeout.ms", "9000")]).consumer().unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("session.timeout.ms"), Some("9000"));
        assert_eq!(config.get("bootstrap.servers"), Some("b:9092"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        let config = properties(&[("delivery.timeout.ms", "1000")]).producer(DeliveryGuarantee::AtLeastOnce).unwrap();
        assert_eq!(config.get("message.timeout.ms"), Some("1000"));
    }

    #[test]
    fn auto_commit_and_resets_cannot_be_turned_on() {
        for (name, value) in [
            ("enable.auto.commit", "true"),
            ("auto.commit.enable", "true"),
            ("enable.auto.offset.store", "true"),
            ("auto.offset.reset", "latest"),
            ("group.id", "g"),
            ("bootstrap.servers", "b"),
        ] {
            let error = properties(&[(name, value)]).consumer().unwrap_err();
            assert!(!error.retryable && error.message.contains(name), "{error:?}");
        }
        properties(&[("enable.auto.commit", "false")]).consumer().unwrap();
    }

    #[test]
    fn fewer_acknowledgements_than_all_are_refused() {
        for (name, value) in [("acks", "1"), ("request.required.acks", "0")] {
            assert!(
                properties(&[(name, value)])
                    .producer(DeliveryGuarantee::AtLeastOnce)
                    .unwrap_err()
                    .message
                    .contains(name)
            );
        }
        for value in ["all", "-1"] {
            properties(&[("acks", value)]).producer(DeliveryGuarantee::AtLeastOnce).unwrap();
        }
    }

    #[test]
    fn unknown_properties_and_wrong_values_are_named() {
        for (name, value) in [("fetch.wait.max.msec", "7"), ("fetch.wait.max.ms", "soon")] {
            let error = properties(&[(name, value)]).consumer().unwrap_err();
            assert!(!error.retryable && error.message.contains(name), "{error:?}");
        }
    }

    #[test]
    fn the_digest_tells_properties_apart() {
        assert_ne!(properties(&[("a", "1")]).digest(), properties(&[("a", "2")]).digest());
    }
}
