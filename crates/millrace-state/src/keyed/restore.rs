//! Taking state over from the snapshots of a checkpoint.

use std::{cell::RefCell, collections::BTreeSet};

use millrace_core::{Error, Result, key::KeyHash};

use super::cell::RegisteredState;
use crate::{
    backend::KeyedBackendContext,
    snapshot::{Entry, SnapshotReader, StateMeta},
};

/// The snapshots that a store was given and that not all states have been taken from.
#[derive(Default)]
pub(super) struct RestoredSnapshots(RefCell<Vec<RestoredSnapshot>>);

struct RestoredSnapshot {
    /// What messages call it: the file's name.
    origin: String,
    reader: SnapshotReader,
    unclaimed: BTreeSet<String>,
}

impl RestoredSnapshots {
    /// Adds a snapshot of this operator and job.
    pub(super) fn add(&self, context: &KeyedBackendContext, origin: &str, reader: SnapshotReader) -> Result<()> {
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
        let mut snapshots = self.0.borrow_mut();
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
        snapshots.push(RestoredSnapshot { origin: origin.to_string(), reader, unclaimed });
        Ok(())
    }

    pub(super) fn unclaimed(&self) -> BTreeSet<String> {
        self.0.borrow().iter().flat_map(|snapshot| snapshot.unclaimed.iter().cloned()).collect()
    }

    /// Forgets what nothing has claimed.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    /// Hands a state's entries in the subtask's key groups to the state.
    pub(super) fn load(
        &self,
        context: &KeyedBackendContext,
        meta: &StateMeta,
        type_name: &str,
        state: &dyn RegisteredState,
    ) -> Result<()> {
        let mut snapshots = self.0.borrow_mut();
        for snapshot in snapshots.iter_mut() {
            load_one(snapshot, context, meta, type_name, state)
                .map_err(|error| error.context(format_args!("restoring from {}", snapshot.origin)))?;
            snapshot.unclaimed.remove(&meta.name);
        }
        snapshots.retain(|snapshot| !snapshot.unclaimed.is_empty());
        Ok(())
    }
}

fn load_one(
    snapshot: &RestoredSnapshot,
    context: &KeyedBackendContext,
    meta: &StateMeta,
    type_name: &str,
    state: &dyn RegisteredState,
) -> Result<()> {
    let Some(written) = snapshot.reader.header().states.iter().find(|state| state.name == meta.name) else {
        return Ok(());
    };
    check_schemas(context, written, meta, type_name)?;
    for section in snapshot.reader.sections(written.id, context.range) {
        let mut entries = snapshot.reader.read(section)?;
        while let Some(entry) = entries.next()? {
            check_supported(&entry, &meta.name)?;
            let hash = KeyHash::of(entry.key);
            if hash.key_group(context.max_parallelism) != section.key_group {
                return Err(Error::external(format!(
                    "the snapshot is damaged: a key of state {:?} does not belong to key group {}, where it is",
                    meta.name, section.key_group
                ))
                .fatal());
            }
            state
                .absorb(hash, section.key_group, entry.key, entry.sub_key, entry.value)
                .map_err(|error| error.context(format_args!("state {:?}", meta.name)))?;
        }
    }
    Ok(())
}

/// The writer's types must be the reader's.
fn check_schemas(
    context: &KeyedBackendContext,
    written: &StateMeta,
    wanted: &StateMeta,
    type_name: &str,
) -> Result<()> {
    let name = &wanted.name;
    if written.kind != wanted.kind || written.schemas != wanted.schemas {
        return Err(Error::invalid(format!(
            "state {name:?} of operator {:?} (uid {}) was written as a {written} and the program has a {type_name}, a \
             {wanted}: a state's type can't change between a checkpoint and a restore from it; use another state name \
             or the old type",
            context.operator, context.uid
        )));
    }
    match (&written.key_schema, &wanted.key_schema) {
        (Some(old), Some(new)) if old != new => Err(Error::invalid(format!(
            "state {name:?} of operator {:?} (uid {}) was keyed by {old} and the program keys by {new}: the key's type \
             can't change between a checkpoint and a restore from it",
            context.operator, context.uid
        ))),
        _ => Ok(()),
    }
}

/// The format has room for what later versions keep.
fn check_supported(entry: &Entry<'_>, state: &str) -> Result<()> {
    if entry.namespace.is_some() || entry.timer_domain.is_some() || entry.expiry.is_some() {
        return Err(Error::invalid(format!(
            "state {state:?} was written with namespaces, timers or expiry, which this version of Millrace doesn't know"
        )));
    }
    Ok(())
}
