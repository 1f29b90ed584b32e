//! A state whose entries are in a backend of bytes.

use std::{
    cell::{RefCell, RefMut},
    marker::PhantomData,
    ops::Range,
    rc::Rc,
};

use millrace_core::{
    Error, Result,
    key::{KeyColumn, KeyHash},
};

use super::{
    cell::StateCell,
    layout::Layout,
    lifetime::{Fate, Lifetime, Ttl},
};
use crate::backend::{BytesBackend, StateKey, StoredValue};

/// The one backend of bytes of a store, shared by its states.
pub(super) type SharedBackend = Rc<RefCell<Box<dyn BytesBackend>>>;

/// A state in a backend of bytes.
pub(super) struct BytesState {
    pub(super) id: u16,
    pub(super) max_parallelism: u32,
    pub(super) backend: SharedBackend,
    /// Held while the state is in use, so that it behaves as a heap state does when it is used inside its own use.
    pub(super) busy: RefCell<()>,
    pub(super) ttl: Option<Ttl>,
}

impl BytesState {
    pub(super) fn prefetch(&self, keys: &KeyColumn, records: Range<usize>) {
        let entry = |index: usize| StateKey {
            state: self.id,
            key_group: keys.hashes()[index].key_group(self.max_parallelism),
            key: keys.key(index),
            sub_key: None,
        };
        let entries: Vec<_> = records.map(entry).collect();
        if let Ok(mut backend) = self.backend.try_borrow_mut() {
            // What fails here fails again where the entry is read, and is told there.
            let _ = backend.prefetch(&entries);
        }
    }
}

impl<L: Layout> StateCell<L> {
    pub(super) fn bytes<'a>(&self, state: &'a BytesState, hash: KeyHash, key: &'a [u8]) -> BytesAccess<'a, L> {
        if let Some(ttl) = &state.ttl {
            ttl.begin();
        }
        let key_group = hash.key_group(state.max_parallelism);
        BytesAccess { state, key: StateKey { state: state.id, key_group, key, sub_key: None }, layout: PhantomData }
    }
}

/// The current key of a state in a backend of bytes.
pub(super) struct BytesAccess<'a, L> {
    state: &'a BytesState,
    key: StateKey<'a>,
    layout: PhantomData<L>,
}

impl<L> BytesAccess<'_, L> {
    pub(super) fn ttl(&self) -> Option<&Ttl> {
        self.state.ttl.as_ref()
    }

    fn backend(&self) -> Result<RefMut<'_, Box<dyn BytesBackend>>> {
        self.state.backend.try_borrow_mut().map_err(|_| Error::internal("a state backend was entered twice"))
    }

    fn at<'b>(&'b self, sub_key: Option<&'b [u8]>) -> StateKey<'b> {
        StateKey { sub_key, ..self.key }
    }

    /// What is stored, whatever its expiry.
    pub(super) fn load(&self, sub_key: Option<&[u8]>) -> Result<Option<StoredValue>> {
        self.backend()?.get(self.at(sub_key))
    }

    pub(super) fn store(&self, sub_key: Option<&[u8]>, value: &[u8], expiry: Option<u64>) -> Result<()> {
        self.backend()?.put(self.at(sub_key), value, expiry)
    }

    pub(super) fn delete(&self, sub_key: Option<&[u8]>) -> Result<()> {
        self.backend()?.delete(self.at(sub_key))
    }

    /// Reads an entry by the rules of its time to live.
    pub(super) fn read(&self, sub_key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        match self.load(sub_key)? {
            Some(stored) if self.is_seen(sub_key, &stored.value, stored.expiry)? => Ok(Some(stored.value)),
            _ => Ok(None),
        }
    }

    /// Writes an entry, which then lives on from now.
    pub(super) fn write(&self, sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.store(sub_key, value, self.ttl().map(Ttl::new_expiry))
    }

    /// Hands every entry to `visit` by the rules of its time to live.
    pub(super) fn scan(&self, mut visit: impl FnMut(Option<&[u8]>, &[u8]) -> Result<()>) -> Result<()> {
        if self.ttl().is_none() {
            return self.backend()?.scan(self.key, &mut |sub_key, value, _| visit(sub_key, value));
        }
        // Renewing and dropping enters the backend again: not while it scans.
        let mut all = Vec::new();
        self.backend()?.scan(self.key, &mut |sub_key, value, expiry| {
            all.push((sub_key.map(<[u8]>::to_vec), value.to_vec(), expiry));
            Ok(())
        })?;
        for (sub_key, value, expiry) in all {
            if self.is_seen(sub_key.as_deref(), &value, expiry)? {
                visit(sub_key.as_deref(), &value)?;
            }
        }
        Ok(())
    }

    /// Renews or drops an entry that is read, as it deserves, and tells whether it is to be seen.
    fn is_seen(&self, sub_key: Option<&[u8]>, value: &[u8], expiry: Option<u64>) -> Result<bool> {
        let (Some(ttl), Some(expiry)) = (self.ttl(), expiry) else { return Ok(true) };
        match ttl.fate_of(expiry) {
            Fate::Live => Ok(true),
            Fate::Renewed => self.write(sub_key, value).map(|()| true),
            Fate::Expired => self.delete(sub_key).map(|()| ttl.shows_expired()),
        }
    }
}
