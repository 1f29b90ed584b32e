//! Counting by key.

use millrace::prelude::*;

/// Counts the records of each key.
#[derive(Clone, Default)]
pub struct Count {
    count: ValueState<i64>,
}

/// A record, and what becomes of it once its key is counted.
pub trait Counted: millrace::Record {
    /// What comes out.
    type Out: millrace::Record;

    /// The record with its key's count.
    fn counted(self, count: i64) -> Self::Out;
}

impl<T: Counted> KeyedFlatMapFunction<T, T::Out> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, record: T, out: &mut Collector<T::Out>) -> FunctionResult {
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        out.collect(record.counted(count));
        Ok(())
    }
}

impl Counted for String {
    type Out = (Self, i64);

    fn counted(self, count: i64) -> (Self, i64) {
        (self, count)
    }
}
