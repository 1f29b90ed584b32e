//! Taking state over from the snapshots of a checkpoint.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use millrace_core::{Error, Result, key::KeyHash, schema::Migration};

use super::{bytes_access::SharedBackend, cell::RegisteredState, files::RestoredFiles};
use crate::{
    backend::KeyedBackendContext,
    snapshot::{Entry, SnapshotReader, StateMeta},
};

/// The snapshots that a store was given and that not all states have been taken from.
#[derive(Default)]
pub(super) struct RestoredSnapshots {
    snapshots: RefCell<Vec<RestoredSnapshot>>,
    first_free_id: Cell<u16>,
}

struct RestoredSnapshot {
    /// What messages call it: the file's name.
    origin: String,
    reader: SnapshotReader,
    /// Where the rest of it is.
    files: RestoredFiles,
    unclaimed: BTreeSet<String>,
}

impl RestoredSnapshots {
    /// Adds a snapshot of this operator and job.
    pub(super) fn add(
        &self,
        context: &KeyedBackendContext,
        origin: &str,
        reader: SnapshotReader,
        files: RestoredFiles,
    ) -> Result<()> {
        let header = reader.header();
        if header.uid != context.uid {
            return Err(Error::invalid(format!(
                "{origin} holds the state of operator {}, not of {}: it is a foreign snapshot",
                header.uid, context.uid
            )));
        }
        if header.max_parallelism != context.max_parallelism {
            return Err(Error::invalid(format!(
                "{origin} was written with a maximum parallelism of {}, the job has {}: it is fixed for a job's life; \
                 set it to {}",
                header.max_parallelism, context.max_parallelism, header.max_parallelism
            )));
        }
        let mut snapshots = self.snapshots.borrow_mut();
        if let Some(other) = snapshots.iter().find(|other| other.reader.header().range.overlaps(header.range)) {
            let (range, origin2) = (other.reader.header().range, &other.origin);
            return Err(Error::invalid(format!(
                "{origin} (key groups {} to {}) and {origin2} (key groups {} to {}) hold the same key groups: they are \
                 not of one checkpoint",
                header.range.start, header.range.end, range.start, range.end
            )));
        }
        if !header.range.overlaps(context.range) {
            return Ok(());
        }
        let unclaimed = header.states.iter().map(|state| state.name.clone()).collect();
        if let (RestoredFiles::Adopted { .. }, Some(last)) = (&files, header.states.last()) {
            self.first_free_id.set(last.id.saturating_add(1));
        }
        snapshots.push(RestoredSnapshot { origin: origin.to_string(), reader, files, unclaimed });
        Ok(())
    }

    pub(super) fn unclaimed(&self) -> BTreeSet<String> {
        self.snapshots.borrow().iter().flat_map(|snapshot| snapshot.unclaimed.iter().cloned()).collect()
    }

    /// Forgets what nothing has claimed; takes it out of a backend that has it already.
    pub(super) fn forget(&self, backend: Option<&SharedBackend>) -> Result<()> {
        for snapshot in self.snapshots.borrow_mut().drain(..) {
            if let (RestoredFiles::Adopted { .. }, Some(backend)) = (&snapshot.files, backend) {
                let unclaimed = |state: &&StateMeta| snapshot.unclaimed.contains(&state.name);
                let mut states = snapshot.reader.header().states.iter().filter(unclaimed);
                states.try_for_each(|state| backend.borrow_mut().clear_state(state.id))?;
            }
        }
        Ok(())
    }

    /// The first id that no state has which the backend has already.
    pub(super) fn first_free_id(&self) -> u16 {
        self.first_free_id.get()
    }

