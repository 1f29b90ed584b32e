//! Barrier alignment: when a task with several input channels takes its part of a checkpoint.
//!
//! A task must snapshot its state at a moment when, on every channel, exactly what precedes the barrier has been
//! processed. Exactly once, a channel that delivered its barrier therefore stays blocked until all others did
//! (Carbone et al., 2015). At least once, nothing is blocked: barriers are merely counted, and records that overtake
//! the last barrier are in the snapshot *and* are read again after a failure.
//!
//! The rules, in both modes:
//! - a barrier is stale, and dropped, when its checkpoint or a newer one was taken, subsumed or aborted here;
//! - a newer checkpoint subsumes an older one: exactly once as soon as its first barrier arrives (channels deliver
//!   barriers in order, so that the older one's missing barrier is not going to come), at least once when it is taken;
//! - a channel that has ended counts as aligned.
//!
//! The mailbox must perform the actions in their order: [`AlignerAction::Snapshot`] precedes the
//! [`AlignerAction::UnblockAll`] that lets the next records in.
//!
//! To see what goes wrong without alignment, give a job that is checked for exactly once an aligner in
//! [`CheckpointingMode::AtLeastOnce`]: that is the whole difference, and the simulation's mutation.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    ids::CheckpointId,
};

/// How many aborted checkpoints are remembered, and how many may be counted at once: a bound on memory, far above
/// what `max-concurrent` makes possible.
const TRACKED: usize = 128;

/// What a task tells its aligner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignerEvent {
    /// A channel delivered a barrier.
    Barrier {
        /// The channel.
        channel: usize,
        /// The barrier.
        barrier: CheckpointBarrier,
    },
    /// A channel will deliver nothing more.
    ChannelEnded(usize),
    /// The checkpoint will not complete.
    Aborted(CheckpointId),
}

/// What the task has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignerAction {
    /// Take nothing more from this channel.
    Block(usize),
    /// Take from all channels again.
    UnblockAll,
    /// Snapshot the state and send the barrier on, before anything else is processed.
    Snapshot(CheckpointBarrier),
    /// The alignment was given up: this task will not take part in the checkpoint.
    Abandon(CheckpointId),
}

/// Aligns the barriers of one task's input channels. Pure: the mailbox performs the actions.
#[derive(Clone, Debug)]
pub struct BarrierAligner {
    mode: CheckpointingMode,
    /// The channels that have ended.
    ended: Vec<bool>,
    /// The checkpoints of which some, not all, barriers have arrived. Exactly once, there is at most one.
    pending: BTreeMap<CheckpointId, Pending>,
    /// Checkpoints up to here are settled: their barriers are stale.
    settled: Option<CheckpointId>,
    /// Aborted checkpoints above `settled`.
    aborted: BTreeSet<CheckpointId>,
}

#[derive(Clone, Debug)]
struct Pending {
    barrier: CheckpointBarrier,
    /// The channels that have delivered the barrier.
    delivered: Vec<bool>,
    /// Whether any channel is blocked for it.
    blocks: bool,
}

impl BarrierAligner {
    /// An aligner of `channels` open channels.
    pub fn new(mode: CheckpointingMode, channels: usize) -> Self {
        Self { mode, ended: vec![false; channels], pending: BTreeMap::new(), settled: None, aborted: BTreeSet::new() }
    }

    /// Takes an event and returns what the task has to do.
    pub fn on(&mut self, event: AlignerEvent) -> Vec<AlignerAction> {
        let mut actions = Vec::new();
        match event {
            AlignerEvent::Barrier { channel, barrier } => self.on_barrier(channel, barrier, &mut actions),
            AlignerEvent::ChannelEnded(channel) => self.on_ended(channel, &mut actions),
            AlignerEvent::Aborted(id) => self.on_aborted(id, &mut actions),
        }
        actions
    }

    /// Whether the task must take nothing from this channel now.
    pub fn is_blocked(&self, channel: usize) -> bool {
        let blocks = |pending: &Pending| pending.blocks && pending.delivered.get(channel).copied().unwrap_or(false);
        self.pending.values().any(blocks)
    }

