//! The keyed state of one subtask of one operator, and the handles through which functions use it.
//!
//! The store is told a batch's keys and which record is being processed; a handle then works on that record's key. On
//! the heap a handle goes straight to the typed value; over a [`BytesBackend`](crate::backend::BytesBackend) it encodes
//! and decodes.

mod aggregating;
mod bound;
mod bytes_access;
mod cell;
mod context;
mod figures;
mod files;
mod layout;
mod lifetime;
mod list;
mod map;
mod reducing;
mod restore;
mod roundtrip;
mod snapshot;
mod timers;
mod value;

#[cfg(test)]
mod tests;

pub use aggregating::{AggregateFunction, AggregatingState};
pub use figures::StateFigures;
pub use files::RestoredFiles;
pub use list::ListState;
pub use map::MapState;
pub use reducing::{ReduceFunction, ReducingState};
pub use snapshot::{KeyedSnapshot, StateInFiles};
pub use timers::{DueTimers, TIMERS};
pub use value::ValueState;

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    rc::Rc,
    sync::Arc,
};

use millrace_core::{Error, Record, Result, codec, key::KeyColumn, schema::Schema};
use serde::de::DeserializeOwned;

use bytes_access::{BytesState, SharedBackend};
use cell::{Data, ExpiringState, Handle, RegisteredState, StateCell};
use context::KeyContext;
use figures::Accesses;
use layout::{Aggregating, Layout, ListLayout, MapLayout, OneLayout, Reducing, Value};
use lifetime::Ttl;
use restore::RestoredSnapshots;
use snapshot::{FrozenEntries, StateInBackend, StoreSnapshot};
use timers::TimerQueue;

