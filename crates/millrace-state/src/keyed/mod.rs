//! The keyed state of one subtask of one operator, and the handles through which functions use it.
//!
//! The store is told a batch's keys and which record is being processed; a handle then works on that record's key. On
//! the heap a handle goes straight to the typed value; over a [`BytesBackend`](crate::backend::BytesBackend) it encodes
//! and decodes.

mod bound;
mod cell;
mod context;
mod layout;
mod list;
mod map;
mod restore;
mod roundtrip;
mod snapshot;
mod value;

#[cfg(test)]
mod tests;

pub use list::ListState;
pub use map::MapState;
pub use snapshot::KeyedSnapshot;
pub use value::ValueState;

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    rc::Rc,
};

use millrace_core::{Error, Record, Result, key::KeyColumn};

use cell::{BytesState, Data, Handle, RegisteredState, SharedBackend, StateCell};
use context::KeyContext;
use layout::{Layout, ListLayout, MapLayout, ValueLayout};
use restore::RestoredSnapshots;
use snapshot::{FrozenEntries, StoreSnapshot};

use crate::{
    backend::{KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend},
    heap::Table,
    snapshot::{SnapshotBytes, SnapshotHeader, SnapshotReader, StateMeta, StateSizeLimit},
};

/// What can be kept in state: a [`Record`] that two threads may read at once, because a snapshot reads it while the task
/// goes on.
///
/// Implemented for every type that qualifies.
pub trait StateValue: Record + Sync {}
impl<T: Record + Sync> StateValue for T {}

/// So many keys' slots are asked for at once.
const PREFETCH: usize = 32;

/// The keyed state of one subtask of one operator. Clones share it; it lives on its task's thread.
#[derive(Clone)]
pub struct KeyedStateStore(Rc<Inner>);

struct Inner {
    context: KeyedBackendContext,
    limit: Option<StateSizeLimit>,
    keys: Rc<KeyContext>,
    backend: Option<SharedBackend>,
    states: RefCell<BTreeMap<String, Registered>>,
    /// The states in the order in which they were registered.
    prefetched: RefCell<Vec<Rc<dyn RegisteredState>>>,
    restored: RestoredSnapshots,
}

struct Registered {
    /// Its id is its number in a backend of bytes.
    meta: StateMeta,
    type_name: String,
    state: Rc<dyn RegisteredState>,
}

impl KeyedStateStore {
    /// Opens the state of a subtask in a backend. What a checkpoint holds is added by [`Self::restore`].
    pub fn open(backend: &dyn StateBackend, context: KeyedBackendContext) -> Result<Self> {
        let limit = match backend.snapshot_target() {
            SnapshotTarget::Files => None,
            SnapshotTarget::JobManager { max_state_size: bytes } => {
                Some(StateSizeLimit { bytes, operator: context.operator.clone(), subtask: context.subtask })
            }
        };
        let backend = match backend.open(&context)? {
            KeyedBackend::Heap => None,
            KeyedBackend::Bytes(bytes) => Some(Rc::new(RefCell::new(bytes))),
        };
        Ok(Self(Rc::new(Inner {
            context,
            limit,
            keys: Rc::new(KeyContext::new()),
            backend,
            states: RefCell::default(),
            prefetched: RefCell::default(),
            restored: RestoredSnapshots::default(),
        })))
    }

    /// Adds a snapshot whose key groups overlap this subtask's; before any state is obtained. `origin` is what messages
    /// call it: the name of its file. Entries are read when their state is obtained, those of other subtasks never.
    ///
    /// A state must then be obtained with the type that its writer had; another type is refused, showing both. (Types that
    /// change between a checkpoint and a restore are not supported yet.)
    pub fn restore(&self, origin: &str, snapshot: impl SnapshotBytes + 'static) -> Result<()> {
        if !self.0.states.borrow().is_empty() {
            return Err(Error::internal("state was restored after the first state had been obtained"));
        }
        let reader = SnapshotReader::open(snapshot).map_err(|error| error.context(origin))?;
        self.0.restored.add(&self.0.context, origin, reader)
    }

    /// Takes the keys of the batch that is about to be processed.
    pub fn begin_batch(&self, keys: KeyColumn) {
        self.0.keys.replace(keys);
    }

    /// Makes a record of the batch the current one.
    #[inline]
    pub fn select(&self, index: usize) {
        self.0.keys.select(index);
        if index.is_multiple_of(PREFETCH) {
            self.prefetch(index);
        }
    }