    /// The checkpoints that wait for barriers, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        self.pending.keys().copied()
    }

    fn on_barrier(&mut self, channel: usize, barrier: CheckpointBarrier, actions: &mut Vec<AlignerAction>) {
        let id = barrier.id;
        if self.ended.get(channel).copied().unwrap_or(true) {
            return;
        }
        if self.mode == CheckpointingMode::ExactlyOnce {
            match self.pending.last_key_value() {
                Some((&newer, _)) if newer > id => return,
                // Even if the newer one is stale: the older one's barrier will not come on this channel any more.
                Some((&older, _)) if older < id => self.settle(older, actions),
                _ => {}
            }
        }
        if self.is_stale(id) {
            return;
        }
        let channels = self.ended.len();
        let pending = self.pending.entry(id).or_insert_with(|| Pending {
            barrier,
            delivered: vec![false; channels],
            blocks: false,
        });
        pending.delivered[channel] = true;
        if self.is_aligned(id) {
            self.take(id, actions);
        } else {
            self.block(id, channel, actions);
            self.keep_bounds(actions);
        }
    }

    fn on_ended(&mut self, channel: usize, actions: &mut Vec<AlignerAction>) {
        let Some(ended) = self.ended.get_mut(channel) else { return };
        *ended = true;
        // Oldest first: all of them may have waited for this channel alone.
        let aligned: Vec<_> = self.pending().filter(|&id| self.is_aligned(id)).collect();
        for id in aligned {
            self.take(id, actions);
        }
    }

    fn on_aborted(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) {
        if self.is_stale(id) {
            return;
        }
        // Not `settle`: an older checkpoint may still be on its way.
        self.aborted.insert(id);
        self.give_up(id, actions);
        self.keep_bounds(actions);
    }

    fn is_stale(&self, id: CheckpointId) -> bool {
        self.settled.is_some_and(|settled| id <= settled) || self.aborted.contains(&id)
    }

    fn is_aligned(&self, id: CheckpointId) -> bool {
        let Some(pending) = self.pending.get(&id) else { return false };
        pending.delivered.iter().zip(&self.ended).all(|(delivered, ended)| *delivered || *ended)
    }

    fn block(&mut self, id: CheckpointId, channel: usize, actions: &mut Vec<AlignerAction>) {
        if self.mode != CheckpointingMode::ExactlyOnce {
            return;
        }
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.blocks = true;
            actions.push(AlignerAction::Block(channel));
        }
    }

    /// The checkpoint is aligned: older ones are subsumed, and it is taken.
    fn take(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) {
        let Some(taken) = self.pending.remove(&id) else { return };
        self.settle(id, actions);
        actions.push(AlignerAction::Snapshot(taken.barrier));
        if taken.blocks {
            actions.push(AlignerAction::UnblockAll);
        }
    }

    fn give_up(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) {
        let Some(lost) = self.pending.remove(&id) else { return };
        actions.push(AlignerAction::Abandon(id));
        if lost.blocks {
            actions.push(AlignerAction::UnblockAll);
        }
    }

    /// Gives up what is pending up to `id` and makes its barriers stale.
    fn settle(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) {
        let lost: Vec<_> = self.pending.range(..=id).map(|(&lost, _)| lost).collect();
        for lost in lost {
            self.give_up(lost, actions);
        }
        self.settled = self.settled.max(Some(id));
        self.aborted = self.aborted.split_off(&id.next());
    }

    fn keep_bounds(&mut self, actions: &mut Vec<AlignerAction>) {
        while self.pending.len() > TRACKED {
            let Some((&oldest, _)) = self.pending.first_key_value() else { return };
            self.settle(oldest, actions);
        }
        while self.aborted.len() > TRACKED {
            let Some(&oldest) = self.aborted.first() else { return };
            self.settle(oldest, actions);
        }
    }
}

#[cfg(test)]
mod tests;
