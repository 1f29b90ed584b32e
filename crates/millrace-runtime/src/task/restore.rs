//! Opening keyed state with what a checkpoint holds of it.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::Result;
use millrace_state::{
    KeyedBackendContext, KeyedStateHandle, KeyedStateStore, SharedState, StateBackend, StateHandle, backend::LocalFiles,
};

use super::handle::TaskSetup;

/// Opens the keyed state of an operator and adds the snapshots whose key groups overlap its own.
pub(super) fn open_store(
    setup: &TaskSetup,
    context: KeyedBackendContext,
    snapshots: &[KeyedStateHandle],
) -> Result<KeyedStateStore> {
    if let Some((shared, snapshot)) = adoptable(setup, &context, snapshots) {
        let (bytes, files) = fetch(setup, &context, &*setup.backend, shared)?;
        let expiring = shared.expiring.clone();
        let store = KeyedStateStore::adopt(&*setup.backend, context, &origin(&snapshot.data), bytes, files, expiring)?;
        // Another job's files are that job's to delete: this one refers to none of them.
        if shared.files.iter().all(|file| setup.storage.is_shared_by(setup.job, file)) {
            store.uploaded_files().start_from(&shared.files);
        }
        return Ok(store);
    }
    let store = KeyedStateStore::open(&*setup.backend, context.clone())?;
    store.guard_memory(Arc::clone(&setup.memory));
    for snapshot in snapshots {
        match &snapshot.data {
            StateHandle::Shared(shared) => {
                let written_by =
                    setup.backends.get(&shared.format).map_err(|error| error.context(origin(&snapshot.data)))?;
                let (bytes, files) = fetch(setup, &context, &*written_by, shared)?;
                store.restore_files(&origin(&snapshot.data), bytes, &*written_by, files)?;
            }
            data => {
                let bytes = setup.runtime.block_on(setup.storage.read_state(data))?;
                store.restore(&origin(&snapshot.data), bytes)?;
            }
        }
    }
    Ok(store)
}

/// The snapshot whose files the job's own backend can go on from: the only one there is, in all key groups.
fn adoptable<'a>(
    setup: &TaskSetup,
    context: &KeyedBackendContext,
    snapshots: &'a [KeyedStateHandle],
) -> Option<(&'a SharedState, &'a KeyedStateHandle)> {
    match snapshots {
        [snapshot @ KeyedStateHandle { range, data: StateHandle::Shared(shared) }] => {
            let covers = range.contains(context.range.start) && range.contains(context.range.end);
            (covers && shared.format == setup.backend.name()).then_some((shared, snapshot))
        }
        _ => None,
    }
}

/// Fetches a snapshot and its files.
fn fetch(
    setup: &TaskSetup,
    context: &KeyedBackendContext,
    written_by: &dyn StateBackend,
    shared: &SharedState,
) -> Result<(Bytes, LocalFiles)> {
    let (files, copies) = KeyedStateStore::place_for_files(written_by, context)?;
    let fetched = setup.runtime.block_on(async {
        setup.storage.fetch_shared(&shared.files, files.directory(), copies.as_deref()).await?;
        setup.storage.read_state(&shared.snapshot.handle()).await
    })?;
    Ok((fetched, files))
}

/// What messages call a snapshot.
pub(super) fn origin(data: &StateHandle) -> String {
    match data {
        StateHandle::Inline(_) => "a state inside the checkpoint's metadata".to_string(),
        StateHandle::File { directory, name, .. } => format!("state file {directory}/{name}"),
        StateHandle::Shared(shared) => match shared.files.first() {
            Some(first) => format!("state file {}/{} and others", first.file.directory, first.file.name),
            None => "a state in no files".to_string(),
        },
    }
}
