//! What the harness's own job does with a record: an effect that depends on all earlier ones of its key and on their
//! order, so that one that is lost, counted twice or out of place changes everything behind it.

use serde::{Deserialize, Serialize};

use super::checker::Outputs;

/// The state of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    count: u64,
    digest: u64,
}

impl Effect {
    /// Takes in a record; what it looks like from outside.
    pub fn apply(&mut self, record: &str) -> String {
        self.count += 1;
        // FNV-1a over all records so far.
        for byte in record.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{} {record} {:016x}", self.count, self.digest)
    }
}

/// Key and rest of a record that the feed wrote: `<key> <number>`.
pub fn key_of(record: &str) -> &str {
    record.split_once(' ').map_or(record, |(key, _)| key)
}

/// The effects of these records, which are in order for each key.
pub fn effects<'a>(records: impl IntoIterator<Item = &'a str>) -> Outputs {
    let mut states = std::collections::BTreeMap::<&str, Effect>::new();
    let mut outputs = Outputs::new();
    for record in records {
        let key = key_of(record);
        let effect = states.entry(key).or_default().apply(record);
        outputs.entry(key.to_owned()).or_default().push(effect);
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_a_difference_differs() {
        let all = |records: &[&str]| effects(records.iter().copied())["a"].clone();
        let right = all(&["a 1", "a 2", "a 3", "a 4"]);
        assert_eq!(right.len(), 4);
        for wrong in [&["a 1", "a 3", "a 4"][..], &["a 1", "a 3", "a 2", "a 4"], &["a 1", "a 2", "a 2", "a 3", "a 4"]] {
            assert_ne!(all(wrong).last(), right.last(), "{wrong:?}");
        }
    }
}
