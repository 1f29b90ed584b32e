//! The keyed state of one subtask in a database.

use std::sync::Arc;

use millrace_core::{Error, Result};
use millrace_state::{
    backend::{BytesBackend, BytesSnapshot, StateKey, StoredValue, VisitEntry},
    storage::UploadedFiles,
};
use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, ReadOptions};

use crate::{
    cut::{Cut, CutSnapshot, Purpose, finish_beside},
    database::Database,
    encoding::{
        decode_value, encode_key, encode_prefix, encode_value, key_group_end, key_group_start, stored_value,
        sub_key_behind, sub_key_bounds,
    },
    shared::SharedEntries,
};

const READING: &str = "reading local state";
/// The largest entry. RocksDB's own limit is 4 GiB for the value; keys may double when they are encoded.
const MOST_BYTES: usize = 1 << 30;
/// So many bytes are let go of at once: some hundreds of microseconds.
const EVICTED: usize = 256 << 10;

/// The state of one subtask: a database and its hot entries.
pub(crate) struct RocksDBBackend {
    database: Arc<Database>,
    hot: Arc<SharedEntries>,
    /// The last one.
    cut: Option<Arc<Cut>>,
    /// The last one that another thread was asked to finish; what failed there is told with the next.
    spill: Option<Arc<Cut>>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Those of the last entries that were prefetched.
    keys: Vec<Vec<u8>>,
}

