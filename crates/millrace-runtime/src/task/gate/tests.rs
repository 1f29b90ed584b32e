use std::{sync::mpsc, thread};

use millrace_core::{
    RecordBatch,
    checkpoint::CheckpointBarrier,
    ids::{CheckpointId, InputId},
};

use super::*;

const NO_WAIT: Option<Duration> = Some(Duration::ZERO);

fn gate(channels: u32, capacity: usize) -> Arc<Gate> {
    let id = |producer| ChannelId { input: InputId(0), edge: 0, producer };
    Gate::new((0..channels).map(id).collect(), capacity, Vec::new())
}

fn numbers(records: &[u32]) -> StreamElement {
    StreamElement::Batch(Batch::new(RecordBatch::new(records.to_vec(), None)))
}

fn taken(gate: &Gate) -> Option<(usize, Vec<u32>)> {
    match gate.next(NO_WAIT) {
        GateEvent::Element { channel, element: StreamElement::Batch(batch) } => {
            Some((channel, batch.into_typed().unwrap().records))
        }
        GateEvent::Timeout => None,
        other => panic!("{other:?}"),
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        thread::yield_now();
    }
}

#[test]
fn channels_take_turns_and_keep_their_order() {
    let gate = gate(2, 8);
    for n in 0..3 {
        gate.offer(0, numbers(&[n]));
    }
    gate.offer(1, numbers(&[10]));
    let order: Vec<_> = std::iter::from_fn(|| taken(&gate)).collect();
    assert_eq!(order, [(0, vec![0]), (1, vec![10]), (0, vec![1]), (0, vec![2])]);
}

#[test]
fn commands_come_first_and_blocked_channels_wait() {
    let gate = gate(2, 8);
    gate.offer(0, numbers(&[1]));
    gate.offer(1, numbers(&[2]));
    gate.command(TaskCommand::NotifyComplete(CheckpointId(3)));
    gate.block(0);
    assert!(matches!(gate.next(NO_WAIT), GateEvent::Control(TaskCommand::NotifyComplete(_))));
    assert_eq!(taken(&gate), Some((1, vec![2])));
    assert_eq!(taken(&gate), None);
    gate.unblock_all();
    assert_eq!(taken(&gate), Some((0, vec![1])));
}

#[test]
fn the_rest_of_a_batch_comes_before_what_follows() {
    let gate = gate(1, 2);
    gate.offer(0, numbers(&[1, 2]));
    gate.offer(0, numbers(&[3]));
    let Some((0, records)) = taken(&gate) else { panic!() };
    assert_eq!(records, [1, 2]);
    gate.put_back(0, numbers(&[2]));
    assert_eq!(taken(&gate), Some((0, vec![2])));
    assert_eq!(taken(&gate), Some((0, vec![3])));
}

#[test]
fn a_full_channel_stops_its_producer_until_there_is_room() {
    let gate = gate(1, 2);
    let producer = Arc::clone(&gate);
    let thread = thread::spawn(move || {
        (0..10).map(|n| producer.push(0, numbers(&[n]), &AtomicBool::new(false))).collect::<Vec<_>>()
    });
    for n in 0..10 {
        if n < 8 {
            until("the producer to be stopped", || gate.is_producer_waiting(0));
            assert_eq!(gate.queued(0), 2);
        } else {
            until("an element", || gate.queued(0) > 0);
        }
        assert_eq!(taken(&gate), Some((0, vec![n])));
    }
    assert!(thread.join().unwrap().iter().all(|sent| matches!(sent, Sent::Done { .. })));
}

