//! A task's mailbox: a bounded queue for each input channel and one queue of commands, behind one mutex.
//!
//! Commands come first, channels in turn; blocked channels wait for their alignment. A producer of the same process
//! waits here while its queue is full; one of another process waits for credits, which are given back as its elements
//! are taken.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use millrace_core::{Batch, Error, checkpoint::CheckpointBarrier, ids::InputId};

use super::TaskCommand;

/// The identity of an input channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId {
    /// The input of the vertex that it belongs to.
    pub input: InputId,
    /// The edge, by its index in the job graph.
    pub edge: u32,
    /// The producing subtask.
    pub producer: u32,
}

/// What travels through a channel.
#[derive(Debug)]
pub enum StreamElement {
    /// Records of a producer in this process.
    Batch(Batch),
    /// Records of a producer in another process.
    Encoded(Bytes),
    /// Everything before belongs to the checkpoint.
    Barrier(CheckpointBarrier),
    /// No record follows. Barriers may.
    EndOfInput,
}

/// What a task finds in its mailbox.
#[derive(Debug)]
pub enum GateEvent {
    /// A command.
    Control(TaskCommand),
    /// The next element of a channel.
    Element {
        /// The channel's index.
        channel: usize,
        /// The element.
        element: StreamElement,
    },
    /// Nothing came in time.
    Timeout,
    /// The task was cancelled.
    Closed,
    /// A channel of the task, in or out, is lost.
    Failed(Error),
}

/// What became of an offered element.
#[derive(Debug)]
pub enum Offer {
    /// It is in the queue.
    Taken,
    /// The queue is full; here it is again.
    Full(StreamElement),
    /// The consumer takes nothing any more.
    Closed,
}

/// How waiting for room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The element is in the queue.
    Done,
    /// The consumer takes nothing any more.
    Closed,
    /// The producer was told to stop.
    Cancelled,
}

/// Takes back the credits of a channel whose producer is in another process.
pub trait CreditReturn: Send + Sync {
    /// As many elements were taken from the queue.
    fn give_back(&self, credits: u32);
}

struct Queued {
    element: StreamElement,
    /// Whether it takes one of the producer's places: not so the rest of a split batch.
    counts: bool,
}

#[derive(Default)]
struct Channel {
    queue: VecDeque<Queued>,
    /// How many places are taken.
    taken: usize,
    blocked: bool,
    /// The producer sleeps until there is room.
    producer_waits: bool,
    remote: Option<Arc<dyn CreditReturn>>,
    /// Places that were freed and are not given back yet.
    owed: u32,
}

enum End {
    Closed,
    Failed(Error),
}

#[derive(Default)]
struct State {
    control: VecDeque<TaskCommand>,
    channels: Vec<Channel>,
    /// The channel that is looked at first.
    cursor: usize,
    consumer_waits: bool,
    end: Option<End>,
}

/// Credits to be given back once the lock is free.
type Owed = Option<(Arc<dyn CreditReturn>, u32)>;

/// The mailbox of a task.
pub struct Gate {
    state: Mutex<State>,
    arrived: Condvar,
    /// One for each channel: each has one producer.
    room: Vec<Condvar>,
    channels: Vec<ChannelId>,
    capacity: usize,
}

