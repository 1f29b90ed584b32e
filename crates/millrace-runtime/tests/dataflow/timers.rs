//! Processing-time timers fire on their task, also behind a restore and at another parallelism.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use millrace_core::{
    Batch, RecordBatch, Result,
    clock::Clock,
    ids::{InputId, OutputId, TaskId},
};
use millrace_runtime::{
    graph::{JobGraph, Partitioning},
    operator::{Operator, OperatorContext, OperatorFactory, Output},
};
use millrace_state::{KeyedStateStore, OperatorSubtaskState};

use crate::{
    cluster::{Cluster, restore_of, split, task, until},
    graphs::Builder,
    numbers::{Event, Numbers},
    operators::{Factory, Seen, Sink},
};

/// When the tests begin.
const START: u64 = 1_000_000;

/// Which timers have fired: when, and for which number.
type Fired = Arc<Mutex<Vec<(u64, u64)>>>;

/// Registers two timers for each number, one of them again and again, and hands on what has fired.
struct Alarm {
    fired: Fired,
    state: Option<KeyedStateStore>,
}

impl Alarm {
    fn factory(fired: &Fired) -> Arc<dyn OperatorFactory> {
        let fired = Arc::clone(fired);
        Arc::new(Factory(move || Box::new(Self { fired: Arc::clone(&fired), state: None }) as _))
    }
}

/// The first and the second timer of a number.
fn times(number: u64) -> [u64; 2] {
    [START + 10 * (number % 10), START + 10_000]
}

impl Operator for Alarm {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        let state = self.state.insert(context.keyed_state.clone().expect("behind a hash edge"));
        state.enable_timers()
    }

    fn process(&mut self, _: InputId, batch: Batch, _: &mut dyn Output) -> Result<()> {
        let RecordBatch { records, keys, .. } = batch.into_typed::<Event>()?;
        let state = self.state.as_ref().expect("open");
        state.begin_batch(keys.expect("keys"));
        for (index, event) in records.iter().enumerate() {
            state.select(index);
            let [first, second] = times(event.number);
            [first, second, first, second].into_iter().try_for_each(|time| state.register_timer(time))?;
        }
        state.end_batch();
        Ok(())
    }

    fn on_processing_time(&mut self, now: u64, out: &mut dyn Output) -> Result<()> {
        let state = self.state.as_ref().expect("open");
        // Few at a time: the task calls again.
        let due = state.due_timers(now, 16)?;
        assert!(!due.times.is_empty(), "not called for nothing");
        state.begin_batch(due.keys);
        let mut events = Vec::new();
        for (index, time) in due.times.into_iter().enumerate() {
            state.select(index);
            assert!(state.take_timer(time)?);
            let number = state.current_key::<u64>()?;
            self.fired.lock().unwrap().push((time, number));
            events.push(Event { split: 0, number, via: 0, text: String::new() });
        }
        state.end_batch();
        out.emit(OutputId(0), Batch::new(RecordBatch::new(events, None)))
    }
}

fn job(parallelism: u32) -> (Numbers, Fired, Arc<Seen>, Arc<JobGraph>) {
    let (numbers, fired, seen) = (Numbers::new(1), Fired::default(), Arc::<Seen>::default());
    let graph = Builder::source(&numbers, 1)
        .then(Partitioning::Hash, "alarm", parallelism, Alarm::factory(&fired))
        .chain("sink", Sink::factory(&seen, None))
        .build();
    (numbers, fired, seen, graph)
}

fn run(cluster: &mut Cluster, graph: &Arc<JobGraph>, from: Option<&BTreeMap<TaskId, Vec<OperatorSubtaskState>>>) {
    let parallelism = graph.vertices[1].parallelism;
    let restore = from.map(|from| restore_of(from, 1, "alarm", parallelism));
    cluster.run(graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..1000)];
        } else if let Some(restore) = &restore {
            spec.restore = vec![restore[spec.task.subtask as usize].clone()];
        }
    });
}

fn timers(at: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
    let mut timers: Vec<_> = (0..500).map(|number| (at(number), number)).collect();
    timers.sort_unstable();
    timers
}

fn sorted(fired: &Fired) -> Vec<(u64, u64)> {
    let mut fired = fired.lock().unwrap().clone();
    fired.sort_unstable();
    fired
}

