//! A registered state: its data, on the heap or in a backend of bytes.

use std::{any::Any, cell::RefCell, ops::Range, rc::Rc};

use millrace_core::{
    Error, Result,
    key::{KeyColumn, KeyHash},
    schema::{Migration, Schema},
};

use super::{
    bound::Bound,
    bytes_access::BytesState,
    context::KeyContext,
    figures::{Accesses, StateFigures},
    layout::{Layout, Restored},
    lifetime::{Forever, Lifetime, Ttl},
    snapshot::{CheckEntry, FrozenHeapState, FrozenState},
};
use crate::{
    backend::StateKey,
    heap::{SweepPosition, Table},
    snapshot::{Entry, StateKind},
    ttl::StateTtlConfig,
};

/// A registered state.
pub(super) struct StateCell<L: Layout> {
    pub(super) name: String,
    pub(super) context: Rc<KeyContext>,
    pub(super) accesses: Accesses,
    pub(super) data: Data<L>,
}

/// Where a state's entries are.
pub(super) enum Data<L: Layout> {
    /// In a table.
    Heap(RefCell<Table<L::Stored<Forever>>>),
    /// In a table, each with its expiry.
    Expiring(ExpiringState<L>),
    /// In a backend of bytes.
    Bytes(BytesState),
}

/// A state on the heap whose entries expire.
pub(super) struct ExpiringState<L: Layout> {
    pub(super) ttl: Ttl,
    pub(super) table: RefCell<Table<L::Stored<Ttl>>>,
    position: RefCell<SweepPosition>,
}

impl<L: Layout> ExpiringState<L> {
    pub(super) fn new(ttl: Ttl, table: Table<L::Stored<Ttl>>) -> Self {
        Self { ttl, table: RefCell::new(table), position: RefCell::default() }
    }

    /// An access begins: it sees one time, and drops what has expired among the next few keys.
    pub(super) fn begin(&self, table: &mut Table<L::Stored<Ttl>>) {
        self.ttl.begin();
        let stale = |stored: &_| L::is_stale(&self.ttl, stored);
        table.sweep(&mut self.position.borrow_mut(), stale, |stored| L::shrink(&self.ttl, stored));
    }
}

/// The current key of a state on the heap.
pub(super) struct HeapAccess<'a, L: Layout, H: Lifetime> {
    pub(super) lifetime: &'a H,
    pub(super) table: &'a mut Table<L::Stored<H>>,
    pub(super) hash: KeyHash,
    pub(super) key: &'a [u8],
}

/// Works on the current key of a state: the same words compile to each way in which it may be held.
macro_rules! access {
    ($handle:expr, $access:ident => $work:expr) => {{
        let cell = $handle.cell()?;
        cell.accesses.of(|| {
            cell.context.with_key(&cell.name, |hash, key| match &cell.data {
                $crate::keyed::cell::Data::Heap(table) => {
                    let mut table = table.try_borrow_mut().map_err(|_| cell.in_use())?;
                    let $access = cell.heap(&$crate::keyed::lifetime::Forever, &mut table, hash, key);
                    $work
                }
                $crate::keyed::cell::Data::Expiring(state) => {
                    let mut table = state.table.try_borrow_mut().map_err(|_| cell.in_use())?;
                    state.begin(&mut table);
                    let $access = cell.heap(&state.ttl, &mut table, hash, key);
                    $work
                }
                $crate::keyed::cell::Data::Bytes(state) => {
                    let _busy = state.busy.try_borrow_mut().map_err(|_| cell.in_use())?;
                    let $access = cell.bytes(state, hash, key);
                    $work
                }
            })
        })
    }};
}
pub(super) use access;

impl<L: Layout> StateCell<L> {
    #[inline]
    pub(super) fn heap<'a, H: Lifetime>(
        &self,
        lifetime: &'a H,
        table: &'a mut Table<L::Stored<H>>,
        hash: KeyHash,
        key: &'a [u8],
    ) -> HeapAccess<'a, L, H> {
        HeapAccess { lifetime, table, hash, key }
    }

    #[cold]
    pub(super) fn in_use(&self) -> Error {
        Error::invalid(format!(
            "state {:?} is used inside its own modify: use the value that modify hands over",
            self.name
        ))
    }
}

/// A state as its store sees it.
pub(super) trait RegisteredState: Any {
    /// These records are next: asks for their keys' entries.
    fn prefetch(&self, keys: &KeyColumn, records: Range<usize>);

    /// The synchronous part of a snapshot of a heap state; `None` where a backend of bytes has the entries.
    fn freeze(&self) -> Result<Option<Box<dyn FrozenState>>>;

    /// The ways from the writer's types to today's; where there is none, why not.
    fn migrations(&self, written: &[Schema]) -> Result<Vec<Migration>, String>;

    /// Says that a key group has so many entries, which come next.
    fn expect(&self, _key_group: u16, _entries: u64) -> Result<()> {
        Ok(())
    }