    /// The id of a state in a backend that has its entries already, as the program needs them.
    pub(super) fn adopted_id(&self, wanted: &StateMeta, expires: bool) -> Option<u16> {
        self.snapshots.borrow().iter().find_map(|snapshot| {
            let RestoredFiles::Adopted { expiring, .. } = &snapshot.files else { return None };
            let written = snapshot.reader.header().states.iter().find(|state| state.name == wanted.name)?;
            let same = StateMeta { id: wanted.id, ..written.clone() } == *wanted;
            (same && expiring.contains(&written.id) == expires).then_some(written.id)
        })
    }

    /// Hands a state's entries in the subtask's key groups to the state.
    pub(super) fn load(
        &self,
        context: &KeyedBackendContext,
        meta: &StateMeta,
        type_name: &str,
        state: &dyn RegisteredState,
        backend: Option<&SharedBackend>,
        check_memory: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut snapshots = self.snapshots.borrow_mut();
        for snapshot in snapshots.iter_mut() {
            load_one(snapshot, context, meta, type_name, state, backend, check_memory)
                .map_err(|error| error.context(format_args!("restoring from {}", snapshot.origin)))?;
            snapshot.unclaimed.remove(&meta.name);
        }
        snapshots.retain(|snapshot| !snapshot.unclaimed.is_empty());
        Ok(())
    }
}

fn load_one(
    snapshot: &mut RestoredSnapshot,
    context: &KeyedBackendContext,
    meta: &StateMeta,
    type_name: &str,
    state: &dyn RegisteredState,
    backend: Option<&SharedBackend>,
    check_memory: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let RestoredSnapshot { reader, files, .. } = snapshot;
    let Some(written) = reader.header().states.iter().find(|state| state.name == meta.name) else {
        return Ok(());
    };
    let migrations = migrations(context, written, meta, type_name, state)?;
    let now = context.clock.now();
    let mut absorb = |key_group: u16, entry: &Entry<'_>| {
        if entry.expiry.is_some_and(|expiry| expiry <= now) {
            return Ok(());
        }
        let hash = KeyHash::of(entry.key);
        if hash.key_group(context.max_parallelism) != key_group {
            return Err(Error::external(format!(
                "the snapshot is damaged: a key of state {:?} does not belong to key group {key_group}, where it is",
                meta.name
            ))
            .fatal());
        }
        let absorbed = state.absorb(hash, key_group, entry, &migrations);
        absorbed.map_err(|error| error.context(format_args!("state {:?}", meta.name)))
    };
    reader.expect(written.id, context.range);
    for section in reader.sections(written.id, context.range) {
        // An entry has three bytes at least: what a file says of numbers is not trusted.
        state.expect(section.key_group, section.entries.min(section.length / 3))?;
        let mut entries = reader.read(section)?;
        while let Some(entry) = entries.next()? {
            absorb(section.key_group, &entry)?;
        }
        check_memory()?;
    }
    let groups = reader.header().range.iter().filter(|key_group| context.range.contains(*key_group));
    files.load(written.id, meta.id, groups, backend, &mut absorb)
}

/// The ways from the writer's types to the program's. The kind of state and the key must be the same.
fn migrations(
    context: &KeyedBackendContext,
    written: &StateMeta,
    wanted: &StateMeta,
    type_name: &str,
    state: &dyn RegisteredState,
) -> Result<Vec<Migration>> {
    let name = &wanted.name;
    if let (Some(old), Some(new)) = (&written.key_schema, &wanted.key_schema)
        && old != new
    {
        return Err(Error::invalid(format!(
            "state {name:?} of operator {:?} (uid {}) was keyed by {old} and the program keys by {new}: the key's type \
             can't change between a checkpoint and a restore from it",
            context.operator, context.uid
        )));
    }
    let migrations = match written.kind == wanted.kind {
        true => state.migrations(&written.schemas),
        false => Err("a state's kind can't change".to_string()),
    };
    migrations.map_err(|why| {
        Error::invalid(format!(
            "state {name:?} of operator {:?} (uid {}) was written as a {written} and the program has a {type_name}, a \
             {wanted}: {why}; use another state name or a type that can read the old one",
            context.operator, context.uid
        ))
    })
}
