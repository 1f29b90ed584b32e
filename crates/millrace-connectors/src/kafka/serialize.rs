//! Records to messages.

use std::borrow::Cow;

use millrace_core::{FunctionResult, Record};

/// A message's header: a name, and a value if it has one.
pub type MessageHeader<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// Makes messages of records.
pub trait Serializer<T>: Send + Sync + 'static {
    /// The value of a record's message.
    fn value<'a>(&self, record: &'a T) -> FunctionResult<Cow<'a, [u8]>>;

    /// The key of a record's message, which decides its partition; none by default.
    fn key<'a>(&self, _record: &'a T) -> FunctionResult<Option<Cow<'a, [u8]>>> {
        Ok(None)
    }

    /// The headers of a record's message; none by default.
    fn headers<'a>(&self, _record: &'a T) -> FunctionResult<Vec<MessageHeader<'a>>> {
        Ok(Vec::new())
    }

    /// The time of a record's message, milliseconds since the epoch; by default that of its writing.
    fn timestamp(&self, _record: &T) -> FunctionResult<Option<i64>> {
        Ok(None)
    }
}

/// Text as the value, without a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringSerializer;

impl Serializer<String> for StringSerializer {
    fn value<'a>(&self, record: &'a String) -> FunctionResult<Cow<'a, [u8]>> {
        Ok(Cow::Borrowed(record.as_bytes()))
    }
}

/// JSON as the value, without a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonSerializer;

impl<T: Record> Serializer<T> for JsonSerializer {
    fn value<'a>(&self, record: &'a T) -> FunctionResult<Cow<'a, [u8]>> {
        Ok(Cow::Owned(serde_json::to_vec(record)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_are_written() {
        assert_eq!(&*StringSerializer.value(&"text".to_string()).unwrap(), b"text");
        assert_eq!(&*JsonSerializer.value(&vec![1_u8, 2]).unwrap(), b"[1,2]");
    }
}
