//! Builds a Kafka source.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use millrace_core::{Error, Result};

use super::{Deserializer, KafkaSource, StartingOffsets, properties::Properties, source::Settings};
use crate::Undecodable;

const DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);

/// Builds a [`KafkaSource`].
#[must_use = "a source comes of build()"]
pub struct KafkaSourceBuilder<T> {
    servers: String,
    topics: Vec<String>,
    group: Option<String>,
    start: StartingOffsets,
    properties: BTreeMap<String, String>,
    deserializer: Option<Arc<dyn Deserializer<T>>>,
    undecodable: Undecodable,
    bounded: bool,
    discovery_interval: Duration,
}

impl<T> KafkaSourceBuilder<T> {
    pub(super) fn new() -> Self {
        Self {
            servers: String::new(),
            topics: Vec::new(),
            group: None,
            start: StartingOffsets::default(),
            properties: BTreeMap::new(),
            deserializer: None,
            undecodable: Undecodable::default(),
            bounded: false,
            discovery_interval: DISCOVERY_INTERVAL,
        }
    }

    /// The brokers to ask first: `host:port`, several separated by commas.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.servers = servers.into();
        self
    }

    /// The topics to read.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// The consumer group to commit offsets to when checkpoints complete; without one nothing is committed.
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Where to begin at the job's first start; [`StartingOffsets::Latest`] by default.
    pub fn starting_offsets(mut self, start: StartingOffsets) -> Self {
        self.start = start;
        self
    }

    /// Any property of librdkafka. Those that would break the job's guarantees are refused by [`build`](Self::build):
    /// auto commit, for one, is off and cannot be turned on.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// What makes records of messages.
    pub fn deserializer(mut self, deserializer: impl Deserializer<T>) -> Self {
        self.deserializer = Some(Arc::new(deserializer));
        self
    }

    /// What to do with messages that the deserializer refuses; by default the job fails.
    pub fn on_undecodable(mut self, policy: Undecodable) -> Self {
        self.undecodable = policy;
        self
    }

    /// Ends the source where the partitions end at the job's first start.
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// How often to look for new partitions; every 10 s by default.
    pub fn discovery_interval(mut self, interval: Duration) -> Self {
        self.discovery_interval = interval;
        self
    }

    /// The source, if its settings make sense. Connects to nothing.
    pub fn build(self) -> Result<KafkaSource<T>> {
        let invalid = |what: &str| Err(Error::invalid(format!("the Kafka source {what}")));
        if self.topics.is_empty() {
            return invalid("has no topic: name one with topics([\"…\"])");
        }
        if let Some(topic) = self.topics.iter().find(|topic| !is_topic_name(topic)) {
            return invalid(&format!("can't read topic {topic:?}: that is no topic's name"));
        }
        if self.topics.iter().collect::<BTreeSet<_>>().len() < self.topics.len() {
            return invalid(&format!("names a topic twice: {}", self.topics.join(", ")));
        }
        if self.group.as_deref() == Some("") {
            return invalid("has an empty group id: leave it out to commit no offsets");
        }
        if matches!(self.start, StartingOffsets::Committed(_)) && self.group.is_none() {
            return invalid("begins at committed offsets, but of no group: set group_id");
        }
        if matches!(self.start, StartingOffsets::Timestamp(time) if time < 0) {
            return invalid("begins at a time before 1970: choose StartingOffsets::Earliest");
        }
        if self.discovery_interval.is_zero() {
            return invalid("has a discovery interval of 0: choose more");
        }
        let Some(deserializer) = self.deserializer else {
            return invalid("has no deserializer: set one, or begin with KafkaSource::strings()");
        };
        let settings = Settings {
            properties: Properties::new(self.servers, self.properties)?,
            topics: self.topics,
            group: self.group,
            start: self.start,
            bounded: self.bounded,
            discovery_interval: self.discovery_interval,
            undecodable: self.undecodable,
        };
        settings.config(true)?;
        Ok(KafkaSource { settings: Arc::new(settings), deserializer })
    }
}

/// What Kafka takes for a topic's name.
pub(super) fn is_topic_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&name.len()) && name.bytes().all(is_allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use millrace_core::source::Source;

    use super::*;

    fn builder() -> KafkaSourceBuilder<String> {
        KafkaSource::strings().bootstrap_servers("b:9092").topics(["t"]).group_id("g")
    }

    #[test]
    fn senseless_settings_are_refused_by_name() {
        let cases = [
            (KafkaSource::strings().bootstrap_servers("b:9092"), "topics"),
            (KafkaSource::strings().topics(["t"]), "bootstrap_servers"),
            (builder().topics(["a b"]), "\"a b\""),
            (builder().topics(["t"]), "twice"),
            (builder().group_id(""), "group id"),
            (builder().discovery_interval(Duration::ZERO), "interval"),
            (builder().starting_offsets(StartingOffsets::Timestamp(-1)), "1970"),
            (builder().property("enable.auto.commit", "true"), "enable.auto.commit"),
            (builder().property("no.such.thing", "1"), "no.such.thing"),
            (KafkaSource::builder().bootstrap_servers("b:9092").topics(["t"]), "deserializer"),
        ];
        for (builder, part) in cases {
            let error = builder.build().err().unwrap();
            assert!(!error.retryable && error.message.contains(part), "{error:?}");
        }
    }

    #[test]
    fn the_fingerprint_tells_sources_apart_and_shows_no_secret() {
        let print = |builder: KafkaSourceBuilder<String>| builder.build().unwrap().fingerprint();
        assert_eq!(print(builder()), print(builder()));
        assert_ne!(print(builder()), print(builder().topics(["u"])));
        let secret = print(builder().property("sasl.password", "s3cret"));
        assert_ne!(print(builder()), secret);
        assert!(!secret.windows(6).any(|bytes| bytes == b"s3cret"));
    }
}
