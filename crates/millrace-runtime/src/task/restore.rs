//! Opening keyed state with what a checkpoint holds of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use millrace_core::{Error, Result};
use millrace_state::{
    KeyedBackendContext, KeyedStateHandle, KeyedStateStore, SharedState, StateBackend, StateHandle,
    backend::LocalFiles,
    storage::{FetchMeter, FetchedState},
};

use serde::{Deserialize, Serialize};

use super::handle::TaskSetup;

/// What a task measured while it got its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMetrics {
    /// How long it waited for bytes, from the store or the local disk.
    pub fetch: Duration,
    /// How many came from the store.
    pub fetched_bytes: u64,
    /// How many were in local copies.
    pub local_bytes: u64,
}

impl RestoreMetrics {
    /// Adds those of another task, which got its state at the same time.
    pub fn add(&mut self, other: &Self) {
        self.fetch = self.fetch.max(other.fetch);
        self.fetched_bytes += other.fetched_bytes;
        self.local_bytes += other.local_bytes;
    }

    /// Adds what was waited for while state was decoded.
    fn add_fetched(&mut self, meter: &FetchMeter) {
        self.fetch += meter.waited();
        self.fetched_bytes += meter.bytes();
    }

    /// Bytes that were waited for since `started`.
    fn waited(&mut self, started: Instant, fetched: u64, local: u64) {
        self.fetch += started.elapsed();
        self.fetched_bytes += fetched;
        self.local_bytes += local;
    }
}

/// Measures a task's restore.
#[derive(Default)]
pub(super) struct RestoreMeter {
    metrics: RestoreMetrics,
    /// What is fetched while state is decoded.
    decoding: Arc<FetchMeter>,
}

impl RestoreMeter {
    /// All that was measured.
    pub(super) fn finish(mut self) -> RestoreMetrics {
        self.metrics.add_fetched(&self.decoding);
        self.metrics
    }
}

/// Opens the keyed state of an operator and adds the snapshots whose key groups overlap its own.
pub(super) fn open_store(
    setup: &TaskSetup,
    context: KeyedBackendContext,
    snapshots: &[KeyedStateHandle],
    meter: &mut RestoreMeter,
) -> Result<KeyedStateStore> {
    if let Some((shared, snapshot)) = adoptable(setup, &context, snapshots) {
        let (bytes, files) = fetch(setup, &context, &*setup.backend, shared, &mut meter.metrics)?;
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
                let (bytes, files) = fetch(setup, &context, &*written_by, shared, &mut meter.metrics)?;
                store.restore_files(&origin(&snapshot.data), bytes, &*written_by, files)?;
            }
            data => match fetch_while_decoding(setup, data, meter)? {
                Some(fetched) => store.restore(&origin(data), fetched)?,
                None => store.restore(&origin(data), read(setup, data, &mut meter.metrics)?)?,
            },
        }
    }
    Ok(store)
}

/// Begins to fetch a snapshot from the store, unless it is here already.
fn fetch_while_decoding(setup: &TaskSetup, data: &StateHandle, meter: &RestoreMeter) -> Result<Option<FetchedState>> {
    let is_here = match (&setup.local, data) {
        (Some(local), StateHandle::File { directory, name, .. }) => local.has(directory, name),
        _ => false,
    };
    if is_here { Ok(None) } else { setup.storage.fetch_state(data, &setup.runtime, &meter.decoding) }
}

/// Reads a snapshot, from its local copy where there is one.
fn read(setup: &TaskSetup, data: &StateHandle, metrics: &mut RestoreMetrics) -> Result<Bytes> {
    let started = Instant::now();
    if let (Some(local), StateHandle::File { directory, name, size, crc32 }) = (&setup.local, data)
        && let Some(bytes) = local.read(directory, name, *size, *crc32)
    {
        metrics.waited(started, 0, *size);
        return Ok(bytes);
    }
    let bytes = setup.runtime.block_on(setup.storage.read_state(data))?;
    // What is inside the metadata was not waited for here.
    let fetched = if matches!(data, StateHandle::Inline(_)) { 0 } else { bytes.len() as u64 };
    metrics.waited(started, fetched, 0);
    Ok(bytes)
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
    metrics: &mut RestoreMetrics,
) -> Result<(Bytes, LocalFiles)> {
    let started = Instant::now();
    let (files, copies) = KeyedStateStore::place_for_files(written_by, context)?;
    let (snapshot, local) = setup.runtime.block_on(async {
        let local = setup.storage.fetch_shared(&shared.files, files.directory(), copies.as_ref()).await?;
        Ok::<_, Error>((setup.storage.read_state(&shared.snapshot.handle()).await?, local))
    })?;
    let all: u64 = shared.files.iter().map(|shared| shared.file.size).sum();
    metrics.waited(started, all.saturating_sub(local), local);
    Ok((snapshot, files))
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
