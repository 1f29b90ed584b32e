//! Building a Kafka sink.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{Error, Result, sink::DeliveryGuarantee};

use super::{
    KafkaSink, Settings,
    outgoing::{MessageFormat, Partitioner, Topic},
};
use crate::kafka::{Serializer, builder::is_topic_name, properties::Properties};

/// Builds a [`KafkaSink`].
#[must_use = "a sink comes of build()"]
pub struct KafkaSinkBuilder<T> {
    servers: String,
    topic: Option<Topic<T>>,
    properties: BTreeMap<String, String>,
    serializer: Option<Arc<dyn Serializer<T>>>,
    partitioner: Option<Partitioner<T>>,
    guarantee: DeliveryGuarantee,
    prefix: Option<String>,
}

impl<T> Default for KafkaSinkBuilder<T> {
    fn default() -> Self {
        Self {
            servers: String::new(),
            topic: None,
            properties: BTreeMap::new(),
            serializer: None,
            partitioner: None,
            guarantee: DeliveryGuarantee::AtLeastOnce,
            prefix: None,
        }
    }
}

impl<T> KafkaSinkBuilder<T> {
    /// The brokers to ask first: `host:port`, several separated by commas.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.servers = servers.into();
        self
    }

    /// The topic to write to.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(Topic::One(topic.into().into()));
        self
    }

    /// Chooses each record's topic, instead of [`topic`](Self::topic).
    pub fn topic_selector(mut self, select: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.topic = Some(Topic::Selected(Arc::new(select)));
        self
    }

    /// Any property of librdkafka, except those that would break the delivery guarantee.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// What makes messages of records.
    pub fn serializer(mut self, serializer: impl Serializer<T>) -> Self {
        self.serializer = Some(Arc::new(serializer));
        self
    }

    /// Chooses a record's partition, given how many its topic has. By default the key decides as it does for Java clients;
    /// records without a key are spread.
    pub fn partitioner(mut self, partitioner: impl Fn(&T, i32) -> i32 + Send + Sync + 'static) -> Self {
        self.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// What the sink promises; [`AtLeastOnce`](DeliveryGuarantee::AtLeastOnce) by default.
    pub fn delivery_guarantee(mut self, guarantee: DeliveryGuarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// With what the transactional ids of this sink begin, for exactly once. It must be unique among the jobs that write
    /// to this Kafka, or they would abort each other's transactions; and stay the same for the job's life.
    pub fn transactional_id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The sink, if its settings make sense. Connects to nothing.
    pub fn build(self) -> Result<KafkaSink<T>> {
        let invalid = |what: &str| Err(Error::invalid(format!("the Kafka sink {what}")));
        let topic = match self.topic {
            None => return invalid("has no topic: name one with topic(\"…\"), or choose with topic_selector"),
            Some(Topic::One(topic)) if !is_topic_name(&topic) => {
                return invalid(&format!("can't write to topic {topic:?}: that is no topic's name"));
            }
            Some(topic) => topic,
        };
        let Some(serializer) = self.serializer else {
            return invalid("has no serializer: set one, or begin with KafkaSink::strings()");
        };
        let properties = Properties::new(self.servers, self.properties)?;
        match (self.guarantee, self.prefix.as_deref()) {
            (DeliveryGuarantee::ExactlyOnce, None | Some("")) => {
                return invalid(
                    "delivers exactly once and has no transactional_id_prefix: set one that no other job uses on this \
                     Kafka, and that stays the same",
                );
            }
            (DeliveryGuarantee::ExactlyOnce, Some(prefix)) => {
                properties.transactional(prefix)?;
            }
            (guarantee, _) => {
                properties.producer(guarantee)?;
            }
        }
        let format = MessageFormat { topic, serializer, partitioner: self.partitioner };
        let settings = Settings { properties, guarantee: self.guarantee, prefix: self.prefix };
        Ok(KafkaSink { settings: Arc::new(settings), format })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::{checkpoint::CheckpointConfig, sink::Sink};

    use super::*;

    fn builder() -> KafkaSinkBuilder<String> {
        KafkaSink::strings().bootstrap_servers("b:9092").topic("t")
    }

    fn exactly_once() -> KafkaSinkBuilder<String> {
        builder().delivery_guarantee(DeliveryGuarantee::ExactlyOnce).transactional_id_prefix("p")
    }

    #[test]
    fn senseless_settings_are_refused_by_name() {
        let cases = [
            (KafkaSink::strings().bootstrap_servers("b:9092"), "topic("),
            (KafkaSink::strings().topic("t"), "bootstrap_servers"),
            (builder().topic("a/b"), "\"a/b\""),
            (builder().property("acks", "1"), "acks"),
            (builder().property("transactional.id", "x"), "transactional.id"),
            (builder().delivery_guarantee(DeliveryGuarantee::ExactlyOnce), "transactional_id_prefix"),
            (exactly_once().property("enable.idempotence", "false"), "enable.idempotence"),
            (exactly_once().property("transaction.timeout.ms", "soon"), "transaction.timeout.ms"),
            (exactly_once().property("security.protocol", "SSL"), "security.protocol"),
            (KafkaSink::builder().bootstrap_servers("b:9092").topic("t"), "serializer"),
        ];
        for (builder, part) in cases {
            let error = builder.build().err().unwrap();
            assert!(!error.retryable && error.message.contains(part), "{part}: {error:?}");
        }
        assert!(builder().delivery_guarantee(DeliveryGuarantee::None).property("acks", "1").build().is_ok());
    }

    #[test]
    fn a_transaction_must_outlive_its_checkpoint() {
        let check = |timeout: &str, interval| {
            let sink = exactly_once().property("transaction.timeout.ms", timeout).build().unwrap();
            sink.check(&CheckpointConfig { interval: Some(interval), ..Default::default() })
        };
        let error = check("60000", Duration::from_secs(60)).unwrap_err();
        for part in ["transaction.timeout.ms is 60000", "60s"] {
            assert!(!error.retryable && error.message.contains(part), "{error:?}");
        }
        check("60001", Duration::from_secs(60)).unwrap();
    }
}
