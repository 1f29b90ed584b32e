use millrace_core::{
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    ids::CheckpointId,
};
use proptest::prelude::*;

use super::{AlignerAction, AlignerAction::*, AlignerEvent, BarrierAligner, TRACKED};

mod overtaking;

fn barrier(id: u64) -> CheckpointBarrier {
    CheckpointBarrier { id: CheckpointId(id), triggered_at_ms: id * 1000 }
}

fn arrives(aligner: &mut BarrierAligner, channel: usize, id: u64) -> Vec<AlignerAction> {
    aligner.on(AlignerEvent::Barrier { channel, barrier: barrier(id) })
}

fn aborted(aligner: &mut BarrierAligner, id: u64) -> Vec<AlignerAction> {
    aligner.on(AlignerEvent::Aborted(CheckpointId(id)))
}

fn exactly_once(channels: usize) -> BarrierAligner {
    BarrierAligner::new(CheckpointingMode::ExactlyOnce, channels)
}

fn at_least_once(channels: usize) -> BarrierAligner {
    BarrierAligner::new(CheckpointingMode::AtLeastOnce, channels)
}

#[test]
fn a_channel_stays_blocked_until_all_delivered() {
    let mut aligner = exactly_once(3);
    assert_eq!(arrives(&mut aligner, 1, 1), [Block(1)]);
    assert_eq!(arrives(&mut aligner, 0, 1), [Block(0)]);
    assert!(aligner.is_blocked(0) && aligner.is_blocked(1) && !aligner.is_blocked(2));
    assert_eq!(arrives(&mut aligner, 2, 1), [Snapshot(barrier(1)), UnblockAll]);
    assert!((0..3).all(|channel| !aligner.is_blocked(channel)));
}

#[test]
fn a_single_channel_never_blocks() {
    for mode in [CheckpointingMode::ExactlyOnce, CheckpointingMode::AtLeastOnce] {
        let mut aligner = BarrierAligner::new(mode, 1);
        assert_eq!(arrives(&mut aligner, 0, 1), [Snapshot(barrier(1))]);
        assert_eq!(arrives(&mut aligner, 0, 2), [Snapshot(barrier(2))]);
    }
}

#[test]
fn a_newer_barrier_subsumes_the_pending_checkpoint() {
    let mut aligner = exactly_once(2);
    assert_eq!(arrives(&mut aligner, 0, 1), [Block(0)]);
    assert_eq!(arrives(&mut aligner, 1, 2), [Abandon(CheckpointId(1)), UnblockAll, Block(1)]);
    assert_eq!(arrives(&mut aligner, 0, 2), [Snapshot(barrier(2)), UnblockAll]);
}

#[test]
fn stale_and_repeated_barriers_are_dropped() {
    let mut aligner = exactly_once(2);
    arrives(&mut aligner, 0, 2);
    assert_eq!(arrives(&mut aligner, 1, 1), [Abandon(CheckpointId(1))], "older than the pending one");
    assert_eq!(arrives(&mut aligner, 1, 1), [], "told once");
    arrives(&mut aligner, 1, 2);
    assert_eq!(arrives(&mut aligner, 1, 2), [], "taken already");
    assert_eq!(arrives(&mut aligner, 0, 1), [], "older than the taken one");
    assert_eq!(aligner.pending().count(), 0);
}

#[test]
fn an_abort_frees_the_channels_and_makes_late_barriers_stale() {
    let mut aligner = exactly_once(2);
    arrives(&mut aligner, 0, 1);
    assert_eq!(aborted(&mut aligner, 1), [Abandon(CheckpointId(1)), UnblockAll]);
    assert_eq!(arrives(&mut aligner, 1, 1), []);
    assert_eq!(aborted(&mut aligner, 2), [], "before its first barrier");
    assert_eq!(arrives(&mut aligner, 0, 2), []);
    assert_eq!(arrives(&mut aligner, 0, 3), [Block(0)]);
}

#[test]
fn aborting_a_newer_checkpoint_leaves_the_older_one_alone() {
    let mut aligner = exactly_once(2);
    arrives(&mut aligner, 0, 1);
    assert_eq!(aborted(&mut aligner, 2), []);
    assert_eq!(arrives(&mut aligner, 1, 1), [Snapshot(barrier(1)), UnblockAll]);
}

#[test]
fn an_aborted_barrier_still_tells_that_an_older_one_will_not_come() {
    let mut aligner = exactly_once(2);
    arrives(&mut aligner, 0, 1);
    aborted(&mut aligner, 2);
    assert_eq!(arrives(&mut aligner, 1, 2), [Abandon(CheckpointId(1)), UnblockAll]);
}

#[test]
fn an_ended_channel_counts_as_aligned() {
    for mode in [CheckpointingMode::ExactlyOnce, CheckpointingMode::AtLeastOnce] {
        let mut aligner = BarrierAligner::new(mode, 2);
        arrives(&mut aligner, 0, 1);
        let actions = aligner.on(AlignerEvent::ChannelEnded(1));
        assert_eq!(actions.first(), Some(&Snapshot(barrier(1))));
        assert_eq!(arrives(&mut aligner, 0, 2), [Snapshot(barrier(2))]);
        assert_eq!(arrives(&mut aligner, 1, 3), [], "an ended channel delivers nothing");
    }
}

