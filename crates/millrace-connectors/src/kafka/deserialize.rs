//! Messages to records.

use std::marker::PhantomData;

use millrace_core::{FunctionResult, Record};

/// A message as it lies in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KafkaMessage<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Milliseconds since the epoch, where the message has a time.
    pub timestamp: Option<i64>,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value, if it has one: a message without is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Makes records of messages.
pub trait Deserializer<T>: Send + Sync + 'static {
    /// The record of a message; `None` leaves the message out. An error is treated as
    /// [`on_undecodable`](super::KafkaSourceBuilder::on_undecodable) says.
    fn deserialize(&self, message: &KafkaMessage<'_>) -> FunctionResult<Option<T>>;
}

impl<T, F> Deserializer<T> for F
where
    F: Fn(&KafkaMessage<'_>) -> FunctionResult<Option<T>> + Send + Sync + 'static,
{
    fn deserialize(&self, message: &KafkaMessage<'_>) -> FunctionResult<Option<T>> {
        self(message)
    }
}

/// The value as text. A message without a value is undecodable.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringDeserializer;

impl Deserializer<String> for StringDeserializer {
    fn deserialize(&self, message: &KafkaMessage<'_>) -> FunctionResult<Option<String>> {
        Ok(Some(std::str::from_utf8(value(message)?)?.to_owned()))
    }
}

/// The value as JSON. A message without a value is undecodable.
#[derive(Clone, Copy, Debug)]
pub struct JsonDeserializer<T>(PhantomData<fn() -> T>);

impl<T> JsonDeserializer<T> {
    /// For values of this type.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for JsonDeserializer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Record> Deserializer<T> for JsonDeserializer<T> {
    fn deserialize(&self, message: &KafkaMessage<'_>) -> FunctionResult<Option<T>> {
        Ok(Some(serde_json::from_slice(value(message)?)?))
    }
}

fn value<'a>(message: &KafkaMessage<'a>) -> FunctionResult<&'a [u8]> {
    message.value.ok_or_else(|| "the message has no value".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(value: Option<&[u8]>) -> KafkaMessage<'_> {
        KafkaMessage { topic: "t", partition: 0, offset: 0, timestamp: None, key: None, value }
    }

    #[test]
    fn text_and_json_are_read() {
        assert_eq!(StringDeserializer.deserialize(&message(Some(b"text"))).unwrap().unwrap(), "text");
        assert_eq!(JsonDeserializer::<Vec<u8>>::new().deserialize(&message(Some(b"[1,2]"))).unwrap(), Some(vec![1, 2]));
    }

    #[test]
    fn wrong_bytes_and_missing_values_are_errors() {
        for value in [None, Some(&b"\xff"[..])] {
            assert!(StringDeserializer.deserialize(&message(value)).is_err());
            assert!(JsonDeserializer::<u8>::new().deserialize(&message(value)).is_err());
        }
    }
}
