//! A run: entries that go to a database together, in the order of their keys.

/// Entries with their values, or that they have none any more.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first bytes of the key, which decide most comparisons without a look at it.
    head: u128,
    start: usize,
    key: u32,
    value: Option<u32>,
}

impl Entry {
    fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.start + self.key as usize]
    }
}

impl Run {
    /// An empty one with room for so many entries, whose keys and values are so many bytes together.
    pub(crate) fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(entries) }
    }

    /// Adds an entry; no key may be added twice.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let mut head = [0; 16];
        let length = key.len().min(head.len());
        head[..length].copy_from_slice(&key[..length]);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        // No entry reaches 4 GiB: who writes one is refused.
        self.entries.push(Entry {
            head: u128::from_be_bytes(head),
            start,
            key: key.len() as u32,
            value: value.map(|value| value.len() as u32),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Brings the entries into their order.
    pub(crate) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries.sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| a.key(bytes).cmp(b.key(bytes))));
    }

    /// The entries' keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries.iter().map(|entry| {
            let value = entry.value.map(|length| {
                let start = entry.start + entry.key as usize;
                &self.bytes[start..start + length as usize]
            });
            (entry.key(&self.bytes), value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_keys() {
        let long = |end: &[u8]| [b"sixteen bytes and".as_slice(), end].concat();
        let keys = [b"b".to_vec(), long(b"b"), b"".to_vec(), long(b""), b"a\0".to_vec(), long(b"a"), b"a".to_vec()];
        let mut run = Run::default();
        for (index, key) in keys.iter().enumerate() {
            run.push(key, (index % 2 == 0).then_some(key));
        }
        run.sort();
        let mut sorted = keys.to_vec();
        sorted.sort();
        assert!(run.iter().map(|(key, _)| key.to_vec()).eq(sorted));
        for (key, value) in run.iter() {
            let index = keys.iter().position(|other| other == key).unwrap();
            assert_eq!(value, (index % 2 == 0).then_some(key));
        }
    }
}
