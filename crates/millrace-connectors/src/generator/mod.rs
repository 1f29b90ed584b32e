//! A source that makes its records up.

mod pace;
mod reader;
mod split;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, marker::PhantomData, sync::Arc, time::Duration};

use millrace_core::{
    Error, Record, Result, codec,
    source::{Boundedness, Discovery, EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator},
};

use reader::GeneratorReader;
pub use split::GeneratorSplit;

/// Yields `function(0)`, `function(1)`, … up to a count or without end, as fast as they are taken or at a rate.
///
/// Each index is yielded once, across restarts and changes of parallelism; with a parallelism of 1 in order.
///
/// ```
/// use millrace_connectors::GeneratorSource;
///
/// let source = GeneratorSource::new(|index| format!("key-{}", index % 1000)).count(1_000_000).rate(5_000.0);
/// # let _ = source;
/// ```
pub struct GeneratorSource<T, F> {
    function: Arc<F>,
    count: Option<u64>,
    rate: Option<f64>,
    record: PhantomData<fn() -> T>,
}

impl<T: Record, F: Fn(u64) -> T + Send + Sync + 'static> GeneratorSource<T, F> {
    /// A source without end and without limit of rate.
    pub fn new(function: F) -> Self {
        Self { function: Arc::new(function), count: None, rate: None, record: PhantomData }
    }

    /// Ends the source after so many records.
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Limits the source, all subtasks together, to so many records a second.
    pub fn rate(mut self, records_per_second: f64) -> Self {
        self.rate = Some(records_per_second);
        self
    }

    fn checked_rate(&self) -> Result<Option<f64>> {
        match self.rate {
            Some(rate) if !rate.is_finite() || rate <= 0.0 => Err(Error::invalid(format!(
                "a generator's rate must be above 0 records a second, it is {rate}; leave it out for no limit"
            ))),
            rate => Ok(rate),
        }
    }
}

impl<T, F> Clone for GeneratorSource<T, F> {
    fn clone(&self) -> Self {
        let function = Arc::clone(&self.function);
        Self { function, count: self.count, rate: self.rate, record: PhantomData }
    }
}

impl<T: Record, F: Fn(u64) -> T + Send + Sync + 'static> Source for GeneratorSource<T, F> {
    type Record = T;
    type Split = GeneratorSplit;

    fn boundedness(&self) -> Boundedness {
        if self.count.is_some() { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn create_enumerator(&self, context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<GeneratorSplit>>> {
        let splits = split::splits(context.parallelism, self.count, self.checked_rate()?);
        Ok(Box::new(GeneratorEnumerator { splits }))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<T, GeneratorSplit>>> {
        let rate = self.checked_rate()?;
        Ok(Box::new(GeneratorReader::new(Arc::clone(&self.function), self.count.unwrap_or(u64::MAX), rate)))
    }

    fn fingerprint(&self) -> Vec<u8> {
        codec::encode(&(self.count, self.rate)).unwrap_or_default()
    }
}

struct GeneratorEnumerator {
    splits: Vec<GeneratorSplit>,
}

impl SplitEnumerator<GeneratorSplit> for GeneratorEnumerator {
    /// All splits at once. After a restore those of the first start go on, whatever the parallelism is now.
    fn discover(&mut self, known: &BTreeSet<String>, _discovery: Discovery) -> Result<Vec<GeneratorSplit>> {
        Ok(if known.is_empty() { self.splits.clone() } else { vec![] })
    }

    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
}