    /// Takes in an entry of a snapshot that has not expired.
    fn absorb(&self, hash: KeyHash, key_group: u16, entry: &Entry<'_>, migrations: &[Migration]) -> Result<()>;

    /// The round-trip check of one entry.
    fn check(&self) -> CheckEntry;

    /// The time to live that it was registered with.
    fn ttl(&self) -> Option<StateTtlConfig>;

    /// What it has counted.
    fn figures(&self) -> StateFigures;
}

impl<L: Layout> RegisteredState for StateCell<L> {
    fn prefetch(&self, keys: &KeyColumn, records: Range<usize>) {
        match &self.data {
            Data::Heap(table) => {
                if let Ok(table) = table.try_borrow() {
                    table.prefetch(&keys.hashes()[records]);
                }
            }
            Data::Expiring(state) => {
                if let Ok(table) = state.table.try_borrow() {
                    table.prefetch(&keys.hashes()[records]);
                }
            }
            // The entries of a map are not known by the key alone.
            Data::Bytes(_) if L::KIND == StateKind::Map => {}
            Data::Bytes(state) => state.prefetch(keys, records),
        }
    }

    fn freeze(&self) -> Result<Option<Box<dyn FrozenState>>> {
        match &self.data {
            Data::Heap(table) => {
                let mut table = table.try_borrow_mut().map_err(|_| self.in_use())?;
                Ok(Some(Box::new(FrozenHeapState::<L, Forever>::new(table.freeze()))))
            }
            Data::Expiring(state) => {
                let mut table = state.table.try_borrow_mut().map_err(|_| self.in_use())?;
                Ok(Some(Box::new(FrozenHeapState::<L, Ttl>::new(table.freeze()))))
            }
            Data::Bytes(_) => Ok(None),
        }
    }

    fn migrations(&self, written: &[Schema]) -> Result<Vec<Migration>, String> {
        L::migrations(written)
    }

    fn expect(&self, key_group: u16, entries: u64) -> Result<()> {
        // Of a map's entries a table holds those of a key in one slot.
        let entries = if L::KIND == StateKind::Map { 0 } else { entries };
        match &self.data {
            Data::Heap(table) => table.try_borrow_mut().map_err(|_| self.in_use())?.reserve(key_group, entries),
            Data::Expiring(state) => {
                state.table.try_borrow_mut().map_err(|_| self.in_use())?.reserve(key_group, entries);
            }
            Data::Bytes(_) => {}
        }
        Ok(())
    }

    fn absorb(&self, hash: KeyHash, key_group: u16, entry: &Entry<'_>, migrations: &[Migration]) -> Result<()> {
        if entry.namespace.is_some() || entry.timer_domain.is_some() {
            return Err(Error::invalid(
                "it was written with namespaces or timers, which this version of Millrace doesn't know",
            ));
        }
        let restored = Restored { entry, migrations };
        match &self.data {
            Data::Heap(table) => {
                let mut table = table.try_borrow_mut().map_err(|_| self.in_use())?;
                L::absorb(&Forever, &mut table, hash, &restored)
            }
            Data::Expiring(state) => {
                let mut table = state.table.try_borrow_mut().map_err(|_| self.in_use())?;
                L::absorb(&state.ttl, &mut table, hash, &restored)
            }
            Data::Bytes(state) => {
                let at = StateKey { state: state.id, key_group, key: entry.key, sub_key: entry.sub_key };
                let (value, expiry) = L::recode(&restored, state.ttl.as_ref())?;
                state.backend.borrow_mut().put(at, &value, expiry)
            }
        }
    }

    fn check(&self) -> CheckEntry {
        L::check
    }

    fn ttl(&self) -> Option<StateTtlConfig> {
        match &self.data {
            Data::Heap(_) => None,
            Data::Expiring(state) => Some(state.ttl.config()),
            Data::Bytes(state) => state.ttl.as_ref().map(Ttl::config),
        }
    }

    fn figures(&self) -> StateFigures {
        self.accesses.figures(match &self.data {
            Data::Heap(table) => table.try_borrow().ok().map(|table| table.bytes()),
            Data::Expiring(state) => state.table.try_borrow().ok().map(|table| table.bytes()),
            Data::Bytes(_) => None,
        })
    }
}

/// A handle's way to its state.
pub(super) struct Handle<L: Layout>(Option<Bound<StateCell<L>>>);

impl<L: Layout> Clone for Handle<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Layout> Default for Handle<L> {
    fn default() -> Self {
        Self(None)
    }
}

impl<L: Layout> Handle<L> {
    pub(super) fn new(cell: Rc<StateCell<L>>) -> Self {
        Self(Some(Bound::new(cell)))
    }

    #[inline]
    pub(super) fn cell(&self) -> Result<&StateCell<L>> {
        match self.0.as_ref().and_then(Bound::get) {
            Some(cell) => Ok(cell),
            None => Err(self.unusable()),
        }
    }

    #[cold]
    fn unusable(&self) -> Error {
        let handle = L::type_name();
        Error::invalid(match self.0 {
            None => format!(
                "a {handle} was used before it was obtained: ask the runtime context for it in `open` and keep what it \
                 returns"
            ),
            Some(_) => format!(
                "a {handle} was used on another thread than its task's: state can only be used by the function that \
                 obtained it, where it is handed a record"
            ),
        })
    }
}
