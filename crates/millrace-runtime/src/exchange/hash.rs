//! The exchange behind `key_by`: keys are encoded and hashed once, here, and travel with their records.

use std::marker::PhantomData;

use millrace_core::{
    Batch, Record, RecordBatch, Result,
    key::{KeyColumn, subtask_of_key_group},
    schema::Schema,
};
use serde::Serialize;

use super::{Exchange, Partitioner, wire};

/// Finds the key of a record. The key is lent, so that a selector which points into the record copies nothing.
pub trait KeySelector<T>: Clone + Send + Sync + 'static {
    /// What the records are keyed by; its encoding is the key.
    type Key: Serialize + ?Sized;

    /// Calls `use_key` with the record's key.
    fn with_key<R>(&self, record: &T, use_key: impl FnOnce(&Self::Key) -> R) -> R;
}

/// Keys records by themselves.
#[derive(Clone)]
pub struct ByItself;

impl<T: Serialize> KeySelector<T> for ByItself {
    type Key = T;

    fn with_key<R>(&self, record: &T, use_key: impl FnOnce(&T) -> R) -> R {
        use_key(record)
    }
}

/// To the subtask that owns the record's key group.
pub struct HashExchange<T, S> {
    selector: S,
    record: PhantomData<fn() -> T>,
}

impl<T: Record, S: KeySelector<T>> HashExchange<T, S> {
    /// The exchange of an edge whose records have the keys that `selector` finds.
    pub fn new(selector: S) -> Self {
        Self { selector, record: PhantomData }
    }
}

impl<T: Record, S: KeySelector<T>> Exchange for HashExchange<T, S> {
    fn partitioner(&self, _subtask: u32, targets: u32, max_parallelism: u32) -> Box<dyn Partitioner> {
        let owner = |group| subtask_of_key_group(max_parallelism, targets, group as u16);
        Box::new(HashPartitioner {
            selector: self.selector.clone(),
            targets: targets as usize,
            max_parallelism,
            owners: (0..max_parallelism).map(owner).collect(),
            record: PhantomData::<fn() -> T>,
        })
    }

    fn encode(&self, batch: &Batch, buffer: Vec<u8>) -> Result<Vec<u8>> {
        wire::encode::<T>(batch, buffer)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Batch> {
        wire::decode::<T>(bytes).map(Batch::new)
    }

    fn schema(&self) -> Result<Schema> {
        Schema::of::<T>()
    }

    fn type_name(&self) -> String {
        format!("hash {} by {}", std::any::type_name::<T>(), std::any::type_name::<S::Key>())
    }
}

struct HashPartitioner<T, S> {
    selector: S,
    targets: usize,
    max_parallelism: u32,
    /// The target of each key group.
    owners: Vec<u32>,
    record: PhantomData<fn() -> T>,
}

impl<T: Record, S: KeySelector<T>> Partitioner for HashPartitioner<T, S> {
    fn partition(&mut self, batch: Batch, out: &mut Vec<(u32, Batch)>) -> Result<()> {
        let RecordBatch { records, origin, .. } = batch.into_typed::<T>()?;
        let mut keys = KeyColumn::with_capacity(records.len());
        for record in &records {
            self.selector.with_key(record, |key| keys.push(key))?;
        }
        if self.targets == 1 {
            out.push((0, Batch::new(RecordBatch { records, keys: Some(keys), origin })));
            return Ok(());
        }
        // An even share and a quarter: with evenly spread keys almost no vector has to grow.
        let share = records.len() / self.targets;
        let capacity = share + share / 4 + 1;
        let mut parts: Vec<Option<(Vec<T>, KeyColumn)>> = (0..self.targets).map(|_| None).collect();
        for (index, record) in records.into_iter().enumerate() {
            let hash = keys.hashes()[index];
            let target = self.owners[usize::from(hash.key_group(self.max_parallelism))] as usize;
            let empty = || (Vec::with_capacity(capacity), KeyColumn::with_capacity(capacity));
            let (part, part_keys) = parts[target].get_or_insert_with(empty);
            part.push(record);
            part_keys.push_encoded(hash, keys.key(index))?;
        }
        let filled = parts.into_iter().enumerate().filter_map(|(target, part)| Some((target as u32, part?)));
        out.extend(filled.map(|(target, (records, keys))| {
            (target, Batch::new(RecordBatch { records, keys: Some(keys), origin: origin.clone() }))
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::key::{KeyGroupRange, KeyHash};

    use super::*;

    fn partition(targets: u32, records: &[String]) -> Vec<(u32, RecordBatch<String>)> {
        let exchange = HashExchange::<String, _>::new(ByItself);
        let mut out = Vec::new();
        let batch = RecordBatch::new(records.to_vec(), Some("file@0..9".into()));
        exchange.partitioner(0, targets, 128).partition(Batch::new(batch), &mut out).unwrap();
        out.into_iter().map(|(target, batch)| (target, batch.into_typed().unwrap())).collect()
    }

    #[test]
    fn every_record_reaches_the_owner_of_its_key_group_in_order() {
        let records: Vec<_> = (0..1000).map(|i| format!("key-{}", i % 321)).collect();
        for targets in [1, 2, 3, 7, 128] {
            let parts = partition(targets, &records);
            let mut seen = 0;
            for (target, part) in &parts {
                let range = KeyGroupRange::of_subtask(128, targets, *target);
                let keys = part.keys.as_ref().unwrap();
                assert_eq!(keys.len(), part.records.len());
                assert_eq!(part.origin.as_deref(), Some("file@0..9"));
                for (index, record) in part.records.iter().enumerate() {
                    let encoded = millrace_core::codec::encode(record).unwrap();
                    assert_eq!(keys.key(index), encoded);
                    assert_eq!(keys.hashes()[index], KeyHash::of(&encoded));
                    assert!(range.contains(keys.hashes()[index].key_group(128)));
                }
                let expected = records.iter().filter(|r| part.records.contains(r));
                assert!(part.records.iter().eq(expected), "order is kept within a target");
                seen += part.records.len();
            }
            assert_eq!(seen, records.len());
        }
    }
}
