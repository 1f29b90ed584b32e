//! What travels through a mailbox, and what becomes of it.

use bytes::Bytes;
use millrace_core::{Batch, Error, checkpoint::CheckpointBarrier, ids::InputId};

use crate::{exchange::encoded_records, task::TaskCommand};

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

impl StreamElement {
    /// Whether it takes one of a channel's places.
    pub(super) fn counts(&self) -> bool {
        matches!(self, Self::Batch(_) | Self::Encoded(_))
    }

    pub(super) fn records(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.len(),
            Self::Encoded(bytes) => encoded_records(bytes),
            Self::Barrier(_) | Self::EndOfInput => 0,
        }
    }
}

/// What a task finds in its mailbox.
#[derive(Debug)]
pub enum GateEvent {
    /// A command.
    Control(TaskCommand),
    /// A barrier waits in a channel's queue and may overtake what waits before it.
    Announced {
        /// The channel's index.
        channel: usize,
        /// The barrier.
        barrier: CheckpointBarrier,
    },
    /// There may be room at a consumer again.
    Nudged,
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
    Taken {
        /// Whether there is room for another.
        room: bool,
    },
    /// The queue is full; here it is again.
    Full(StreamElement),
    /// The consumer takes nothing any more.
    Closed,
}

/// What became of an element that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue, or on its way there.
    Done {
        /// Whether there is room for another.
        room: bool,
    },
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
