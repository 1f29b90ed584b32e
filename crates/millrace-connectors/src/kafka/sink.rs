//! The Kafka sink: what a program configures and every process holds.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{
    Error, Record, Result,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};

use super::{Serializer, StringSerializer, builder::is_topic_name, properties::Properties, writer::KafkaWriter};

/// Writes records to a topic, at least once: a checkpoint completes only when every record before it has been
/// acknowledged by all in-sync replicas; what was written after the last completed one is written again after a
/// failure.
///
/// ```
/// use millrace_connectors::kafka::KafkaSink;
///
/// # fn main() -> millrace_core::Result<()> {
/// let sink = KafkaSink::strings().bootstrap_servers("localhost:9092").topic("output-topic").build()?;
/// # let _ = sink;
/// # Ok(())
/// # }
/// ```
pub struct KafkaSink<T> {
    properties: Properties,
    topic: Arc<str>,
    serializer: Arc<dyn Serializer<T>>,
}

impl<T> KafkaSink<T> {
    /// Begins a sink; [`KafkaSinkBuilder::serializer`] says what its messages are.
    pub fn builder() -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder { servers: String::new(), topic: String::new(), properties: BTreeMap::new(), serializer: None }
    }
}

impl KafkaSink<String> {
    /// Begins a sink of text as values, without keys.
    pub fn strings() -> KafkaSinkBuilder<String> {
        Self::builder().serializer(StringSerializer)
    }
}

impl<T> Clone for KafkaSink<T> {
    fn clone(&self) -> Self {
        let Self { properties, topic, serializer } = self;
        Self { properties: properties.clone(), topic: Arc::clone(topic), serializer: Arc::clone(serializer) }
    }
}

impl<T: Record> Sink for KafkaSink<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let writer = KafkaWriter::new(&self.properties, Arc::clone(&self.topic), Arc::clone(&self.serializer))?;
        Ok(Box::new(writer))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

/// Builds a [`KafkaSink`].
#[must_use = "a sink comes of build()"]
pub struct KafkaSinkBuilder<T> {
    servers: String,
    topic: String,
    properties: BTreeMap<String, String>,
    serializer: Option<Arc<dyn Serializer<T>>>,
}

impl<T> KafkaSinkBuilder<T> {
    /// The brokers to ask first: `host:port`, several separated by commas.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.servers = servers.into();
        self
    }

    /// The topic to write to.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Any property of librdkafka, except those that would break at least once.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// What makes messages of records.
    pub fn serializer(mut self, serializer: impl Serializer<T>) -> Self {
        self.serializer = Some(Arc::new(serializer));
        self
    }

    /// The sink, if its settings make sense. Connects to nothing.
    pub fn build(self) -> Result<KafkaSink<T>> {
        let invalid = |what: &str| Err(Error::invalid(format!("the Kafka sink {what}")));
        if self.topic.is_empty() {
            return invalid("has no topic: name one with topic(\"…\")");
        }
        if !is_topic_name(&self.topic) {
            return invalid(&format!("can't write to topic {:?}: that is no topic's name", self.topic));
        }
        let Some(serializer) = self.serializer else {
            return invalid("has no serializer: set one, or begin with KafkaSink::strings()");
        };
        let properties = Properties::new(self.servers, self.properties)?;
        properties.producer()?;
        Ok(KafkaSink { properties, topic: self.topic.into(), serializer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_refused_by_name() {
        let builder = || KafkaSink::strings().bootstrap_servers("b:9092").topic("t");
        let cases = [
            (KafkaSink::strings().bootstrap_servers("b:9092"), "topic("),
            (KafkaSink::strings().topic("t"), "bootstrap_servers"),
            (builder().topic("a/b"), "\"a/b\""),
            (builder().property("acks", "1"), "acks"),
            (builder().property("transactional.id", "x"), "transactional.id"),
            (KafkaSink::builder().bootstrap_servers("b:9092").topic("t"), "serializer"),
        ];
        for (builder, part) in cases {
            let error = builder.build().err().unwrap();
            assert!(!error.retryable && error.message.contains(part), "{error:?}");
        }
    }
}
