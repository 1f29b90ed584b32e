//! Where a function puts its results.

/// Takes the results of a function. What is collected while one batch is processed leaves as one batch.
#[derive(Debug)]
pub struct Collector<Out> {
    records: Vec<Out>,
}

impl<Out> Collector<Out> {
    /// An empty collector with room for `capacity` results.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { records: Vec::with_capacity(capacity) }
    }

    /// Hands on a result.
    #[inline]
    pub fn collect(&mut self, record: Out) {
        self.records.push(record);
    }

    /// How much was collected.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// What was collected.
    pub(crate) fn into_records(self) -> Vec<Out> {
        self.records
    }
}

impl<Out> Extend<Out> for Collector<Out> {
    fn extend<I: IntoIterator<Item = Out>>(&mut self, records: I) {
        self.records.extend(records);
    }
}
