//! A task's part in checkpoints: what it does about barriers, and when it hears what became of them.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use millrace_core::{Error, Result, checkpoint::CheckpointBarrier, ids::CheckpointId};
use millrace_state::in_flight::EdgeInFlight;

use super::{
    SubtaskCheckpointMetrics, TaskEvent,
    in_flight::{RecordTypes, capture},
    snapshot::{BarrierTimes, TaskSnapshot, write_beside},
    work::Work,
};
use crate::{
    STEP,
    alignment::{AlignerAction, AlignerEvent},
};

impl Work<'_> {
    /// A barrier waits in a channel and may overtake what waits before it.
    pub(super) fn announced(&mut self, channel: usize, barrier: CheckpointBarrier) -> Result<()> {
        let times = *self.barriers.entry(barrier.id).or_insert_with(|| BarrierTimes::now(barrier, self.metrics));
        let actions = self.aligner.on(AlignerEvent::Announced { channel, barrier });
        self.align(actions, true)?;
        let timeout = self.setup.spec.barriers.and_then(|barriers| barriers.aligned_timeout);
        if let Some(timeout) = timeout.filter(|_| self.overtaking.is_none_or(|(pending, _)| pending < barrier.id)) {
            // What is left of it, by the jobmanager's clock and this machine's.
            self.overtaking = Some((barrier.id, Instant::now() + timeout.saturating_sub(times.start_delay())));
        }
        Ok(())
    }

    /// How long it is until barriers may overtake.
    pub(super) fn overtaking_wait(&self) -> Option<Duration> {
        self.overtaking.map(|(_, at)| at.saturating_duration_since(Instant::now()))
    }

    /// Barriers may overtake now.
    pub(super) fn time_out(&mut self) -> Result<()> {
        let Some((checkpoint, _)) = self.overtaking.take() else { return Ok(()) };
        let actions = self.aligner.on(AlignerEvent::TimedOut(checkpoint));
        self.align(actions, true)
    }

    pub(super) fn completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        tracing::debug!(target: STEP, step = "notify-complete", %checkpoint, task = %self.setup.spec.task);
        self.writing = self.writing.split_off(&checkpoint.next());
        if let Some(local) = &self.setup.local {
            local.completed(checkpoint);
        }
        self.blame.set_position(None);
        if let Some(source) = &mut self.parts.source {
            self.blame.part(0, || source.notify_complete(checkpoint))?;
        }
        let started = Instant::now();
        let told = self.parts.chain.notify_complete(checkpoint);
        self.aside += started.elapsed();
        told
    }

    pub(super) fn align(&mut self, actions: Vec<AlignerAction>, tell: bool) -> Result<()> {
        for action in actions {
            match action {
                AlignerAction::Block(channel) => self.gate.block(channel),
                AlignerAction::UnblockAll => self.gate.unblock_all(),
                AlignerAction::Snapshot(barrier) => self.snapshot(barrier)?,
                AlignerAction::Overtake(barrier) => {
                    let (graph, gate) = (&self.setup.graph, self.gate);
                    let in_flight = capture(graph, self.record_types(), gate, barrier.id);
                    self.take_part(barrier, Some(in_flight))?;
                }
                AlignerAction::Abandon(checkpoint) => {
                    self.barriers.remove(&checkpoint);
                    // Whoever aborted the checkpoint knows.
                    if tell {
                        let why = format!("checkpoint {checkpoint} was overtaken by a newer one during its alignment");
                        self.setup.tell(TaskEvent::Declined { checkpoint, reason: Error::external(why) });
                    }
                }
            }
        }
        Ok(())
    }

    /// What is known of the edges' records. Found out at the first barrier that overtakes any.
    fn record_types(&mut self) -> &RecordTypes {
        let graph = &self.setup.graph;
        self.record_types.get_or_insert_with(|| RecordTypes::of(graph))
    }

    /// Takes the task's part of a checkpoint and sends the barrier on.
    pub(super) fn snapshot(&mut self, barrier: CheckpointBarrier) -> Result<()> {
        self.take_part(barrier, None)
    }

    /// With what was in flight, where the barrier has overtaken it.
    fn take_part(&mut self, barrier: CheckpointBarrier, in_flight: Option<Result<Vec<EdgeInFlight>>>) -> Result<()> {
        let started = Instant::now();
        let unaligned = in_flight.is_some();
        // What a sink can't prepare is lost to this attempt: that is no failed checkpoint but a failed task.
        self.parts.chain.prepare_snapshot(barrier.id)?;
        let in_flight = in_flight.unwrap_or_else(|| Ok(Vec::new()));
        let taken = in_flight.and_then(|in_flight| TaskSnapshot::take(self.parts, barrier.id, in_flight));
        let stood_still = started.elapsed();
        self.aside += stood_still;
        self.parts.outputs.barrier(barrier)?;
        tracing::debug!(target: STEP, step = "snapshot", checkpoint = %barrier.id, unaligned, task = %self.setup.spec.task);
        let times = self.barriers.remove(&barrier.id).unwrap_or_else(|| BarrierTimes::now(barrier, self.metrics));
        self.barriers = self.barriers.split_off(&barrier.id);
        self.metrics.set_barrier_times(times.alignment(started), times.start_delay());
        match taken {
            Ok(snapshot) => {
                let aborted = Arc::<AtomicBool>::default();
                let measured = times.metrics(started, stood_still, self.metrics);
                let metrics = SubtaskCheckpointMetrics { unaligned, ..measured };
                self.writing.insert(barrier.id, Arc::clone(&aborted));
                write_beside(self.setup, barrier.id, snapshot, metrics, aborted);
            }
            Err(reason) => self.setup.tell(TaskEvent::Declined { checkpoint: barrier.id, reason }),
        }
        Ok(())
    }
}
