//! Barriers that overtake.

use std::collections::VecDeque;

use super::*;

fn announced(aligner: &mut BarrierAligner, channel: usize, id: u64) -> Vec<AlignerAction> {
    aligner.on(AlignerEvent::Announced { channel, barrier: barrier(id) })
}

fn timed_out(aligner: &mut BarrierAligner, id: u64) -> Vec<AlignerAction> {
    aligner.on(AlignerEvent::TimedOut(CheckpointId(id)))
}

#[test]
fn barriers_overtake_once_the_time_is_over_and_all_are_announced() {
    let mut aligner = exactly_once(2);
    assert_eq!(announced(&mut aligner, 0, 1), []);
    assert_eq!(timed_out(&mut aligner, 1), [], "the second one may still be anywhere");
    assert_eq!(announced(&mut aligner, 1, 1), [Overtake(barrier(1))]);
    assert_eq!(arrives(&mut aligner, 0, 1), [], "it was overtaken");
    assert_eq!(arrives(&mut aligner, 1, 1), []);
}

#[test]
fn until_then_they_are_aligned() {
    let mut aligner = exactly_once(2);
    announced(&mut aligner, 0, 1);
    announced(&mut aligner, 1, 1);
    assert_eq!(arrives(&mut aligner, 1, 1), [Block(1)]);
    assert_eq!(arrives(&mut aligner, 0, 1), [Snapshot(barrier(1)), UnblockAll]);
    assert_eq!(timed_out(&mut aligner, 1), [], "too late");
}

#[test]
fn an_alignment_that_has_begun_may_turn_unaligned() {
    let mut aligner = exactly_once(2);
    announced(&mut aligner, 0, 1);
    announced(&mut aligner, 1, 1);
    assert_eq!(arrives(&mut aligner, 1, 1), [Block(1)]);
    assert_eq!(timed_out(&mut aligner, 1), [Overtake(barrier(1)), UnblockAll]);
}

#[test]
fn a_channel_that_announces_nothing_stays_aligned() {
    let mut aligner = exactly_once(2);
    announced(&mut aligner, 0, 1);
    assert_eq!(timed_out(&mut aligner, 1), []);
    assert_eq!(arrives(&mut aligner, 1, 1), [Overtake(barrier(1))]);
}

#[test]
fn a_newer_announcement_subsumes_the_pending_checkpoint() {
    let mut aligner = exactly_once(2);
    announced(&mut aligner, 0, 1);
    assert_eq!(announced(&mut aligner, 1, 2), [Abandon(CheckpointId(1))]);
    assert_eq!(announced(&mut aligner, 1, 1), [], "older than the pending one");
    announced(&mut aligner, 0, 2);
    assert_eq!(timed_out(&mut aligner, 2), [Overtake(barrier(2))]);
}

#[test]
fn an_abort_makes_announcements_stale() {
    let mut aligner = exactly_once(1);
    aborted(&mut aligner, 1);
    assert_eq!(announced(&mut aligner, 0, 1), []);
    assert_eq!(timed_out(&mut aligner, 1), []);
    assert_eq!(arrives(&mut aligner, 0, 1), []);
}

#[test]
fn at_least_once_nothing_overtakes() {
    let mut aligner = at_least_once(2);
    announced(&mut aligner, 0, 1);
    announced(&mut aligner, 1, 1);
    assert_eq!(timed_out(&mut aligner, 1), []);
    assert_eq!(arrives(&mut aligner, 0, 1), []);
    assert_eq!(arrives(&mut aligner, 1, 1), [Snapshot(barrier(1))]);
}

/// What may happen to a task and its queues.
#[derive(Clone, Debug)]
enum Step {
    /// A producer sends its next element.
    Send(usize),
    /// The task takes an element.
    Take(usize),
    /// A checkpoint's time is over.
    TimeOut(u64),
    Abort(u64),
}

fn steps(channels: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..channels).prop_map(Step::Send),
        8 => (0..channels).prop_map(Step::Take),
        4 => (1..8_u64).prop_map(Step::TimeOut),
        1 => (1..8_u64).prop_map(Step::Abort),
    ];
    prop::collection::vec(step, 0..120)
}

/// A record by its number, or a barrier.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    Record(u64),
    Barrier(u64),
}

/// What each producer sends: records, and every barrier in order.
fn scripts(channels: usize) -> impl Strategy<Value = Vec<Vec<Element>>> {
    let gaps = prop::collection::vec(0..4_usize, 7);
    let script = gaps.prop_map(|gaps| {
        let mut script = Vec::new();
        for (gap, id) in gaps.into_iter().zip(1..) {
            let from = script.len() as u64;
            script.extend((from..from + gap as u64).map(Element::Record));
            script.push(Element::Barrier(id));
        }
        script
    });
    prop::collection::vec(script, channels)
}

fn records(elements: &[Element]) -> Vec<Element> {
    elements.iter().copied().filter(|element| matches!(element, Element::Record(_))).collect()
}

proptest! {
    /// Of every channel, what was processed and what is in flight in a snapshot are together exactly what precedes the
    /// barrier. Some channels may not be overtaken in.
    #[test]
    fn nothing_is_lost_and_nothing_is_twice(
        (scripts, may_overtake, steps) in (1..4_usize).prop_flat_map(|channels| {
            (scripts(channels), prop::collection::vec(prop::bool::weighted(0.7), channels), steps(channels))
        }),
    ) {
        let channels = scripts.len();
        let mut aligner = exactly_once(channels);
        let (mut sent, mut taken) = (vec![0; channels], vec![Vec::new(); channels]);
        let mut queues = vec![VecDeque::new(); channels];
        let mut last = 0;
        for step in steps {
            let actions = match step {
                Step::Send(channel) => {
                    let Some(&element) = scripts[channel].get(sent[channel]) else { continue };
                    sent[channel] += 1;
                    queues[channel].push_back(element);
                    match element {
                        Element::Barrier(id) if may_overtake[channel] => announced(&mut aligner, channel, id),
                        _ => continue,
                    }
                }
                Step::Take(channel) if aligner.is_blocked(channel) => continue,
                Step::Take(channel) => {
                    let Some(element) = queues[channel].pop_front() else { continue };
                    taken[channel].push(element);
                    match element {
                        Element::Barrier(id) => arrives(&mut aligner, channel, id),
                        Element::Record(_) => continue,
                    }
                }
                Step::TimeOut(id) => timed_out(&mut aligner, id),
                Step::Abort(id) => aborted(&mut aligner, id),
            };
            for action in actions {
                let (id, overtakes) = match action {
                    Snapshot(taken) => (taken.id.0, false),
                    Overtake(taken) => (taken.id.0, true),
                    Block(_) | UnblockAll | Abandon(_) => continue,
                };
                prop_assert!(id > last);
                last = id;
                let mark = Element::Barrier(id);
                for channel in 0..channels {
                    let mut covered = records(&taken[channel]);
                    if !taken[channel].contains(&mark) {
                        let waiting: Vec<_> = queues[channel].iter().copied().take_while(|e| *e != mark).collect();
                        prop_assert!(overtakes && may_overtake[channel] && waiting.len() < queues[channel].len());
                        covered.extend(records(&waiting));
                    }
                    let before: Vec<_> = scripts[channel].iter().copied().take_while(|e| *e != mark).collect();
                    prop_assert_eq!(covered, records(&before));
                }
            }
        }
    }
}
