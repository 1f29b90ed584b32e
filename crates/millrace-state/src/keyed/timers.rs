//! Processing-time timers: for each key the times at which its function wants to be called.
//!
//! They lie on the heap whatever the backend is: an ordered set for each key group, shared with a snapshot and copied on
//! the first write after it. In a snapshot they are a state of their own.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use millrace_core::{
    Error, Result,
    key::{KeyColumn, KeyGroupRange, KeyHash},
    schema::{Migration, Schema},
};

use super::{
    cell::RegisteredState,
    context::KeyContext,
    figures::StateFigures,
    roundtrip::Sampler,
    snapshot::{CheckEntry, FrozenState},
};
use crate::{
    snapshot::{Entry, SnapshotWriter},
    ttl::StateTtlConfig,
};

/// The name of the state that holds an operator's timers in a snapshot.
pub const TIMERS: &str = "millrace.timers";

/// The domain of a timer that waits for processing time.
const PROCESSING_TIME: u8 = 1;

/// When it fires, and the encoded key.
type Timer = (u64, Box<[u8]>);
type Timers = BTreeSet<Timer>;

/// The timers of one subtask of one operator.
pub(super) struct TimerQueue {
    context: Rc<KeyContext>,
    max_parallelism: u32,
    range: KeyGroupRange,
    groups: RefCell<Vec<Arc<Timers>>>,
    /// When the next one fires; not known after one was removed.
    next: Cell<Next>,
}

#[derive(Clone, Copy)]
enum Next {
    At(Option<u64>),
    Unknown,
}

/// Timers that are due: the time of each, and their keys in the same order.
#[derive(Debug, Default)]
pub struct DueTimers {
    /// When each was to fire.
    pub times: Vec<u64>,
    /// The key of each.
    pub keys: KeyColumn,
}

impl TimerQueue {
    pub(super) fn new(context: Rc<KeyContext>, max_parallelism: u32, range: KeyGroupRange) -> Self {
        let groups = RefCell::new(vec![Arc::default(); range.count()]);
        Self { context, max_parallelism, range, groups, next: Cell::new(Next::At(None)) }
    }

    /// Registers a timer of the current key. One that is there already is not registered again.
    pub(super) fn register(&self, time: u64) -> Result<()> {
        self.context.with_key(TIMERS, |hash, key| self.insert(hash, key, time))
    }

    fn insert(&self, hash: KeyHash, key: &[u8], time: u64) -> Result<()> {
        let timer: Timer = (time, key.into());
        let mut groups = self.groups.borrow_mut();
        let group = self.group(&mut groups, hash)?;
        // Looked for first: the set may be a snapshot's too, and would be copied.
        if !group.contains(&timer) {
            Arc::make_mut(group).insert(timer);
        }
        if let Next::At(next) = self.next.get() {
            self.next.set(Next::At(Some(next.map_or(time, |next| next.min(time)))));
        }
        Ok(())
    }

    /// Removes a timer of the current key; false where there is none.
    pub(super) fn remove(&self, time: u64) -> Result<bool> {
        self.context.with_key(TIMERS, |hash, key| {
            let timer: Timer = (time, key.into());
            let mut groups = self.groups.borrow_mut();
            let group = self.group(&mut groups, hash)?;
            let there = group.contains(&timer);
            if there {
                Arc::make_mut(group).remove(&timer);
                self.next.set(Next::Unknown);
            }
            Ok(there)
        })
    }

    /// When the next timer fires.
    pub(super) fn next(&self) -> Option<u64> {
        if let Next::At(next) = self.next.get() {
            return next;
        }
        let next = self.groups.borrow().iter().filter_map(|group| group.first()).map(|(time, _)| *time).min();
        self.next.set(Next::At(next));
        next
    }

    /// The timers that are due `now`, earliest first and at most `limit`. They stay until they are removed.
    pub(super) fn due(&self, now: u64, limit: usize) -> Result<DueTimers> {
        let mut due = DueTimers::default();
        if self.next().is_none_or(|next| next > now) {
            return Ok(due);
        }
        let groups = self.groups.borrow();
        let of_group = |group: &'_ Arc<Timers>| group.iter().take_while(|(time, _)| *time <= now).take(limit).count();
        let mut all: Vec<_> = groups.iter().flat_map(|group| group.iter().take(of_group(group))).collect();
        all.sort_unstable();
        for (time, key) in all.into_iter().take(limit) {
            due.times.push(*time);
            due.keys.push_encoded(KeyHash::of(key), key)?;
        }
        Ok(due)
    }

    fn group<'a>(&self, groups: &'a mut [Arc<Timers>], hash: KeyHash) -> Result<&'a mut Arc<Timers>> {
        let number = hash.key_group(self.max_parallelism);
        let index = usize::from(number).wrapping_sub(usize::from(self.range.start));
        groups.get_mut(index).ok_or_else(|| {
            let KeyGroupRange { start, end } = self.range;
            Error::internal(format!("a timer of key group {number} at a subtask that owns the groups {start} to {end}"))
        })
    }
}

impl RegisteredState for TimerQueue {
    fn prefetch(&self, _keys: &KeyColumn, _records: Range<usize>) {}

    fn freeze(&self) -> Result<Option<Box<dyn FrozenState>>> {
        let groups = self.groups.borrow();
        let there = self.range.iter().zip(groups.iter().cloned()).filter(|(_, group)| !group.is_empty());
        Ok(Some(Box::new(FrozenTimers(there.collect()))))
    }

    fn migrations(&self, _written: &[Schema]) -> Result<Vec<Migration>, String> {
        Ok(Vec::new())
    }

    fn absorb(&self, hash: KeyHash, _key_group: u16, entry: &Entry<'_>, _migrations: &[Migration]) -> Result<()> {
        let time = entry.sub_key.and_then(|time| time.try_into().ok()).map(u64::from_be_bytes);
        match (entry.namespace, entry.timer_domain, time) {
            (None, Some(PROCESSING_TIME), Some(time)) => self.insert(hash, entry.key, time),
            _ => Err(Error::invalid("it was written with timers that this version of Millrace doesn't know")),
        }
    }

    fn check(&self) -> CheckEntry {
        |_, _, _| Ok(())
    }

    fn ttl(&self) -> Option<StateTtlConfig> {
        None
    }

    fn figures(&self) -> StateFigures {
        StateFigures::default()
    }
}

/// The timers as they were.
struct FrozenTimers(Vec<(u16, Arc<Timers>)>);

impl FrozenState for FrozenTimers {
    fn write(self: Box<Self>, id: u16, _now: u64, _: &mut Sampler, writer: &mut SnapshotWriter<'_>) -> Result<()> {
        for (key_group, group) in self.0 {
            let mut timers: Vec<_> = group.iter().map(|(time, key)| (key, *time)).collect();
            timers.sort_unstable();
            for (key, time) in timers {
                let time = time.to_be_bytes();
                let entry = Entry::new(key, Some(&time), &[]);
                writer.entry(id, key_group, &Entry { timer_domain: Some(PROCESSING_TIME), ..entry })?;
            }
        }
        Ok(())
    }
}
