//! A snapshot in the store whose bytes come while those that are here are decoded.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use millrace_core::{Error, Result};
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    CheckpointStorage,
    stored_file::{PART_BYTES, PARTS_IN_FLIGHT, StoredFile},
};
use crate::{StateHandle, snapshot::SnapshotBytes};

/// What was fetched, and how long somebody waited for it.
#[derive(Debug, Default)]
pub struct FetchMeter {
    bytes: AtomicU64,
    waited_us: AtomicU64,
}

impl FetchMeter {
    /// How many bytes came from the store.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How long they were waited for.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }
}

/// A snapshot in the store, to be read on a thread that may block. Its sections have checksums of their own, which its
/// reader checks: the file's as a whole is not asked for, so that what is not needed is not fetched.
pub struct FetchedState {
    file: StoredFile,
    runtime: Handle,
    meter: Arc<FetchMeter>,
    parts: RefCell<Parts>,
}

#[derive(Default)]
struct Parts {
    /// Those that were asked for and are still of use.
    known: BTreeMap<u64, Part>,
    /// Those that are read one after the other; before its start all were asked for.
    ahead: Range<u64>,
}

enum Part {
    Coming(JoinHandle<Result<Bytes>>),
    Here(Bytes),
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Self::Coming(task) = self {
            task.abort();
        }
    }
}

impl CheckpointStorage {
    /// Begins to fetch a snapshot that lies in a file; `None` for any other.
    pub fn fetch_state(
        &self,
        handle: &StateHandle,
        runtime: &Handle,
        meter: &Arc<FetchMeter>,
    ) -> Result<Option<FetchedState>> {
        let StateHandle::File { directory, name, size, .. } = handle else { return Ok(None) };
        let file = self.stored_file(directory, name, *size)?;
        let (runtime, meter) = (runtime.clone(), Arc::clone(meter));
        let state = FetchedState { file, runtime, meter, parts: RefCell::default() };
        {
            // Its frame lies at both ends.
            let mut parts = state.parts.borrow_mut();
            state.ask(&mut parts, state.file.parts() - 1);
            state.ask(&mut parts, 0);
        }
        Ok(Some(state))
    }
}

impl FetchedState {
    fn ask(&self, parts: &mut Parts, part: u64) {
        let coming = || Part::Coming(self.runtime.spawn(self.file.clone().part(part)));
        parts.known.entry(part).or_insert_with(coming);
    }

    /// Asks for what is read next, as far as there may be more under way.
    fn ask_ahead(&self, parts: &mut Parts) {
        let coming = |part: &&Part| matches!(part, Part::Coming(_));
        let mut under_way = parts.known.values().filter(coming).count();
        while under_way < PARTS_IN_FLIGHT && !parts.ahead.is_empty() {
            let part = parts.ahead.start;
            parts.ahead.start += 1;
            under_way += usize::from(!parts.known.contains_key(&part));
            self.ask(parts, part);
        }
    }

    fn part(&self, parts: &mut Parts, part: u64) -> Result<Bytes> {
        self.ask(parts, part);
        self.ask_ahead(parts);
        let task = match parts.known.get_mut(&part) {
            Some(Part::Here(bytes)) => return Ok(bytes.clone()),
            Some(Part::Coming(task)) => task,
            None => return Err(Error::internal(format!("part {part} of {} is not there", self.file.shown))),
        };
        let started = Instant::now();
        let bytes = self.runtime.block_on(task).map_err(|error| {
            Error::external(format!("reading state file {} was interrupted: {error}", self.file.shown))
        })??;
        self.meter.waited_us.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.meter.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        parts.known.insert(part, Part::Here(bytes.clone()));
        self.ask_ahead(parts);
        Ok(bytes)
    }
}

fn parts_of(range: &Range<u64>) -> Range<u64> {
    range.start / PART_BYTES..range.end.div_ceil(PART_BYTES)
}

impl SnapshotBytes for FetchedState {
    fn size(&self) -> u64 {
        self.file.size
    }

    fn expect(&self, range: Range<u64>) {
        let mut parts = self.parts.borrow_mut();
        let expected = parts_of(&range);
        parts.known.retain(|part, _| expected.contains(part));
        parts.ahead = expected;
        self.ask_ahead(&mut parts);
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut parts = self.parts.borrow_mut();
        let needed = parts_of(&range);
        if !parts.ahead.is_empty() {
            // Behind what is read one after the other nothing is read again.
            parts.known.retain(|part, _| *part >= needed.start);
        }
        let within = |part: u64, bytes: &Bytes| {
            let at = part * PART_BYTES;
            let (from, to) = (range.start.max(at) - at, range.end.min(at + bytes.len() as u64) - at);
            bytes.slice(from as usize..to as usize)
        };
        match needed.end.saturating_sub(needed.start) {
            0 => Ok(Bytes::new()),
            1 => Ok(within(needed.start, &self.part(&mut parts, needed.start)?)),
            _ => {
                // What a file says of its sizes is not trusted: memory grows with what has come.
                let mut whole = BytesMut::new();
                for part in needed {
                    whole.extend_from_slice(&within(part, &self.part(&mut parts, part)?));
                }
                Ok(whole.freeze())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::{CheckpointId, JobId};

    use super::*;

    const SIZE: usize = (9 * PART_BYTES + 7) as usize;

    fn fetched() -> (tokio::runtime::Runtime, Bytes, FetchedState, Arc<FetchMeter>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let storage = CheckpointStorage::open("memory:", &Default::default()).unwrap();
        let bytes: Bytes = (0..SIZE).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let written = storage.write_state(JobId(1), CheckpointId(1), "a.state", bytes.clone());
        let handle = runtime.block_on(written).unwrap();
        let meter = Arc::<FetchMeter>::default();
        let state = storage.fetch_state(&handle, runtime.handle(), &meter).unwrap().unwrap();
        (runtime, bytes, state, meter)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (_runtime, bytes, state, _) = fetched();
        let size = SIZE as u64;
        for range in
            [0..1, size - 1..size, 0..size, 5..5, PART_BYTES - 1..2 * PART_BYTES + 1, PART_BYTES..2 * PART_BYTES]
        {
            let expected = bytes.slice(range.start as usize..range.end as usize);
            assert!(state.read(range.clone()).unwrap() == expected, "{range:?}");
        }
        state.expect(PART_BYTES / 2..size);
        for start in (PART_BYTES / 2..size).step_by(PART_BYTES as usize / 3) {
            let range = start..(start + PART_BYTES / 3).min(size);
            assert!(state.read(range.clone()).unwrap() == bytes.slice(range.start as usize..range.end as usize));
        }
    }

    #[test]
    fn only_what_is_needed_is_fetched() {
        let (_runtime, _, state, meter) = fetched();
        state.read(SIZE as u64 - 4..SIZE as u64).unwrap();
        state.expect(3 * PART_BYTES..5 * PART_BYTES);
        state.read(3 * PART_BYTES..5 * PART_BYTES).unwrap();
        assert_eq!(meter.bytes(), 7 + 2 * PART_BYTES);
        let parts = state.parts.borrow();
        assert_eq!(parts.known.keys().copied().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn memory_holds_few_parts() {
        let (_runtime, _, state, _) = fetched();
        state.expect(0..SIZE as u64);
        for part in 0..9 {
            state.read(part * PART_BYTES..(part + 1) * PART_BYTES).unwrap();
            assert!(state.parts.borrow().known.len() <= PARTS_IN_FLIGHT + 2);
        }
    }
}
