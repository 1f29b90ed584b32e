//! A task's mailbox: a bounded queue for each input channel and one queue of commands, behind one mutex.
//!
//! Commands come first, then news of barriers that may overtake, then elements: restored ones before all others,
//! channels in turn; blocked channels wait for their alignment. A producer of the same process waits here while its
//! queue is full; one of another process waits for credits, which are given back as its elements are taken. Barriers and
//! the end of the input take no place: they are sent however full a channel is.
//!
//! A producer does not wait within a call if it can help it. It asks after each call whether there is room, and while
//! there is none it listens to its own mailbox, which the consumer nudges when there is.

mod element;
mod queues;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millrace_core::{Batch, Error, ids::CheckpointId};

pub use self::element::{ChannelId, CreditReturn, GateEvent, Offer, Sent, StreamElement};
pub(super) use self::queues::Lifted;
use self::queues::{After, Channel, End, Queued, State};
use super::TaskCommand;

/// How many elements that take no place a channel may hold beside the others: far more than checkpoints under way.
const UNCOUNTED: usize = 1024;

/// How many batches may wait in a channel at any rate, and how many full ones where the task has not been measured: it may
/// be slow.
const UNTIL_MEASURED: usize = 4;

/// The mailbox of a task.
pub struct Gate {
    state: Mutex<State>,
    arrived: Condvar,
    /// One for each channel: each has one producer.
    room: Vec<Condvar>,
    channels: Vec<ChannelId>,
    /// The first channel of each edge.
    edges: Vec<ChannelId>,
    /// The edges in whose channels barriers may overtake.
    overtaking: Vec<u32>,
    capacity: usize,
}