    /// Ends the batch and returns its keys.
    pub fn end_batch(&self) -> KeyColumn {
        self.0.keys.replace(KeyColumn::default())
    }

    /// The value state of this name. Keys without a value have `default`.
    pub fn value<T: StateValue>(&self, name: &str, default: T) -> Result<ValueState<T>> {
        Ok(ValueState::new(self.register::<ValueLayout<T>>(name)?, default))
    }

    /// The list state of this name.
    pub fn list<T: StateValue>(&self, name: &str) -> Result<ListState<T>> {
        Ok(ListState::new(self.register::<ListLayout<T>>(name)?))
    }

    /// The map state of this name.
    pub fn map<K: StateValue + Eq + Hash, V: StateValue>(&self, name: &str) -> Result<MapState<K, V>> {
        Ok(MapState::new(self.register::<MapLayout<K, V>>(name)?))
    }

    /// Whether any state was obtained.
    pub fn has_states(&self) -> bool {
        !self.0.states.borrow().is_empty()
    }

    /// The names of restored states that nothing has obtained.
    pub fn unclaimed(&self) -> BTreeSet<String> {
        self.0.restored.unclaimed()
    }

    /// The synchronous part of a snapshot: milliseconds, whatever the state's size. Restored states that nothing has
    /// obtained by now are dropped.
    pub fn snapshot(&self) -> Result<Box<dyn KeyedSnapshot>> {
        let inner = &*self.0;
        inner.restored.forget();
        let registered = inner.states.borrow();
        let mut metas = Vec::with_capacity(registered.len());
        let mut states = Vec::with_capacity(registered.len());
        // Numbered in the order of their names, so that the same state gives the same bytes.
        for (state, id) in registered.values().zip(0..) {
            metas.push(StateMeta { id, ..state.meta.clone() });
            states.push(match state.state.freeze()? {
                Some(frozen) => FrozenEntries::Heap(frozen),
                None => FrozenEntries::Bytes { backend_id: state.meta.id, check: state.state.check() },
            });
        }
        let KeyedBackendContext { uid, max_parallelism, range, .. } = inner.context.clone();
        let header = SnapshotHeader { uid, max_parallelism, range, states: metas };
        let bytes = inner.backend.as_ref().map(|backend| backend.borrow_mut().snapshot()).transpose()?;
        Ok(Box::new(StoreSnapshot { header, limit: inner.limit.clone(), states, bytes }))
    }

    fn prefetch(&self, start: usize) {
        self.0.keys.hashes(start, PREFETCH, |hashes| {
            for state in self.0.prefetched.borrow().iter() {
                state.prefetch(hashes);
            }
        });
    }

    fn register<L: Layout>(&self, name: &str) -> Result<Handle<L>> {
        let inner = &*self.0;
        let type_name = L::type_name();
        if let Some(registered) = inner.states.borrow().get(name) {
            let state = Rc::clone(&registered.state) as Rc<dyn Any>;
            return match state.downcast::<StateCell<L>>() {
                Ok(state) => Ok(Handle::new(state)),
                Err(_) => Err(Error::invalid(format!(
                    "state {name:?} of operator {:?} (uid {}) is a {} and can't be a {type_name} too: give one of them \
                     another name",
                    inner.context.operator, inner.context.uid, registered.type_name
                ))),
            };
        }
        let schemas = L::schemas().map_err(|error| error.context(format_args!("state {name:?}")))?;
        let id = u16::try_from(inner.states.borrow().len())
            .map_err(|_| Error::invalid(format!("operator {} has too many states", inner.context.uid)))?;
        let key_schema = inner.context.key_schema.clone();
        let meta = StateMeta { id, name: name.to_string(), kind: L::KIND, key_schema, schemas };
        let state = Rc::new(StateCell::<L>::new(name, Rc::clone(&inner.keys), self.data(id)));
        inner.restored.load(&inner.context, &meta, &type_name, &*state)?;
        inner.prefetched.borrow_mut().push(Rc::clone(&state) as _);
        let handle = Handle::new(Rc::clone(&state));
        inner.states.borrow_mut().insert(name.to_string(), Registered { meta, type_name, state });
        Ok(handle)
    }

    fn data<L: Layout>(&self, id: u16) -> Data<L> {
        let KeyedBackendContext { max_parallelism, range, .. } = self.0.context;
        match &self.0.backend {
            None => Data::Heap(RefCell::new(Table::new(max_parallelism, range))),
            Some(backend) => {
                Data::Bytes(BytesState { id, max_parallelism, backend: Rc::clone(backend), busy: RefCell::new(()) })
            }
        }
    }
}