#[test]
fn timers_fire_once_and_again_after_a_restore_at_another_parallelism() {
    let mut cluster = Cluster::new(1);
    let (clock, hand) = Clock::manual(START - 1);
    cluster.clock = clock;
    let (numbers, fired, seen, graph) = job(2);
    numbers.0.allow(0, 500);
    run(&mut cluster, &graph, None);
    until("all numbers are read", || numbers.0.read(0) == 500);
    let before = cluster.trigger(&[task(0, 0)]);
    let before = cluster.checkpoint(before);
    assert!(fired.lock().unwrap().is_empty(), "nothing is due");
    hand.set(START + 9_999);
    until("the first timers have fired", || seen.len() == 500);
    let between = cluster.trigger(&[task(0, 0)]);
    let between = cluster.checkpoint(between);
    cluster.cancel();
    assert_eq!(sorted(&fired), timers(|number| times(number)[0]));

    // The job was down when the second timers were due.
    hand.set(START + 1_000_000);
    let both = [timers(|number| times(number)[0]), timers(|number| times(number)[1])].concat();
    for (from, expected) in [(&before, both), (&between, timers(|number| times(number)[1]))] {
        for parallelism in [1, 2, 3, 7] {
            let (numbers, fired, seen, graph) = job(parallelism);
            numbers.0.allow(0, 0);
            run(&mut cluster, &graph, Some(from));
            until("all timers have fired", || seen.len() == expected.len());
            cluster.cancel();
            assert_eq!(sorted(&fired), expected, "restored at {parallelism}");
        }
    }
}

#[test]
fn a_clock_that_goes_back_delays_timers_and_fires_none_twice() {
    let mut cluster = Cluster::new(1);
    let (clock, hand) = Clock::manual(START - 1);
    cluster.clock = clock;
    let (numbers, fired, seen, graph) = job(1);
    numbers.0.allow(0, 500);
    run(&mut cluster, &graph, None);
    until("all numbers are read", || numbers.0.read(0) == 500);
    hand.set(START + 50);
    let due = timers(|number| times(number)[0]).into_iter().filter(|(at, _)| *at <= START + 50).collect::<Vec<_>>();
    until("some timers have fired", || seen.len() == due.len());
    hand.set(START - 500_000);
    // The checkpoint passes a task whose time has gone back.
    let during = cluster.trigger(&[task(0, 0)]);
    let during = cluster.checkpoint(during);
    assert_eq!(sorted(&fired), due, "none fires early or again");
    hand.set(START + 9_999);
    until("the rest has fired", || seen.len() == 500);
    assert_eq!(sorted(&fired), timers(|number| times(number)[0]));
    cluster.cancel();

    let rest: Vec<_> = [timers(|number| times(number)[0]), timers(|number| times(number)[1])].concat();
    let rest: Vec<_> = rest.into_iter().filter(|timer| !due.contains(timer)).collect();
    let (numbers, fired, seen, graph) = job(2);
    numbers.0.allow(0, 0);
    hand.set(START + 10_000);
    run(&mut cluster, &graph, Some(&during));
    until("what had not fired has", || seen.len() == rest.len());
    cluster.cancel();
    assert_eq!(sorted(&fired), rest);
}

#[test]
fn timers_do_not_fire_behind_the_end_of_the_input_and_are_in_the_last_checkpoint() {
    let mut cluster = Cluster::new(1);
    let (clock, hand) = Clock::manual(START - 1);
    cluster.clock = clock;
    let (numbers, fired, _seen, graph) = job(1);
    numbers.0.allow(0, 1000);
    run(&mut cluster, &graph, None);
    cluster.each("has read its input", |event| matches!(event, millrace_runtime::task::TaskEvent::EndOfInput));
    hand.set(START + 1_000_000);
    let last = cluster.trigger(&[task(0, 0)]);
    let last = cluster.checkpoint(last);
    assert!(fired.lock().unwrap().is_empty());
    cluster.cancel();
    let (numbers, fired, seen, graph) = job(2);
    numbers.0.allow(0, 0);
    run(&mut cluster, &graph, Some(&last));
    until("all timers have fired", || seen.len() == 2000);
    cluster.cancel();
    assert_eq!(fired.lock().unwrap().len(), 2000);
}