impl Gate {
    /// A mailbox with these channels, each of which holds up to `capacity` elements. In channels of the edges in
    /// `overtaking` barriers are announced.
    pub fn new(channels: Vec<ChannelId>, capacity: usize, overtaking: Vec<u32>) -> Arc<Self> {
        let mut edges = channels.clone();
        edges.dedup_by_key(|channel| channel.edge);
        let state = State {
            channels: channels.iter().map(|_| Channel::default()).collect(),
            restored: edges.iter().map(|_| VecDeque::new()).collect(),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            room: channels.iter().map(|_| Condvar::new()).collect(),
            channels,
            edges,
            overtaking,
            capacity: capacity.max(1),
        })
    }

    /// The channels' identities, by index.
    pub fn channels(&self) -> &[ChannelId] {
        &self.channels
    }

    /// The edges of the channels, in the order in which what is restored of them is kept.
    pub fn edges(&self) -> impl Iterator<Item = u32> + '_ {
        self.edges.iter().map(|channel| channel.edge)
    }

    /// Where an element comes from: a channel, or what was restored of an edge (the indices beyond the channels).
    pub fn origin(&self, index: usize) -> ChannelId {
        self.channels.get(index).copied().unwrap_or_else(|| self.edges[index - self.channels.len()])
    }

    /// Puts what a checkpoint held in flight through an edge before everything else.
    pub fn restore(&self, edge: u32, batches: Vec<Batch>) {
        if let Some(index) = self.edges.iter().position(|channel| channel.edge == edge) {
            self.lock().restored[index].extend(batches.into_iter().map(StreamElement::Batch));
        }
    }

    /// How many elements a channel holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many of a channel's places are taken.
    pub fn queued(&self, channel: usize) -> usize {
        self.lock().channels[channel].taken
    }

    /// Whether a channel's producer sleeps until there is room.
    pub fn is_producer_waiting(&self, channel: usize) -> bool {
        self.lock().channels[channel].producer_waits
    }

    /// Puts an element into a channel if there is room.
    pub fn offer(&self, channel: usize, element: StreamElement) -> Offer {
        let state = self.lock();
        if state.end.is_some() {
            return Offer::Closed;
        }
        let there = &state.channels[channel];
        let full = match element.counts() {
            true => there.taken >= self.capacity,
            false => there.queue.len() >= self.capacity + UNCOUNTED,
        };
        if full {
            return Offer::Full(element);
        }
        Offer::Taken { room: self.enqueue(state, channel, element) }
    }

    /// Puts an element into a channel, waiting for room. Whoever sets `cancelled` must call [`Self::wake_producer`].
    pub fn push(&self, channel: usize, element: StreamElement, cancelled: &AtomicBool) -> Sent {
        let mut state = self.lock();
        loop {
            if state.end.is_some() {
                return Sent::Closed;
            }
            if cancelled.load(Ordering::SeqCst) {
                return Sent::Cancelled;
            }
            let there = &mut state.channels[channel];
            if there.taken < self.capacity || !element.counts() {
                there.producer_waits = false;
                return Sent::Done { room: self.enqueue(state, channel, element) };
            }
            there.producer_waits = true;
            state = self.room[channel].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether an element has room in a channel. Where it has none, `producer` is nudged once it has.
    pub fn has_room(&self, channel: usize, producer: &Arc<Gate>) -> bool {
        let mut state = self.lock();
        let (ended, limit) = (state.end.is_some(), state.limit);
        let there = &mut state.channels[channel];
        // Who sends to a task that has ended is told so.
        let room = there.has_room(self.capacity, limit) || ended;
        there.nudge = (!room).then(|| Arc::clone(producer));
        room
    }

    /// Lets no more than so many records wait in each channel, but always one batch.
    pub fn limit(&self, records: usize) {
        self.lock().limit = Some(records);
    }

    /// The limit before anything is known of the task and of what it gets, but that batches have up to so many records.
    pub fn limit_until_measured(&self, batch: usize) {
        let mut state = self.lock();
        state.limit = Some(batch.saturating_mul(UNTIL_MEASURED));
        state.channels.iter_mut().for_each(|channel| (channel.batch, channel.full) = (batch, batch));
    }

    /// How many records wait in all channels.
    pub fn records(&self) -> usize {
        self.lock().channels.iter().map(|channel| channel.records).sum()
    }

    /// Tells the task that there may be room at a consumer.
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        self.wake_consumer(state);
    }

    /// Puts an element into a queue; tells whether there is room for another.
    fn enqueue(&self, mut state: MutexGuard<'_, State>, channel: usize, element: StreamElement) -> bool {
        let counts = element.counts();
        let mut wake = state.wants_elements && !state.channels[channel].blocked;
        if let StreamElement::Barrier(barrier) = &element
            && self.overtaking.contains(&self.channels[channel].edge)
        {
            state.announced.push_back((channel, *barrier));
            wake = true;
        }
        let limit = state.limit;
        let there = &mut state.channels[channel];
        there.records += element.records();
        there.queue.push_back(Queued { element, counts });
        there.taken += usize::from(counts);
        let room = there.has_room(self.capacity, limit);
        if wake {
            self.wake_consumer(state);
        }
        room
    }

    /// Makes a producer that waits for room look whether it was cancelled.
    pub fn wake_producer(&self, channel: usize) {
        // The lock orders this after a producer's look at its flag.
        drop(self.lock());
        self.room[channel].notify_one();
    }

    /// Puts the rest of an element back to the front of where it comes from.
    pub fn put_back(&self, index: usize, element: StreamElement) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        match index.checked_sub(self.channels.len()) {
            None => {
                state.channels[index].records += element.records();
                state.channels[index].queue.push_front(Queued { element, counts: false });
            }
            Some(edge) => state.restored[edge].push_front(element),
        }
    }

    /// Takes out what waits before a checkpoint's barrier in the channels that have not delivered it, by edge, restored
    /// elements first. The task looks at it and [puts it back](Self::put_down).
    pub(super) fn lift(&self, checkpoint: CheckpointId) -> Lifted {
        let mut state = self.lock();
        let restored = state.restored.iter_mut().map(std::mem::take).collect();
        let before = |channel: &mut Channel| {
            let barrier = |queued: &Queued| matches!(&queued.element, StreamElement::Barrier(b) if b.id == checkpoint);
            let at = channel.queue.iter().position(barrier).unwrap_or(0);
            channel.queue.drain(..at).collect()
        };
        Lifted { restored, queued: state.channels.iter_mut().map(before).collect() }
    }

    /// Puts back what was lifted.
    pub(super) fn put_down(&self, lifted: Lifted) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.restored = lifted.restored;
        for (channel, mut before) in state.channels.iter_mut().zip(lifted.queued) {
            before.append(&mut channel.queue);
            channel.queue = before;
        }
    }

    /// Adds a command.
    pub fn command(&self, command: TaskCommand) {
        let mut state = self.lock();
        state.control.push_back(command);
        self.wake_consumer(state);
    }

    /// The next event. Waits up to `wait`, without it as long as it takes.
    pub fn next(&self, wait: Option<Duration>) -> GateEvent {
        self.wait_for(wait, |state| {
            (state.nudged, state.wants_elements) = (false, true);
            state.take_element(self.capacity)
        })
    }

    /// The next event that is no element.
    pub fn next_urgent(&self, wait: Option<Duration>) -> GateEvent {
        self.wait_for(wait, |state| {
            state.wants_elements = false;
            std::mem::take(&mut state.nudged).then(|| (GateEvent::Nudged, After::default()))
        })
    }

    fn wait_for(&self, wait: Option<Duration>, take: impl Fn(&mut State) -> Option<(GateEvent, After)>) -> GateEvent {
        let mut deadline = None;
        let mut state = self.lock();
        loop {
            match &state.end {
                Some(End::Closed) => return GateEvent::Closed,
                Some(End::Failed(error)) => return GateEvent::Failed(error.clone()),
                None => {}
            }
            if let Some(command) = state.control.pop_front() {
                return GateEvent::Control(command);
            }
            if let Some((channel, barrier)) = state.announced.pop_front() {
                return GateEvent::Announced { channel, barrier };
            }
            if let Some((event, after)) = take(&mut state) {
                drop(state);
                self.follow_up(&event, after);
                return event;
            }
            state = match self.sleep(state, wait, &mut deadline) {
                Ok(state) => state,
                Err(event) => return event,
            };
        }
    }

    fn follow_up(&self, event: &GateEvent, After { wake, nudge, owed }: After) {
        if let GateEvent::Element { channel, .. } = event
            && wake
        {
            self.room[*channel].notify_one();
        }
        if let Some(producer) = nudge {
            producer.nudge();
        }
        if let Some((remote, credits)) = owed {
            remote.give_back(credits);
        }
    }

    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        wait: Option<Duration>,
        deadline: &mut Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, GateEvent> {
        state.consumer_waits = true;
        let Some(wait) = wait else {
            return Ok(self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = match *deadline {
            None if wait.is_zero() => Duration::ZERO,
            None => {
                *deadline = Some(Instant::now() + wait);
                wait
            }
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        };
        if left.is_zero() {
            state.consumer_waits = false;
            return Err(GateEvent::Timeout);
        }
        Ok(self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Takes nothing more from a channel until [`Self::unblock_all`].
    pub fn block(&self, channel: usize) {
        self.lock().channels[channel].blocked = true;
    }

    /// Takes from all channels again.
    pub fn unblock_all(&self) {
        self.lock().channels.iter_mut().for_each(|channel| channel.blocked = false);
    }

    /// Binds a channel to its producer in another process and tells how many credits that has; `None` where the channel
    /// is bound already.
    pub fn bind_remote(&self, channel: usize, remote: Arc<dyn CreditReturn>) -> Option<u32> {
        let mut state = self.lock();
        let limit = state.limit;
        let there = &mut state.channels[channel];
        if there.remote.is_some() {
            return None;
        }
        there.remote = Some(remote);
        let credits = there.places(self.capacity, limit);
        there.owed = (self.capacity - credits) as u32;
        Some(credits as u32)
    }

    /// Ends the mailbox: the task was cancelled or has ended. Wakes everybody.
    pub fn close(&self) {
        self.end(End::Closed);
    }

    /// Ends the mailbox because one of the task's channels is lost.
    pub fn fail(&self, error: Error) {
        self.end(End::Failed(error));
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        // Only a cancellation may follow a failure: the first failure is the cause.
        if state.end.is_none() || matches!(end, End::Closed) {
            state.end = Some(end);
        }
        let queues: Vec<_> = state.channels.iter_mut().map(|channel| std::mem::take(&mut channel.queue)).collect();
        let restored: Vec<_> = state.restored.iter_mut().map(std::mem::take).collect();
        let nudges: Vec<_> = state.channels.iter_mut().filter_map(|channel| channel.nudge.take()).collect();
        state.channels.iter_mut().for_each(|channel| channel.remote = None);
        self.wake_consumer(state);
        self.room.iter().for_each(Condvar::notify_all);
        nudges.iter().for_each(|producer| producer.nudge());
        drop((queues, restored));
    }

    fn wake_consumer(&self, mut state: MutexGuard<'_, State>) {
        let wake = std::mem::take(&mut state.consumer_waits);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