impl Gate {
    /// A mailbox with these channels, each of which holds up to `capacity` elements.
    pub fn new(channels: Vec<ChannelId>, capacity: usize) -> Arc<Self> {
        let state = State { channels: channels.iter().map(|_| Channel::default()).collect(), ..State::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            room: channels.iter().map(|_| Condvar::new()).collect(),
            channels,
            capacity: capacity.max(1),
        })
    }

    /// The channels' identities, by index.
    pub fn channels(&self) -> &[ChannelId] {
        &self.channels
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
        if state.channels[channel].taken >= self.capacity {
            return Offer::Full(element);
        }
        self.enqueue(state, channel, element);
        Offer::Taken
    }

    /// Puts an element into a channel, waiting for room. Whoever sets `cancelled` must call [`Self::wake_producer`].
    pub fn push(&self, channel: usize, element: StreamElement, cancelled: &AtomicBool) -> Pushed {
        let mut state = self.lock();
        loop {
            if state.end.is_some() {
                return Pushed::Closed;
            }
            if cancelled.load(Ordering::SeqCst) {
                return Pushed::Cancelled;
            }
            let there = &mut state.channels[channel];
            if there.taken < self.capacity {
                there.producer_waits = false;
                self.enqueue(state, channel, element);
                return Pushed::Done;
            }
            there.producer_waits = true;
            state = self.room[channel].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, channel: usize, element: StreamElement) {
        let there = &mut state.channels[channel];
        there.queue.push_back(Queued { element, counts: true });
        there.taken += 1;
        let wake = state.consumer_waits && !state.channels[channel].blocked;
        if wake {
            state.consumer_waits = false;
        }
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Makes a producer that waits for room look whether it was cancelled.
    pub fn wake_producer(&self, channel: usize) {
        // The lock orders this after a producer's look at its flag.
        drop(self.lock());
        self.room[channel].notify_one();
    }

    /// Puts the rest of an element back to the front of its channel.
    pub fn put_back(&self, channel: usize, element: StreamElement) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.channels[channel].queue.push_front(Queued { element, counts: false });
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
        self.wait_for(wait, State::take_element)
    }

    /// The next event that is no element.
    pub fn next_command(&self, wait: Option<Duration>) -> GateEvent {
        self.wait_for(wait, |_, _| None)
    }

    fn wait_for(
        &self,
        wait: Option<Duration>,
        take: impl Fn(&mut State, usize) -> Option<(usize, StreamElement, bool, Owed)>,
    ) -> GateEvent {
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
            if let Some((channel, element, wake, owed)) = take(&mut state, self.capacity) {
                drop(state);
                if wake {
                    self.room[channel].notify_one();
                }
                if let Some((remote, credits)) = owed {
                    remote.give_back(credits);
                }
                return GateEvent::Element { channel, element };
            }
            state = match self.sleep(state, wait, &mut deadline) {
                Ok(state) => state,
                Err(event) => return event,
            };
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

    /// Binds a channel to its producer in another process; false where it is bound already.
    pub fn bind_remote(&self, channel: usize, remote: Arc<dyn CreditReturn>) -> bool {
        let mut state = self.lock();
        let slot = &mut state.channels[channel].remote;
        let free = slot.is_none();
        if free {
            *slot = Some(remote);
        }
        free
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
        state.channels.iter_mut().for_each(|channel| channel.remote = None);
        self.wake_consumer(state);
        self.room.iter().for_each(Condvar::notify_all);
        drop(queues);
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

impl State {
    /// The next element, its channel, whether the producer is to be woken, and credits to give back.
    fn take_element(&mut self, capacity: usize) -> Option<(usize, StreamElement, bool, Owed)> {
        let count = self.channels.len();
        let ready = |&index: &usize| !self.channels[index].blocked && !self.channels[index].queue.is_empty();
        let index = (self.cursor..count).chain(0..self.cursor.min(count)).find(ready)?;
        self.cursor = index + 1;
        let channel = &mut self.channels[index];
        let Queued { element, counts } = channel.queue.pop_front()?;
        if !counts {
            return Some((index, element, false, None));
        }
        channel.taken -= 1;
        // A producer is woken, and credits return, by the half queue: fewer wake-ups, and never none left under way.
        let wake = channel.producer_waits && channel.taken <= capacity / 2;
        if wake {
            channel.producer_waits = false;
        }
        let mut owed = None;
        if let Some(remote) = &channel.remote {
            channel.owed += 1;
            if channel.owed as usize >= capacity.div_ceil(2) {
                owed = Some((Arc::clone(remote), std::mem::take(&mut channel.owed)));
            }
        }
        Some((index, element, wake, owed))
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
