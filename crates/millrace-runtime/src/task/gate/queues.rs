//! A mailbox's queues: what lies behind its mutex.

use std::{collections::VecDeque, sync::Arc};

use millrace_core::{Error, checkpoint::CheckpointBarrier};

use super::{CreditReturn, Gate, GateEvent, StreamElement, UNTIL_MEASURED};
use crate::task::TaskCommand;

/// An element in a queue.
pub(in crate::task) struct Queued {
    pub(in crate::task) element: StreamElement,
    /// Whether it takes one of the producer's places: not so the rest of a split batch.
    pub(super) counts: bool,
}

#[derive(Default)]
pub(super) struct Channel {
    pub(super) queue: VecDeque<Queued>,
    /// How many places are taken.
    pub(super) taken: usize,
    /// How many records wait.
    pub(super) records: usize,
    /// How many records a batch of the last few had at most.
    pub(super) batch: usize,
    /// How many a batch may have; 0 where nobody has said.
    pub(super) full: usize,
    pub(super) blocked: bool,
    /// The producer sleeps until there is room.
    pub(super) producer_waits: bool,
    /// The mailbox of a producer that is to be nudged when there is room.
    pub(super) nudge: Option<Arc<Gate>>,
    pub(super) remote: Option<Arc<dyn CreditReturn>>,
    /// Places that were freed and are not given back yet.
    pub(super) owed: u32,
}

pub(super) enum End {
    Closed,
    Failed(Error),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) control: VecDeque<TaskCommand>,
    pub(super) announced: VecDeque<(usize, CheckpointBarrier)>,
    pub(super) nudged: bool,
    pub(super) channels: Vec<Channel>,
    /// How many records may wait in each channel.
    pub(super) limit: Option<usize>,
    /// What a checkpoint held in flight, for each edge. Nothing else is taken while there is any of it.
    pub(super) restored: Vec<VecDeque<StreamElement>>,
    /// The channel that is looked at first.
    pub(super) cursor: usize,
    pub(super) consumer_waits: bool,
    /// Whether it waits for elements too.
    pub(super) wants_elements: bool,
    pub(super) end: Option<End>,
}

/// What is to be done once the lock is free.
#[derive(Default)]
pub(super) struct After {
    /// Wake the producer that sleeps.
    pub(super) wake: bool,
    pub(super) nudge: Option<Arc<Gate>>,
    /// Credits to be given back.
    pub(super) owed: Option<(Arc<dyn CreditReturn>, u32)>,
}

/// What was taken out of the queues, to be put back.
pub(in crate::task) struct Lifted {
    /// For each edge, what was restored.
    pub(in crate::task) restored: Vec<VecDeque<StreamElement>>,
    /// For each channel.
    pub(in crate::task) queued: Vec<VecDeque<Queued>>,
}

impl State {
    /// The next element, and what has to follow.
    pub(super) fn take_element(&mut self, capacity: usize) -> Option<(GateEvent, After)> {
        let count = self.channels.len();
        let restored = self.restored.iter_mut().zip(count..).find_map(|(queue, at)| Some((at, queue.pop_front()?)));
        if let Some((channel, element)) = restored {
            return Some((GateEvent::Element { channel, element }, After::default()));
        }
        let ready = |&index: &usize| !self.channels[index].blocked && !self.channels[index].queue.is_empty();
        let index = (self.cursor..count).chain(0..self.cursor.min(count)).find(ready)?;
        self.cursor = index + 1;
        let limit = self.limit;
        let channel = &mut self.channels[index];
        let Queued { element, counts } = channel.queue.pop_front()?;
        channel.records -= element.records();
        if counts {
            channel.batch = element.records().max(channel.batch - channel.batch / 8);
        }
        let after = channel.follow(counts, capacity, limit);
        Some((GateEvent::Element { channel: index, element }, after))
    }
}

impl Channel {
    pub(super) fn has_room(&self, capacity: usize, limit: Option<usize>) -> bool {
        self.taken < capacity && !self.is_beyond(limit)
    }

    /// Whether more records wait than shall.
    fn is_beyond(&self, limit: Option<usize>) -> bool {
        limit.is_some_and(|limit| self.records >= limit.max(1))
    }

    /// What follows when an element was taken; `counts` says whether that freed a place.
    fn follow(&mut self, counts: bool, capacity: usize, limit: Option<usize>) -> After {
        self.taken -= usize::from(counts);
        let mut after = After::default();
        // A producer is woken, and credits return, by the half queue: fewer wake-ups, and never none left under way.
        if self.taken <= capacity / 2 {
            after.wake = std::mem::take(&mut self.producer_waits);
            if !self.is_beyond(limit) {
                after.nudge = self.nudge.take();
            }
        }
        if let Some(remote) = &self.remote {
            self.owed += u32::from(counts);
            let places = self.places(capacity, limit);
            let under_way = capacity.saturating_sub(self.owed as usize);
            let credits = places.saturating_sub(under_way);
            if credits >= places.div_ceil(2) {
                self.owed -= credits as u32;
                after.owed = Some((Arc::clone(remote), credits as u32));
            }
        }
        after
    }

    /// How many batches may be under way from a producer in another process, which can't see how many records wait
    /// here.
    pub(super) fn places(&self, capacity: usize, limit: Option<usize>) -> usize {
        let Some(limit) = limit else { return capacity };
        // The next batches may be full ones, whatever the last were.
        let most = (limit / self.full.max(1)).max(UNTIL_MEASURED).min(capacity);
        limit.div_ceil(self.batch.max(1)).clamp(1, most)
    }
}