use crate::{
    backend::{KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend},
    heap::Table,
    memory::{MemoryGuard, PROCESS_MEMORY_SETTING},
    snapshot::{SnapshotBytes, SnapshotHeader, SnapshotReader, StateKind, StateMeta, StateSizeLimit},
    storage::UploadedFiles,
    ttl::StateTtlConfig,
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
pub struct KeyedStateStore {
    inner: Rc<Inner>,
    /// The time to live of states that are obtained through this clone.
    ttl: Option<StateTtlConfig>,
}

struct Inner {
    context: KeyedBackendContext,
    limit: Option<StateSizeLimit>,
    keys: Rc<KeyContext>,
    backend: Option<SharedBackend>,
    states: RefCell<BTreeMap<String, Registered>>,
    /// The states in the order in which they were registered.
    prefetched: RefCell<Vec<Rc<dyn RegisteredState>>>,
    timers: RefCell<Option<Rc<TimerQueue>>>,
    restored: RestoredSnapshots,
    /// What of the backend's files is in the store.
    uploaded: UploadedFiles,
    /// Tells when the heap holds too much.
    memory: RefCell<Arc<MemoryGuard>>,
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
        let opened = backend.open(&context)?;
        Self::over(backend, opened, context)
    }

    fn over(backend: &dyn StateBackend, opened: KeyedBackend, context: KeyedBackendContext) -> Result<Self> {
        let files = backend.files();
        let limit = match backend.snapshot_target() {
            SnapshotTarget::Files => None,
            SnapshotTarget::JobManager { max_state_size: bytes } => {
                Some(StateSizeLimit { bytes, operator: context.operator.clone(), subtask: context.subtask })
            }
        };
        let uploaded = UploadedFiles::new(files.map_or(Ok(None), |files| files.copies())?);
        let backend = match opened {
            KeyedBackend::Heap => None,
            KeyedBackend::Bytes(mut bytes) => {
                bytes.know_uploaded(&uploaded);
                Some(Rc::new(RefCell::new(bytes)))
            }
        };
        let inner = Rc::new(Inner {
            context,
            limit,
            keys: Rc::new(KeyContext::new()),
            backend,
            states: RefCell::default(),
            prefetched: RefCell::default(),
            timers: RefCell::default(),
            restored: RestoredSnapshots::default(),
            uploaded,
            memory: RefCell::default(),
        });
        Ok(Self { inner, ttl: None })
    }

    /// Adds a snapshot whose key groups overlap this subtask's; before any state is obtained. `origin` is what messages
    /// call it: the name of its file. Entries are read when their state is obtained, those of other subtasks never.
    ///
    /// The type that a state is then obtained with may differ from its writer's as [`Migration`] says; any other is
    /// refused, showing both. What had expired by now is left behind.
    ///
    /// [`Migration`]: millrace_core::schema::Migration
    pub fn restore(&self, origin: &str, snapshot: impl SnapshotBytes + 'static) -> Result<()> {
        self.restore_with(origin, snapshot, RestoredFiles::None)
    }

    fn restore_with(&self, origin: &str, snapshot: impl SnapshotBytes + 'static, files: RestoredFiles) -> Result<()> {
        if !self.inner.states.borrow().is_empty() {
            return Err(Error::internal("state was restored after the first state had been obtained"));
        }
        let reader = SnapshotReader::open(snapshot).map_err(|error| error.context(origin))?;
        self.inner.restored.add(&self.inner.context, origin, reader, files)
    }

    /// Takes the keys of the batch that is about to be processed.
    pub fn begin_batch(&self, keys: KeyColumn) {
        self.inner.keys.replace(keys);
    }

    /// Makes a record of the batch the current one.
    #[inline]
    pub fn select(&self, index: usize) {
        self.inner.keys.select(index);
        if index.is_multiple_of(PREFETCH) {
            self.prefetch(index);
        }
    }

    /// Ends the batch and returns its keys.
    pub fn end_batch(&self) -> KeyColumn {
        self.inner.keys.replace(KeyColumn::default())
    }

    /// The same store: states that are obtained through it have this time to live.
    pub fn with_ttl(&self, ttl: StateTtlConfig) -> Self {
        Self { inner: Rc::clone(&self.inner), ttl: Some(ttl) }
    }

    /// The value state of this name. Keys without a value have `default`.
    pub fn value<T: StateValue>(&self, name: &str, default: T) -> Result<ValueState<T>> {
        Ok(ValueState::new(self.register::<OneLayout<T, Value>>(name)?, default))
    }

    /// The list state of this name.
    pub fn list<T: StateValue>(&self, name: &str) -> Result<ListState<T>> {
        Ok(ListState::new(self.register::<ListLayout<T>>(name)?))
    }

    /// The map state of this name.
    pub fn map<K: StateValue + Eq + Hash, V: StateValue>(&self, name: &str) -> Result<MapState<K, V>> {
        Ok(MapState::new(self.register::<MapLayout<K, V>>(name)?))
    }

    /// The reducing state of this name.
    pub fn reducing<T: StateValue>(&self, name: &str, function: ReduceFunction<T>) -> Result<ReducingState<T>> {
        Ok(ReducingState::new(self.register::<OneLayout<T, Reducing>>(name)?, function))
    }

    /// The aggregating state of this name.
    pub fn aggregating<A: AggregateFunction>(&self, name: &str, function: A) -> Result<AggregatingState<A>> {
        let handle = self.register::<OneLayout<A::Accumulator, Aggregating>>(name)?;
        Ok(AggregatingState::new(handle, function))
    }

    /// Lets the operator have timers.
    pub fn enable_timers(&self) -> Result<()> {
        let inner = &*self.inner;
        if self.has_timers() {
            return Ok(());
        }
        let KeyedBackendContext { max_parallelism, range, .. } = inner.context;
        let queue = Rc::new(TimerQueue::new(Rc::clone(&inner.keys), max_parallelism, range));
        let meta = self.meta(TIMERS, StateKind::Timer, Vec::new())?;
        self.add_state(meta, "set of timers".to_string(), Rc::clone(&queue) as _)?;
        *inner.timers.borrow_mut() = Some(queue);
        Ok(())
    }

    /// Whether the operator has timers.
    pub fn has_timers(&self) -> bool {
        self.inner.timers.borrow().is_some()
    }

    /// Registers a processing-time timer of the current key: at this time, in milliseconds since the epoch, or soon after
    /// it fires. A key has one timer at the same time, however often it is registered.
    pub fn register_timer(&self, time: u64) -> Result<()> {
        self.timers(|queue| queue.register(time))
    }

    /// Deletes a timer of the current key, where there is one.
    pub fn delete_timer(&self, time: u64) -> Result<()> {
        self.timers(|queue| queue.remove(time).map(drop))
    }

    fn timers<R>(&self, work: impl FnOnce(&TimerQueue) -> Result<R>) -> Result<R> {
        match &*self.inner.timers.borrow() {
            Some(queue) => work(queue),
            None => Err(Error::internal(format!("operator {} has no timers", self.inner.context.uid))),
        }
    }

    /// The current record's key.
    pub fn current_key<K: DeserializeOwned>(&self) -> Result<K> {
        self.inner.keys.with_key("the current key", |_, key| codec::decode(key))
    }

    /// When the next timer fires, in milliseconds since the epoch.
    #[inline]
    pub fn next_timer(&self) -> Option<u64> {
        self.inner.timers.borrow().as_ref()?.next()
    }

    /// The timers that are due `now`, earliest first and at most `limit`. They stay until [`Self::take_timer`].
    pub fn due_timers(&self, now: u64, limit: usize) -> Result<DueTimers> {
        match &*self.inner.timers.borrow() {
            Some(queue) => queue.due(now, limit),
            None => Ok(DueTimers::default()),
        }
    }

    /// Removes a timer of the current key, which fires now; false where it was deleted meanwhile.
    pub fn take_timer(&self, time: u64) -> Result<bool> {
        self.inner.timers.borrow().as_ref().map_or(Ok(false), |queue| queue.remove(time))
    }

    /// Whether any state was obtained.
    pub fn has_states(&self) -> bool {
        !self.inner.states.borrow().is_empty()
    }

    /// Who tells when the process takes too much memory; before any state is obtained.
    pub fn guard_memory(&self, memory: Arc<MemoryGuard>) {
        *self.inner.memory.borrow_mut() = memory;
    }

    /// Fails where the process takes more memory than it may and this state lies on the heap. The message names the
    /// operator and its states.
    pub fn check_memory(&self) -> Result<()> {
        let Some(resident) = self.inner.memory.borrow().exceeded().filter(|_| self.inner.backend.is_none()) else {
            return Ok(());
        };
        let states: Vec<_> = self.inner.states.borrow().keys().map(|name| format!("{name:?}")).collect();
        let states = if states.is_empty() { "being restored".to_string() } else { states.join(", ") };
        let (operator, uid) = (&self.inner.context.operator, &self.inner.context.uid);
        Err(Error::external(format!(
            "the process takes {} MiB of memory, more than it may, and operator {operator:?} (uid {uid}) holds state on \
             the heap: {states}. Give the process more memory ({PROCESS_MEMORY_SETTING}, or the limit \
             of its container), spread the job over more taskmanagers, or keep state on disk with state.backend: rocksdb",
            resident >> 20
        )))
    }

    /// What each state has counted, by its name.
    pub fn figures(&self) -> Vec<StateFigures> {
        let states = self.inner.states.borrow();
        let named = |(name, registered): (&String, &Registered)| StateFigures {
            state: name.clone(),
            ..registered.state.figures()
        };
        states.iter().map(named).collect()
    }

    /// How much the backend holds for all states together, in bytes; `None` on the heap, where each state
    /// [knows](Self::figures), and of a backend that does not say.
    pub fn backend_bytes(&self) -> Option<u64> {
        self.inner.backend.as_ref().and_then(|backend| backend.borrow().size())
    }

    /// The names of restored states that nothing has obtained.
    pub fn unclaimed(&self) -> BTreeSet<String> {
        self.inner.restored.unclaimed()
    }

    /// The synchronous part of a snapshot: milliseconds, whatever the state's size. Restored states that nothing has
    /// obtained by now are dropped.
    pub fn snapshot(&self) -> Result<Box<dyn KeyedSnapshot>> {
        let inner = &*self.inner;
        inner.restored.forget(inner.backend.as_ref())?;
        let registered = inner.states.borrow();
        let mut metas = Vec::with_capacity(registered.len());
        let mut states = Vec::with_capacity(registered.len());
        let mut in_backend = Vec::with_capacity(registered.len());
        // Numbered in the order of their names, so that the same state gives the same bytes.
        for (state, id) in registered.values().zip(0..) {
            metas.push(StateMeta { id, ..state.meta.clone() });
            in_backend.push(StateInBackend { id: state.meta.id, expires: state.state.ttl().is_some() });
            states.push(match state.state.freeze()? {
                Some(frozen) => FrozenEntries::Heap(frozen),
                None => FrozenEntries::Bytes { backend_id: state.meta.id, check: state.state.check() },
            });
        }
        let KeyedBackendContext { uid, max_parallelism, range, .. } = inner.context.clone();
        let header = SnapshotHeader { uid, max_parallelism, range, states: metas };
        let bytes = inner.backend.as_ref().map(|backend| backend.borrow_mut().snapshot()).transpose()?;
        let (limit, now) = (inner.limit.clone(), inner.context.clock.now());
        Ok(Box::new(StoreSnapshot { header, now, limit, states, bytes, in_backend, in_files: false }))
    }

    fn prefetch(&self, start: usize) {
        self.inner.keys.next(start, PREFETCH, |keys, records| {
            for state in self.inner.prefetched.borrow().iter() {
                state.prefetch(keys, records.clone());
            }
        });
    }

    fn register<L: Layout>(&self, name: &str) -> Result<Handle<L>> {
        let inner = &*self.inner;
        let type_name = L::type_name();
        if let Some(registered) = inner.states.borrow().get(name) {
            let state = Rc::clone(&registered.state) as Rc<dyn Any>;
            return match state.downcast::<StateCell<L>>() {
                Ok(state) if state.ttl() == self.ttl => Ok(Handle::new(state)),
                Ok(_) => Err(Error::invalid(format!(
                    "state {name:?} of operator {:?} (uid {}) was obtained with another time to live before",
                    inner.context.operator, inner.context.uid
                ))),
                Err(_) => Err(Error::invalid(format!(
                    "state {name:?} of operator {:?} (uid {}) is a {} and can't be a {type_name} too: give one of them \
                     another name",
                    inner.context.operator, inner.context.uid, registered.type_name
                ))),
            };
        }
        let schemas = L::schemas().map_err(|error| error.context(format_args!("state {name:?}")))?;
        let meta = self.meta(name, L::KIND, schemas)?;
        let state = Rc::new(StateCell::<L> {
            name: name.to_string(),
            context: Rc::clone(&inner.keys),
            accesses: Accesses::default(),
            data: self.data(meta.id)?,
        });
        self.add_state(meta, type_name, Rc::clone(&state) as _)?;
        inner.prefetched.borrow_mut().push(Rc::clone(&state) as _);
        Ok(Handle::new(state))
    }

    /// Fills a new state with what was restored for it and takes it in.
    fn add_state(&self, meta: StateMeta, type_name: String, state: Rc<dyn RegisteredState>) -> Result<()> {
        let inner = &*self.inner;
        let check = || self.check_memory();
        inner.restored.load(&inner.context, &meta, &type_name, &*state, inner.backend.as_ref(), &check)?;
        inner.states.borrow_mut().insert(meta.name.clone(), Registered { meta, type_name, state });
        Ok(())
    }

    /// A new state. Where the backend has it already, it keeps its id.
    fn meta(&self, name: &str, kind: StateKind, schemas: Vec<Schema>) -> Result<StateMeta> {
        let KeyedBackendContext { key_schema, uid, .. } = &self.inner.context;
        let mut meta = StateMeta { id: 0, name: name.to_string(), kind, key_schema: key_schema.clone(), schemas };
        meta.id = match self.inner.restored.adopted_id(&meta, self.ttl.is_some()) {
            Some(id) => id,
            None => usize::from(self.inner.restored.first_free_id())
                .checked_add(self.inner.states.borrow().len())
                .and_then(|id| u16::try_from(id).ok())
                .ok_or_else(|| Error::invalid(format!("operator {uid} has too many states")))?,
        };
        Ok(meta)
    }

    fn data<L: Layout>(&self, id: u16) -> Result<Data<L>> {
        let KeyedBackendContext { max_parallelism, range, ref clock, .. } = self.inner.context;
        self.ttl.as_ref().map_or(Ok(()), StateTtlConfig::check)?;
        let ttl = self.ttl.map(|config| Ttl::new(config, clock.clone()));
        Ok(match (&self.inner.backend, ttl) {
            (Some(backend), ttl) => {
                let (backend, busy) = (Rc::clone(backend), RefCell::new(()));
                Data::Bytes(BytesState { id, max_parallelism, backend, busy, ttl })
            }
            (None, None) => Data::Heap(RefCell::new(Table::new(max_parallelism, range))),
            (None, Some(ttl)) => Data::Expiring(ExpiringState::new(ttl, Table::new(max_parallelism, range))),
        })
    }
}
