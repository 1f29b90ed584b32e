//! A registered state: its data, on the heap or in a backend of bytes.

use std::{
    any::Any,
    cell::{RefCell, RefMut},
    rc::Rc,
};

use millrace_core::{Error, Result, key::KeyHash};

use super::{
    bound::Bound,
    context::KeyContext,
    layout::Layout,
    snapshot::{CheckEntry, FrozenHeapState, FrozenState},
};
use crate::{
    backend::{BytesBackend, StateKey},
    heap::Table,
};

/// The one backend of bytes of a store, shared by its states.
pub(super) type SharedBackend = Rc<RefCell<Box<dyn BytesBackend>>>;

/// A registered state.
pub(super) struct StateCell<L: Layout> {
    pub(super) name: String,
    context: Rc<KeyContext>,
    pub(super) data: Data<L>,
}

/// Where a state's entries are.
pub(super) enum Data<L: Layout> {
    Heap(RefCell<Table<L::Stored>>),
    Bytes(BytesState),
}

/// A state whose entries are in a backend of bytes.
pub(super) struct BytesState {
    pub(super) id: u16,
    pub(super) max_parallelism: u32,
    pub(super) backend: SharedBackend,
    /// Held while the state is in use, so that it behaves as a heap state does when it is used inside its own use.
    pub(super) busy: RefCell<()>,
}

impl<L: Layout> StateCell<L> {
    pub(super) fn new(name: &str, context: Rc<KeyContext>, data: Data<L>) -> Self {
        Self { name: name.to_string(), context, data }
    }

    /// Works on the current key: `heap` on the table, or `bytes` on the backend of bytes.
    #[inline]
    pub(super) fn access<R, I>(
        &self,
        input: I,
        heap: impl FnOnce(I, &mut Table<L::Stored>, KeyHash, &[u8]) -> Result<R>,
        bytes: impl FnOnce(I, BytesAccess<'_>) -> Result<R>,
    ) -> Result<R> {
        self.context.with_key(&self.name, |hash, key| match &self.data {
            Data::Heap(table) => {
                let mut table = table.try_borrow_mut().map_err(|_| self.in_use())?;
                heap(input, &mut table, hash, key)
            }
            Data::Bytes(state) => {
                let _busy = state.busy.try_borrow_mut().map_err(|_| self.in_use())?;
                let key_group = hash.key_group(state.max_parallelism);
                bytes(input, BytesAccess { state, key: StateKey { state: state.id, key_group, key, sub_key: None } })
            }
        })
    }

    #[cold]
    fn in_use(&self) -> Error {
        Error::invalid(format!(
            "state {:?} is used inside its own modify: use the value that modify hands over",
            self.name
        ))
    }
}

/// The current key of a state in a backend of bytes.
pub(super) struct BytesAccess<'a> {
    state: &'a BytesState,
    key: StateKey<'a>,
}

impl BytesAccess<'_> {
    fn backend(&self) -> Result<RefMut<'_, Box<dyn BytesBackend>>> {
        self.state.backend.try_borrow_mut().map_err(|_| Error::internal("a state backend was entered twice"))
    }

    fn at<'b>(&'b self, sub_key: Option<&'b [u8]>) -> StateKey<'b> {
        StateKey { sub_key, ..self.key }
    }

    pub(super) fn get(&self, sub_key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        self.backend()?.get(self.at(sub_key))
    }

    pub(super) fn put(&self, sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.backend()?.put(self.at(sub_key), value)
    }

    pub(super) fn delete(&self, sub_key: Option<&[u8]>) -> Result<()> {
        self.backend()?.delete(self.at(sub_key))
    }

    pub(super) fn scan(&self, mut visit: impl FnMut(Option<&[u8]>, &[u8]) -> Result<()>) -> Result<()> {
        self.backend()?.scan(self.key, &mut visit)
    }
}

/// A state as its store sees it.
pub(super) trait RegisteredState: Any {
    /// Asks for the slots of these keys.
    fn prefetch(&self, hashes: &[KeyHash]);

    /// The synchronous part of a snapshot of a heap state; `None` where a backend of bytes has the entries.
    fn freeze(&self) -> Result<Option<Box<dyn FrozenState>>>;

    /// Takes in an entry of a snapshot.
    fn absorb(&self, hash: KeyHash, key_group: u16, key: &[u8], sub_key: Option<&[u8]>, value: &[u8]) -> Result<()>;

    /// The round-trip check of one entry.
    fn check(&self) -> CheckEntry;
}

impl<L: Layout> RegisteredState for StateCell<L> {
    fn prefetch(&self, hashes: &[KeyHash]) {
        if let Data::Heap(table) = &self.data
            && let Ok(table) = table.try_borrow()
        {
            table.prefetch(hashes);
        }
    }

    fn freeze(&self) -> Result<Option<Box<dyn FrozenState>>> {
        match &self.data {
            Data::Heap(table) => {
                let mut table = table.try_borrow_mut().map_err(|_| self.in_use())?;
                Ok(Some(Box::new(FrozenHeapState::<L>::new(table.freeze()))))
            }
            Data::Bytes(_) => Ok(None),
        }
    }

    fn absorb(&self, hash: KeyHash, key_group: u16, key: &[u8], sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        match &self.data {
            Data::Heap(table) => {
                let mut table = table.try_borrow_mut().map_err(|_| self.in_use())?;
                L::absorb(&mut table, hash, key, sub_key, value)
            }
            Data::Bytes(state) => {
                let at = StateKey { state: state.id, key_group, key, sub_key };
                state.backend.borrow_mut().put(at, value)
            }
        }
    }

    fn check(&self) -> CheckEntry {
        L::check
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