impl RocksDBBackend {
    pub(crate) fn new(database: Database) -> Self {
        let hot = Arc::default();
        database.memory().count(&hot);
        Self {
            database: Arc::new(database),
            hot,
            cut: None,
            spill: None,
            key: Vec::new(),
            value: Vec::new(),
            keys: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Marks a cut.
    fn cut(&mut self, purpose: Purpose) -> Arc<Cut> {
        let before = self.cut.take().and_then(Cut::wanted);
        let cut = Arc::new(Cut::new(&self.database, &self.hot, purpose, before));
        self.cut = Some(Arc::clone(&cut));
        cut
    }

    /// Keeps the hot entries within their bounds.
    fn make_room(&mut self) -> Result<()> {
        let memory = self.database.memory();
        let (share, unwritten_share) = (memory.hot_share(), memory.unwritten_share());
        let hot = self.hot.lock();
        let (size, unwritten) = (hot.size(), hot.unwritten_bytes());
        drop(hot);
        if unwritten > unwritten_share {
            if let Some(before) = self.spill.take() {
                before.finish()?;
            }
            let cut = self.cut(Purpose::Room);
            finish_beside(Arc::clone(&cut))?;
            self.spill = Some(cut);
        }
        if size > share {
            // Some more than it must be, so that it is not done for every entry.
            let enough = share - (share / 8).min(EVICTED);
            self.hot.lock().shrink_to(enough);
            if self.hot.lock().size() > share {
                self.cut(Purpose::Room).finish()?;
                self.hot.lock().shrink_to(enough);
            }
        }
        Ok(())
    }

    fn set(&mut self, at: StateKey<'_>, value: Option<(&[u8], Option<u64>)>) -> Result<()> {
        let length = at.key.len() + at.sub_key.map_or(0, <[u8]>::len) + value.map_or(0, |(value, _)| value.len());
        if length > MOST_BYTES {
            return Err(Error::invalid(format!("an entry of {length} bytes is too large for RocksDB: it takes 1 GiB")));
        }
        encode_key(at, &mut self.key);
        let value = value.map(|(value, expiry)| {
            encode_value(value, expiry, &mut self.value);
            self.value.as_slice()
        });
        self.hot.lock().write(&self.key, value, at.sub_key.is_some());
        self.make_room()
    }

    /// Visits the entries of a key's parts.
    fn scan_parts(&mut self, whole: StateKey<'_>, visit: &mut VisitEntry<'_>) -> Result<()> {
        encode_prefix(whole, &mut self.key);
        let prefix = &self.key;
        let (start, end) = sub_key_bounds(prefix);
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        options.set_iterate_upper_bound(end.clone());
        // Locked first: no entry may leave the unwritten ones between the look at the database and the one at them.
        let hot = self.hot.lock();
        let mut written = self.database.db().raw_iterator_opt(options);
        written.seek(&start);
        let mut unwritten = hot.unwritten_between(&start..&end).peekable();
        let mut emit = |key: &[u8], stored: &[u8]| {
            let (value, expiry) = decode_value(stored)?;
            visit(Some(sub_key_behind(prefix, key)), value, expiry)
        };
        loop {
            let next = written.key();
            match unwritten.next_if(|(key, _)| next.is_none_or(|next| *key <= next)) {
                Some((key, value)) => {
                    if let Some(value) = value {
                        emit(key, value)?;
                    }
                    if next == Some(key) {
                        written.next();
                    }
                }
                None => match written.item() {
                    Some((key, value)) => {
                        emit(key, value)?;
                        written.next();
                    }
                    None => break,
                },
            }
        }
        written.status().map_err(|error| self.database.error(READING, &error))
    }
}

impl BytesBackend for RocksDBBackend {
    fn get(&mut self, at: StateKey<'_>) -> Result<Option<StoredValue>> {
        encode_key(at, &mut self.key);
        if let Some(known) = self.hot.lock().get(&self.key) {
            return known.map(stored_value).transpose();
        }
        let read = self.database.db().get_pinned(&self.key);
        let stored = read.map_err(|error| self.database.error(READING, &error))?;
        self.hot.lock().keep(&self.key, stored.as_deref());
        let value = stored.as_deref().map(stored_value).transpose()?;
        drop(stored);
        self.make_room()?;
        Ok(value)
    }

    fn put(&mut self, at: StateKey<'_>, value: &[u8], expiry: Option<u64>) -> Result<()> {
        self.set(at, Some((value, expiry)))
    }

    fn delete(&mut self, at: StateKey<'_>) -> Result<()> {
        self.set(at, None)
    }

    fn scan(&mut self, key: StateKey<'_>, visit: &mut VisitEntry<'_>) -> Result<()> {
        let whole = StateKey { sub_key: None, ..key };
        if let Some(stored) = self.get(whole)? {
            visit(None, &stored.value, stored.expiry)?;
        }
        self.scan_parts(whole, visit)
    }

    fn prefetch(&mut self, entries: &[StateKey<'_>]) -> Result<()> {
        self.keys.resize_with(self.keys.len().max(entries.len()), Vec::new);
        for (at, key) in entries.iter().zip(&mut self.keys) {
            encode_key(*at, key);
        }
        let keys = self.keys[..entries.len()].iter().map(Vec::as_slice);
        let mut hot = self.hot.lock();
        hot.touch(keys.clone());
        let mut missing: Vec<&[u8]> = keys.filter(|key| hot.get(key).is_none()).collect();
        drop(hot);
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        let db = self.database.db();
        let states = db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let states = states.ok_or_else(|| Error::internal("a database without its default column family"))?;
        for (key, read) in missing.iter().zip(db.batched_multi_get_cf(states, &missing, true)) {
            let stored = read.map_err(|error| self.database.error(READING, &error))?;
            self.hot.lock().keep(key, stored.as_deref());
        }
        self.make_room()
    }

    fn clear_state(&mut self, state: u16) -> Result<()> {
        self.cut(Purpose::Room).finish()?;
        self.hot.lock().clear();
        self.database.remove(&key_group_start(state, 0), &key_group_end(state, u16::MAX))
    }

    fn size(&self) -> Option<u64> {
        Some(self.database.size() + self.hot.lock().size() as u64)
    }

    fn know_uploaded(&mut self, files: &UploadedFiles) {
        if let Some(trail) = self.database.trail() {
            trail.know(files);
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn BytesSnapshot>> {
        Ok(Box::new(CutSnapshot::new(self.cut(Purpose::Snapshot))))
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::clock::Clock;

    use super::*;
    use crate::tests::{GROUPS, at, database};

    /// What goes from the hot entries to the files while a scan waits for a lock is found, wherever it looks first.
    #[test]
    fn a_scan_finds_everything_while_a_cut_is_finished() {
        let mut state = RocksDBBackend::new(database(Clock::system()));
        for number in 0u8..50 {
            state.put(StateKey { sub_key: Some(&[number]), ..at(b"k") }, b"value", None).unwrap();
        }
        let cut = state.cut(Purpose::Room);
        let (database, shared) = (Arc::clone(&state.database), Arc::clone(&state.hot));
        let mut hot = shared.lock();
        let scanning = std::thread::spawn(move || {
            let mut found = Vec::new();
            let mut visit = |sub_key: Option<&[u8]>, _: &[u8], _| {
                found.push(sub_key.unwrap()[0]);
                Ok(())
            };
            state.scan_parts(at(b"k"), &mut visit).map(|()| found)
        });
        while !shared.task_waits() {
            std::thread::yield_now();
        }
        let mut run = hot.copy_frozen(cut.era(), usize::MAX).unwrap().unwrap();
        run.sort();
        database.ingest(&run).unwrap();
        drop(hot.release(cut.era(), true));
        drop(hot);
        let found = scanning.join().unwrap().unwrap();
        assert!(found.iter().copied().eq(0..50), "{found:?}");
    }

    /// What a snapshot has of the keys of one byte.
    fn found(mut snapshot: CutSnapshot) -> Vec<u8> {
        let mut found = Vec::new();
        for key_group in 0..GROUPS as u16 {
            let mut visit = |at: StateKey<'_>, _: &[u8], _| {
                found.push(at.key[0]);
                Ok(())
            };
            snapshot.scan(1, key_group, &mut visit).unwrap();
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn a_cut_waits_for_none_before_it() {
        let mut state = RocksDBBackend::new(database(Clock::system()));
        let mut snapshots = Vec::new();
        for round in 0u8..5 {
            state.put(at(&[round]), b"value", None).unwrap();
            // Nobody has finished those before.
            snapshots.push(CutSnapshot::new(state.cut(Purpose::Snapshot)));
        }
        state.delete(at(&[0])).unwrap();
        // Nobody wants these, which others come after.
        drop(snapshots.remove(2));
        drop(snapshots.pop());
        assert_eq!(found(snapshots.remove(2)), [0, 1, 2, 3], "the last first");
        assert_eq!(found(snapshots.remove(0)), [0]);
        assert_eq!(found(snapshots.remove(0)), [0, 1]);
        let last = CutSnapshot::new(state.cut(Purpose::Snapshot));
        assert_eq!(found(last), [1, 2, 3, 4], "with what nobody has wanted until now");
    }
}