#[test]
fn at_least_once_counts_several_without_blocking() {
    let mut aligner = at_least_once(2);
    assert_eq!(arrives(&mut aligner, 0, 1), []);
    assert_eq!(arrives(&mut aligner, 0, 2), []);
    assert!(!aligner.is_blocked(0));
    assert_eq!(aligner.pending().collect::<Vec<_>>(), [CheckpointId(1), CheckpointId(2)]);
    assert_eq!(arrives(&mut aligner, 1, 1), [Snapshot(barrier(1))]);
    assert_eq!(arrives(&mut aligner, 1, 2), [Snapshot(barrier(2))]);
}

#[test]
fn at_least_once_a_taken_checkpoint_subsumes_older_ones() {
    let mut aligner = at_least_once(2);
    arrives(&mut aligner, 0, 1);
    arrives(&mut aligner, 0, 2);
    assert_eq!(arrives(&mut aligner, 1, 2), [Abandon(CheckpointId(1)), Snapshot(barrier(2))]);
    assert_eq!(arrives(&mut aligner, 1, 1), []);
}

#[test]
fn memory_is_bounded() {
    let mut aligner = at_least_once(2);
    for id in 1..=1000 {
        arrives(&mut aligner, 0, id);
        aborted(&mut aligner, 10_000 + id);
    }
    assert_eq!(aligner.pending.len(), 0, "the forgotten aborts are newer than all that was pending");
    assert_eq!(aligner.aborted.len(), TRACKED);
    let mut aligner = at_least_once(2);
    for id in 1..=1000 {
        arrives(&mut aligner, 0, id);
    }
    assert_eq!(aligner.pending.len(), TRACKED);
}

/// What may happen to a task, before it is known which channels are open.
#[derive(Clone, Debug)]
enum Step {
    /// Lets a channel deliver its next element.
    Deliver(usize),
    End(usize),
    Abort(u64),
}

fn steps(channels: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..channels).prop_map(Step::Deliver),
        1 => (0..channels).prop_map(Step::End),
        1 => (1..12_u64).prop_map(Step::Abort),
    ];
    prop::collection::vec(step, 0..80)
}

/// The barriers that each channel delivers, in order; an upstream task may have skipped some.
fn streams(channels: usize) -> impl Strategy<Value = Vec<Vec<u64>>> {
    let stream = prop::collection::vec(prop::bool::weighted(0.8), 12)
        .prop_map(|sent| (0..12_u64).filter(|&id| sent[id as usize]).map(|id| id + 1).collect());
    prop::collection::vec(stream, channels)
}

fn scenario() -> impl Strategy<Value = (usize, Vec<Vec<u64>>, Vec<Step>)> {
    (1..5_usize).prop_flat_map(|channels| (Just(channels), streams(channels), steps(channels)))
}

proptest! {
    /// Runs a task's mailbox over the aligner and checks, exactly once: what was read of each open channel when a
    /// snapshot is taken ends with that checkpoint's barrier, or the channel has ended; in both modes: snapshots
    /// ascend, aborted ones are never taken, blocking matches the actions.
    #[test]
    fn snapshots_are_taken_between_the_right_records(
        (channels, streams, steps) in scenario(),
        exact in any::<bool>(),
    ) {
        let mode = if exact { CheckpointingMode::ExactlyOnce } else { CheckpointingMode::AtLeastOnce };
        let mut aligner = BarrierAligner::new(mode, channels);
        let (mut read, mut ended) = (vec![0; channels], vec![false; channels]);
        let mut blocked = vec![false; channels];
        let (mut aborted, mut last) = (Vec::new(), 0);
        for step in steps {
            let event = match step {
                Step::Deliver(channel) => {
                    let next = streams[channel].get(read[channel]).filter(|_| !ended[channel] && !blocked[channel]);
                    let Some(&id) = next else { continue };
                    read[channel] += 1;
                    AlignerEvent::Barrier { channel, barrier: barrier(id) }
                }
                Step::End(channel) if !blocked[channel] => {
                    ended[channel] = true;
                    AlignerEvent::ChannelEnded(channel)
                }
                Step::End(_) => continue,
                Step::Abort(id) => {
                    aborted.push(id);
                    AlignerEvent::Aborted(CheckpointId(id))
                }
            };
            for action in aligner.on(event) {
                match action {
                    Block(channel) => blocked[channel] = true,
                    UnblockAll => blocked.fill(false),
                    Abandon(id) => prop_assert!(id.0 > last),
                    Overtake(_) => prop_assert!(false, "no barrier was announced"),
                    Snapshot(taken) => {
                        prop_assert!(taken.id.0 > last && !aborted.contains(&taken.id.0));
                        last = taken.id.0;
                        for channel in (0..channels).filter(|&channel| !ended[channel]) {
                            let seen = &streams[channel][..read[channel]];
                            prop_assert!(seen.contains(&last));
                            prop_assert!(!exact || seen.last() == Some(&last));
                        }
                    }
                }
            }
            for (channel, blocked) in blocked.iter().enumerate() {
                prop_assert_eq!(*blocked, aligner.is_blocked(channel));
            }
            // A task never waits for ever on channels that are all blocked or ended.
            let open = (0..channels).any(|channel| !ended[channel]);
            prop_assert!(!open || (0..channels).any(|channel| !ended[channel] && !blocked[channel]));
        }
    }
}
