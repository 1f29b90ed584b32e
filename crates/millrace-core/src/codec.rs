//! How records, keys and state values become bytes: postcard, whose wire format is documented and stable.
//! The bytes don't describe themselves; a [schema](crate::schema) beside them does.

use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Encodes a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|error| cannot_encode::<T>(error))
}

/// Appends a value's encoding to a buffer. After an error the buffer is as it was.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<()> {
    let before = buffer.len();
    postcard::serialize_with_flavor(value, Append(buffer)).map_err(|error| {
        buffer.truncate(before);
        cannot_encode::<T>(error)
    })
}

/// The end of a buffer. Postcard's own way to append takes the buffer and gives it back, for each value.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Decodes a value; bytes that are left over are an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(cannot_decode::<T>(format_args!("{} bytes are left over", rest.len()))),
        Err(error) => Err(cannot_decode::<T>(format_args!("{error}"))),
    }
}

/// Decodes a value from the front of `bytes` and returns the rest.
pub fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8])> {
    postcard::take_from_bytes(bytes).map_err(|error| cannot_decode::<T>(format_args!("{error}")))
}

fn cannot_encode<T: ?Sized>(error: postcard::Error) -> Error {
    Error::invalid(format!("a value of type {} can't be encoded: {error}", std::any::type_name::<T>()))
}

fn cannot_decode<T>(why: std::fmt::Arguments<'_>) -> Error {
    Error::internal(format!("bytes are no value of type {}: {why}", std::any::type_name::<T>()))
}
