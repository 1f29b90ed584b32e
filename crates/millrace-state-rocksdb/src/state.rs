//! The keyed state of one subtask in a database.

use std::sync::{Arc, Weak};

use millrace_core::{Error, Result};
use millrace_state::backend::{BytesBackend, BytesSnapshot, StateKey, StoredValue, VisitEntry};
use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, ReadOptions, WriteBatch};

use crate::{
    cut::{Cut, CutSnapshot},
    database::Database,
    encoding::{
        decode_value, encode_key, encode_prefix, encode_value, key_group_end, key_group_start, stored_value,
        sub_key_behind, sub_key_bounds,
    },
    hot::HotEntries,
};

const READING: &str = "reading local state";

/// The state of one subtask: a database and its hot entries.
pub(crate) struct RocksDBBackend {
    database: Arc<Database>,
    hot: HotEntries,
    incremental: bool,
    /// The last cut, while a snapshot needs it.
    cut: Weak<Cut>,
    cuts: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl RocksDBBackend {
    pub(crate) fn new(database: Database, incremental: bool) -> Self {
        Self {
            database: Arc::new(database),
            hot: HotEntries::default(),
            incremental,
            cut: Weak::new(),
            cuts: 0,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Writes what is unwritten to the database; a cut that is still to be linked comes first.
    fn write_through(&mut self) -> Result<()> {
        if self.hot.has_unwritten() {
            self.await_cut();
            self.database.write(self.hot.unwritten())?;
            self.hot.all_written();
        }
        Ok(())
    }

    /// Links a cut that is not linked yet: nothing may be written before.
    fn await_cut(&mut self) {
        if let Some(cut) = self.cut.upgrade() {
            // Where that fails, the snapshot fails, which is its own thread's to tell.
            let _ = cut.link();
            self.cut = Weak::new();
        }
    }

    /// Keeps the hot entries within their bounds.
    fn make_room(&mut self) -> Result<()> {
        if self.hot.should_write() {
            self.write_through()?;
        }
        let share = self.database.memory().hot_share();
        if self.hot.size() > share {
            // Some more than it must be, so that it is not done for every entry.
            let enough = share - share / 8;
            self.hot.shrink_to(enough);
            if self.hot.size() > share {
                self.write_through()?;
                self.hot.shrink_to(enough);
            }
        }
        Ok(())
    }

    fn set(&mut self, at: StateKey<'_>, value: Option<(&[u8], Option<u64>)>) -> Result<()> {
        encode_key(at, &mut self.key);
        let value = value.map(|(value, expiry)| {
            encode_value(value, expiry, &mut self.value);
            self.value.as_slice()
        });
        self.hot.write(&self.key, value, at.sub_key.is_some());
        self.make_room()
    }
}

impl BytesBackend for RocksDBBackend {
    fn get(&mut self, at: StateKey<'_>) -> Result<Option<StoredValue>> {
        encode_key(at, &mut self.key);
        if let Some(known) = self.hot.get(&self.key) {
            return known.map(stored_value).transpose();
        }
        let read = self.database.db().get_pinned(&self.key);
        let stored = read.map_err(|error| self.database.error(READING, &error))?;
        self.hot.keep(&self.key, stored.as_deref());
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
        encode_prefix(whole, &mut self.key);
        let prefix = &self.key;
        let (start, end) = sub_key_bounds(prefix);
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        options.set_iterate_upper_bound(end.clone());
        let mut written = self.database.db().raw_iterator_opt(options);
        written.seek(&start);
        let mut unwritten = self.hot.unwritten_between(&start..&end).peekable();
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

    fn prefetch(&mut self, entries: &[StateKey<'_>]) -> Result<()> {
        let mut missing = Vec::new();
        for at in entries {
            encode_key(*at, &mut self.key);
            if self.hot.get(&self.key).is_none() {
                missing.push(self.key.clone());
            }
        }
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
            self.hot.keep(key, stored.as_deref());
        }
        self.make_room()
    }

    fn clear_state(&mut self, state: u16) -> Result<()> {
        self.write_through()?;
        self.await_cut();
        self.hot = HotEntries::default();
        let mut batch = WriteBatch::default();
        batch.delete_range(key_group_start(state, 0), key_group_end(state, u16::MAX));
        self.database.write(batch)
    }

    fn size(&self) -> Option<u64> {
        Some(self.database.size() + self.hot.size() as u64)
    }

    fn snapshot(&mut self) -> Result<Box<dyn BytesSnapshot>> {
        self.cuts += 1;
        let (unwritten, previous) = (self.hot.take_for_snapshot(), std::mem::take(&mut self.cut));
        let cut = Arc::new(Cut::new(Arc::clone(&self.database), self.cuts, unwritten, previous));
        self.cut = Arc::downgrade(&cut);
        Ok(Box::new(CutSnapshot::new(cut, self.incremental)))
    }
}
