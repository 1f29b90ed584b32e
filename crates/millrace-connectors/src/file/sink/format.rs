//! What records look like in a part file.

use std::{fmt::Display, io::Write};

use millrace_core::{FunctionResult, Record};

/// A format of part files.
pub trait FileFormat<T>: Send + Sync + 'static {
    /// What a file's name ends in, such as `.json`; nothing by default.
    fn extension(&self) -> &str {
        ""
    }

    /// Begins a file.
    fn begin(&self) -> FunctionResult<Box<dyn PartEncoder<T>>>;
}

/// Encodes the records of one file.
pub trait PartEncoder<T> {
    /// Appends a record's bytes. May keep some back until later.
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> FunctionResult;

    /// Appends what the file ends with.
    fn finish(&mut self, out: &mut Vec<u8>) -> FunctionResult;
}

/// Each record as a line, by its `Display`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextLines;

impl<T: Record + Display> FileFormat<T> for TextLines {
    fn begin(&self) -> FunctionResult<Box<dyn PartEncoder<T>>> {
        Ok(Box::new(Self))
    }
}

impl<T: Display> PartEncoder<T> for TextLines {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> FunctionResult {
        Ok(writeln!(out, "{record}")?)
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> FunctionResult {
        Ok(())
    }
}

/// Each record as a line of JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLines;

impl<T: Record> FileFormat<T> for JsonLines {
    fn extension(&self) -> &str {
        ".json"
    }

    fn begin(&self) -> FunctionResult<Box<dyn PartEncoder<T>>> {
        Ok(Box::new(Self))
    }
}

impl<T: Record> PartEncoder<T> for JsonLines {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> FunctionResult {
        serde_json::to_writer(&mut *out, record)?;
        out.push(b'\n');
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> FunctionResult {
        Ok(())
    }
}