#[test]
fn closing_and_cancelling_wake_a_waiting_producer() {
    for close in [true, false] {
        let gate = gate(1, 1);
        gate.offer(0, numbers(&[1]));
        let cancelled = Arc::new(AtomicBool::new(false));
        let (producer, flag) = (Arc::clone(&gate), Arc::clone(&cancelled));
        let thread = thread::spawn(move || producer.push(0, numbers(&[2]), &flag));
        until("the producer to wait", || gate.is_producer_waiting(0));
        let expected = if close {
            gate.close();
            Sent::Closed
        } else {
            cancelled.store(true, Ordering::SeqCst);
            gate.wake_producer(0);
            Sent::Cancelled
        };
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn closing_wakes_the_consumer_and_refuses_elements() {
    let gate = gate(1, 1);
    let consumer = Arc::clone(&gate);
    let thread = thread::spawn(move || consumer.next(None));
    gate.close();
    assert!(matches!(thread.join().unwrap(), GateEvent::Closed));
    assert!(matches!(gate.offer(0, numbers(&[1])), Offer::Closed));
}

#[test]
fn the_first_failure_is_told_until_the_task_is_cancelled() {
    let gate = gate(1, 1);
    gate.fail(Error::external("first"));
    gate.fail(Error::external("second"));
    assert!(matches!(gate.next(None), GateEvent::Failed(error) if error.message == "first"));
    gate.close();
    assert!(matches!(gate.next(None), GateEvent::Closed));
}

struct Returned(mpsc::Sender<u32>);
impl CreditReturn for Returned {
    fn give_back(&self, credits: u32) {
        self.0.send(credits).unwrap();
    }
}

#[test]
fn credits_return_once_for_each_element_that_left_its_queue() {
    let gate = gate(1, 4);
    let (sender, receiver) = mpsc::channel();
    assert_eq!(gate.bind_remote(0, Arc::new(Returned(sender.clone()))), Some(4));
    assert_eq!(gate.bind_remote(0, Arc::new(Returned(sender))), None, "a channel has one producer");
    for n in 0..4 {
        gate.offer(0, numbers(&[n]));
    }
    assert!(matches!(gate.offer(0, numbers(&[4])), Offer::Full(_)));
    let mut sent = 4;
    for n in 0..20 {
        assert_eq!(taken(&gate), Some((0, vec![n])));
        // The rest of a split batch takes none of the producer's places.
        gate.put_back(0, numbers(&[99]));
        gate.put_back(0, numbers(&[98]));
        for _ in 0..receiver.try_iter().sum::<u32>() {
            assert!(matches!(gate.offer(0, numbers(&[sent])), Offer::Taken { .. }));
            sent += 1;
        }
        assert_eq!((taken(&gate), taken(&gate)), (Some((0, vec![98])), Some((0, vec![99]))));
    }
    assert!(sent >= 20 + 2, "credits came back");
}

fn barrier(id: u64) -> CheckpointBarrier {
    CheckpointBarrier { id: CheckpointId(id), triggered_at_ms: 0 }
}

#[test]
fn barriers_take_no_place_and_are_announced_where_they_may_overtake() {
    let id = |edge| ChannelId { input: InputId(0), edge, producer: 0 };
    let gate = Gate::new(vec![id(3), id(4)], 1, vec![4]);
    for channel in 0..2 {
        assert!(matches!(gate.offer(channel, numbers(&[1])), Offer::Taken { room: false }));
        assert!(matches!(gate.offer(channel, StreamElement::Barrier(barrier(7))), Offer::Taken { room: false }));
    }
    gate.block(1);
    let announced = gate.next(NO_WAIT);
    assert!(matches!(announced, GateEvent::Announced { channel: 1, barrier } if barrier.id.0 == 7), "{announced:?}");
    assert_eq!(taken(&gate), Some((0, vec![1])));
    assert!(matches!(gate.next(NO_WAIT), GateEvent::Element { channel: 0, element: StreamElement::Barrier(_) }));
    assert_eq!(taken(&gate), None);
}

#[test]
fn a_peer_that_sends_nothing_but_barriers_is_stopped() {
    let gate = gate(1, 1);
    let refused = (0..).find(|id| matches!(gate.offer(0, StreamElement::Barrier(barrier(*id))), Offer::Full(_)));
    assert_eq!(refused, Some(1 + UNCOUNTED as u64));
}

#[test]
fn a_producer_is_nudged_when_there_is_room() {
    let (gate, producer) = (gate(1, 2), gate(0, 1));
    gate.offer(0, numbers(&[1]));
    assert!(gate.has_room(0, &producer));
    gate.offer(0, numbers(&[2]));
    assert!(!gate.has_room(0, &producer));
    assert!(matches!(producer.next_urgent(NO_WAIT), GateEvent::Timeout));
    taken(&gate);
    assert!(matches!(producer.next_urgent(None), GateEvent::Nudged));
    assert!(gate.has_room(0, &producer));
    gate.offer(0, numbers(&[3]));
    assert!(!gate.has_room(0, &producer));
    gate.close();
    assert!(matches!(producer.next_urgent(None), GateEvent::Nudged), "whoever waits for a task that ends is told");
    assert!(gate.has_room(0, &producer), "and finds out why");
}

#[test]
fn no_more_records_wait_than_shall_beside_a_batch() {
    let (gate, producer) = (gate(1, 8), gate(0, 1));
    assert!(matches!(gate.offer(0, numbers(&[1; 10])), Offer::Taken { room: true }));
    gate.limit(15);
    assert!(gate.has_room(0, &producer));
    assert!(matches!(gate.offer(0, numbers(&[2; 10])), Offer::Taken { room: false }));
    assert_eq!(gate.records(), 20);
    assert!(!gate.has_room(0, &producer));
    // The rest of a batch that was split still waits.
    taken(&gate);
    gate.put_back(0, numbers(&[1; 6]));
    assert_eq!(gate.records(), 16);
    taken(&gate);
    assert!(matches!(producer.next_urgent(NO_WAIT), GateEvent::Nudged));
    assert!(gate.has_room(0, &producer));
    gate.limit(0);
    assert!(!gate.has_room(0, &producer));
    taken(&gate);
    assert!(gate.has_room(0, &producer), "whatever the limit, a batch finds room in an empty channel");
}

#[test]
fn no_more_credits_are_out_than_batches_of_that_size_may_wait() {
    let gate = gate(1, 8);
    let (sender, receiver) = mpsc::channel();
    let mut credits = gate.bind_remote(0, Arc::new(Returned(sender)));
    assert_eq!(credits, Some(8), "nothing is limited");
    gate.limit(30);
    let mut returned = Vec::new();
    for _ in 0..30 {
        for _ in 0..credits.take().unwrap_or_default() {
            assert!(matches!(gate.offer(0, numbers(&[1; 10])), Offer::Taken { .. }));
        }
        taken(&gate);
        let back = receiver.try_iter().sum::<u32>();
        returned.push(back);
        credits = Some(back);
    }
    assert_eq!(returned[..8], [0, 0, 0, 0, 0, 0, 2, 0], "3 batches are 30 records");
    assert_eq!(returned[8..].iter().sum::<u32>(), 22, "as many come back as are taken: {returned:?}");
    assert!(gate.queued(0) <= 3);
}

#[test]
fn a_task_that_was_not_measured_has_few_batches_waiting_from_near_and_far() {
    let (gate, producer) = (gate(2, 16), gate(0, 1));
    gate.limit_until_measured(10);
    let (sender, receiver) = mpsc::channel();
    assert_eq!(gate.bind_remote(0, Arc::new(Returned(sender))), Some(4));
    for full in [false, false, false, true] {
        assert!(matches!(gate.offer(1, numbers(&[1; 10])), Offer::Taken { room } if room != full));
    }
    assert!(!gate.has_room(1, &producer));
    for _ in 0..4 {
        assert!(matches!(gate.offer(0, numbers(&[1; 10])), Offer::Taken { .. }));
    }
    gate.limit(160);
    taken(&gate);
    assert_eq!(receiver.try_iter().sum::<u32>(), 13, "once it is known, all places but the taken ones");
}

#[test]
fn small_batches_do_not_make_room_for_many_full_ones() {
    let gate = gate(1, 16);
    gate.limit_until_measured(1000);
    let (sender, receiver) = mpsc::channel();
    let mut credits = gate.bind_remote(0, Arc::new(Returned(sender))).unwrap();
    gate.limit(100);
    for _ in 0..100 {
        assert!(matches!(gate.offer(0, numbers(&[1])), Offer::Taken { .. }));
        taken(&gate);
        credits = credits - 1 + receiver.try_iter().sum::<u32>();
    }
    assert!((1..=4).contains(&credits), "{credits}");
}

#[test]
fn what_waits_is_lifted_and_put_down_as_it_was() {
    let gate = gate(2, 8);
    let restored = Batch::new(RecordBatch::new(vec![0u32], None));
    gate.restore(0, vec![restored]);
    gate.offer(0, numbers(&[1]));
    gate.offer(0, StreamElement::Barrier(barrier(1)));
    gate.offer(0, numbers(&[2]));
    gate.offer(1, numbers(&[3]));
    gate.offer(1, StreamElement::Barrier(barrier(1)));
    let lifted = gate.lift(CheckpointId(1));
    assert_eq!(lifted.restored.iter().map(VecDeque::len).collect::<Vec<_>>(), [1]);
    assert_eq!(lifted.queued.iter().map(VecDeque::len).collect::<Vec<_>>(), [1, 1]);
    gate.offer(1, numbers(&[4]));
    gate.put_down(lifted);
    assert_eq!((gate.queued(0), gate.queued(1)), (2, 2));
    let mut order = Vec::new();
    while let GateEvent::Element { channel, element } = gate.next(NO_WAIT) {
        match element {
            StreamElement::Batch(batch) => order.push((channel, batch.into_typed::<u32>().unwrap().records[0])),
            _ => order.push((channel, 99)),
        }
    }
    assert_eq!(order, [(2, 0), (0, 1), (1, 3), (0, 99), (1, 99), (0, 2), (1, 4)]);
    assert_eq!((gate.queued(0), gate.queued(1)), (0, 0));
}
