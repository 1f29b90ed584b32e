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
//! *Unaligned* (Flink's FLIP-76), a barrier may overtake what waits in its channel's queue. The gate announces a barrier
//! as soon as it is queued, and once the time for an aligned checkpoint is over, an announced barrier counts as one that
//! was delivered: the snapshot is taken at once, and what waits before the barrier becomes part of it
//! ([`AlignerAction::Overtake`]). Channels whose barriers are not announced stay aligned. Each task decides by itself:
//! what it hands on behind its snapshot follows its barrier in either case. An overtaken barrier is stale when the
//! task comes to it.
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
    /// A barrier waits in the queue of a channel in which it may overtake records. Told before it is delivered.
    Announced {
        /// The channel.
        channel: usize,
        /// The barrier.
        barrier: CheckpointBarrier,
    },
    /// The checkpoint has had its time to be aligned: its barriers may overtake records.
    TimedOut(CheckpointId),
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
    /// As [`Self::Snapshot`], with what waits before the barrier in each channel that has not delivered it.
    Overtake(CheckpointBarrier),
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
    /// The channels in which it waits and may overtake what waits before it.
    announced: Vec<bool>,
    /// Whether it may do so already.
    timed_out: bool,
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
            AlignerEvent::Announced { channel, barrier } => self.on_announced(channel, barrier, &mut actions),
            AlignerEvent::TimedOut(id) => self.on_timed_out(id, &mut actions),
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

    fn on_announced(&mut self, channel: usize, barrier: CheckpointBarrier, actions: &mut Vec<AlignerAction>) {
        // At least once, nothing is in a snapshot but state.
        if self.mode != CheckpointingMode::ExactlyOnce {
            return;
        }
        if let Some(pending) = self.pending_for(channel, barrier, actions) {
            pending.announced[channel] = true;
            self.take_if_ready(barrier.id, actions);
        }
    }

    fn on_timed_out(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.timed_out = true;
            self.take_if_ready(id, actions);
        }
    }

    fn on_barrier(&mut self, channel: usize, barrier: CheckpointBarrier, actions: &mut Vec<AlignerAction>) {
        let Some(pending) = self.pending_for(channel, barrier, actions) else { return };
        pending.delivered[channel] = true;
        if !self.take_if_ready(barrier.id, actions) {
            self.block(barrier.id, channel, actions);
            self.keep_bounds(actions);
        }
    }

    /// What is known of the barrier's checkpoint; `None` where the barrier is stale.
    fn pending_for(
        &mut self,
        channel: usize,
        barrier: CheckpointBarrier,
        actions: &mut Vec<AlignerAction>,
    ) -> Option<&mut Pending> {
        let id = barrier.id;
        if self.ended.get(channel).copied().unwrap_or(true) {
            return None;
        }
        if self.mode == CheckpointingMode::ExactlyOnce {
            match self.pending.last_key_value() {
                // Its barriers on the other channels were or will be subsumed: who waits for it is told at once.
                Some((&newer, _)) if newer > id => {
                    if !self.is_stale(id) {
                        self.settle(id, actions);
                        actions.push(AlignerAction::Abandon(id));
                    }
                    return None;
                }
                // Even if the newer one is stale: the older one's barrier will not come on this channel any more.
                Some((&older, _)) if older < id => self.settle(older, actions),
                _ => {}
            }
        }
        if self.is_stale(id) {
            return None;
        }
        let channels = self.ended.len();
        Some(self.pending.entry(id).or_insert_with(|| Pending {
            barrier,
            delivered: vec![false; channels],
            announced: vec![false; channels],
            timed_out: false,
            blocks: false,
        }))
    }

    fn on_ended(&mut self, channel: usize, actions: &mut Vec<AlignerAction>) {
        let Some(ended) = self.ended.get_mut(channel) else { return };
        *ended = true;
        // Oldest first: all of them may have waited for this channel alone.
        for id in self.pending().collect::<Vec<_>>() {
            self.take_if_ready(id, actions);
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

    fn block(&mut self, id: CheckpointId, channel: usize, actions: &mut Vec<AlignerAction>) {
        if self.mode != CheckpointingMode::ExactlyOnce {
            return;
        }
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.blocks = true;
            actions.push(AlignerAction::Block(channel));
        }
    }

    /// Takes the checkpoint once no barrier of it is waited for any more; older ones are subsumed.
    fn take_if_ready(&mut self, id: CheckpointId, actions: &mut Vec<AlignerAction>) -> bool {
        let Some(pending) = self.pending.get(&id) else { return false };
        let (mut ready, mut overtakes) = (true, false);
        for (channel, ended) in self.ended.iter().enumerate() {
            let waits = !ended && !pending.delivered[channel];
            let may_overtake = pending.timed_out && pending.announced[channel];
            ready &= !waits || may_overtake;
            overtakes |= waits && may_overtake;
        }
        if !ready {
            return false;
        }
        let Some(taken) = self.pending.remove(&id) else { return false };
        self.settle(id, actions);
        actions.push(match overtakes {
            true => AlignerAction::Overtake(taken.barrier),
            false => AlignerAction::Snapshot(taken.barrier),
        });
        if taken.blocks {
            actions.push(AlignerAction::UnblockAll);
        }
        true
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
