//! Process functions, timers and broadcast state, on one operator with a clock that the test sets.

use std::collections::BTreeMap;

use millrace_core::{
    Batch, FunctionResult, RecordBatch, Result,
    clock::{Clock, ManualClock},
    ids::{InputId, JobAttempt, JobId, OperatorUid, OutputId},
    key::KeyColumn,
    operator_state::{OperatorListSnapshot, OperatorListState, OperatorStateStore},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};
use millrace_state::{FsStateBackend, KeyedBackendContext, KeyedStateStore, ValueState};

use super::{BroadcastFactory, BroadcastProcess, FunctionFactory, KeyedBroadcastProcess, KeyedProcess, Process};
use crate::functions::{
    BroadcastContext, BroadcastProcessFunction, Collector, KeyedBroadcastProcessFunction, KeyedContext,
    KeyedProcessContext, KeyedProcessFunction, ProcessContext, ProcessFunction, ReadOnlyBroadcastState, RuntimeContext,
};

#[derive(Default)]
struct Emitted(Vec<String>);

impl Output for Emitted {
    fn emit(&mut self, _: OutputId, batch: Batch) -> Result<()> {
        self.0.extend(batch.into_typed::<String>()?.records);
        Ok(())
    }
}

/// An operator at 1000 ms, with what it was given and what it gives.
struct Tested {
    operator: Box<dyn Operator>,
    context: OperatorContext,
    hand: ManualClock,
    out: Emitted,
}

impl Tested {
    fn open(factory: &dyn OperatorFactory, keyed: bool, restored: Vec<OperatorListSnapshot>) -> Result<Self> {
        let (clock, hand) = Clock::manual(1000);
        let store = KeyedBackendContext { clock: clock.clone(), ..KeyedBackendContext::alone("uid", 16) };
        let store = KeyedStateStore::open(&FsStateBackend::configured(), store)?;
        let mut context = OperatorContext {
            uid: OperatorUid("uid".into()),
            name: "Process".into(),
            subtask: 0,
            parallelism: 1,
            attempt: JobAttempt::first(JobId(1)),
            keyed_state: keyed.then_some(store),
            operator_state: OperatorStateStore::restored(restored),
            checkpoints: true,
            metrics: prometheus::Registry::new(),
            clock,
        };
        let mut operator = factory.create();
        operator.open(&mut context)?;
        Ok(Self { operator, context, hand, out: Emitted::default() })
    }

    /// Hands over words, keyed by themselves where the operator is keyed.
    fn words(&mut self, words: &[&str]) -> Result<()> {
        let mut batch = RecordBatch::new(words.iter().map(ToString::to_string).collect(), None);
        if self.context.keyed_state.is_some() {
            let mut keys = KeyColumn::default();
            words.iter().try_for_each(|word| keys.push(*word).map(drop))?;
            batch.keys = Some(keys);
        }
        self.operator.process(InputId(0), Batch::new(batch), &mut self.out)
    }

    fn broadcast(&mut self, records: &[(&str, i64)]) -> Result<()> {
        let records = records.iter().map(|(name, number)| (name.to_string(), *number)).collect();
        self.operator.process(InputId(1), Batch::new(RecordBatch::new(records, None)), &mut self.out)
    }

    fn advance(&mut self, now: u64) -> Result<()> {
        self.hand.set(now);
        self.operator.on_processing_time(now, &mut self.out)
    }

    fn next_timer(&self) -> Option<u64> {
        self.context.keyed_state.as_ref().and_then(KeyedStateStore::next_timer)
    }

    fn emitted(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out.0)
    }
}

#[derive(Clone)]
struct Stamp;

impl ProcessFunction<String, String> for Stamp {
    fn process_element(
        &mut self,
        word: String,
        context: &ProcessContext<'_>,
        out: &mut Collector<String>,
    ) -> FunctionResult {
        out.collect(format!("{word} at {}", context.current_processing_time()));
        Ok(())
    }
}

#[test]
fn a_process_function_sees_the_time() {
    let mut tested = Tested::open(&FunctionFactory::new(Process(Stamp)), false, vec![]).unwrap();
    tested.words(&["a"]).unwrap();
    tested.hand.set(7000);
    tested.words(&["b"]).unwrap();
    assert_eq!(tested.emitted(), ["a at 1000", "b at 7000"]);
    assert_eq!(tested.next_timer(), None);
}

/// Tells a word's count two seconds after its first; `stop` deletes the timer, `again` registers another one when it
/// fires, `fail` fails then.
#[derive(Clone, Default)]
struct CountLater {
    count: ValueState<u64>,
    due: ValueState<Option<u64>>,
}

impl KeyedProcessFunction<String, String, String> for CountLater {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        self.due = context.value_state("due", None)?;
        Ok(())
    }

    fn process_element(
        &mut self,
        word: String,
        context: &KeyedProcessContext<'_, String>,
        _out: &mut Collector<String>,
    ) -> FunctionResult {
        assert_eq!(context.current_key()?, word);
        let timers = context.timer_service();
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        if count == 1 {
            let due = timers.current_processing_time() + 2000;
            timers.register_processing_time_timer(due)?;
            timers.register_processing_time_timer(due)?;
            self.due.set(Some(due))?;
        } else if word == "stop"
            && let Some(due) = self.due.get()?
        {
            timers.delete_processing_time_timer(due)?;
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        timestamp: u64,
        context: &KeyedProcessContext<'_, String>,
        out: &mut Collector<String>,
    ) -> FunctionResult {
        let word = context.current_key()?;
        if word == "fail" {
            return Err("no luck".into());
        }
        out.collect(format!("{word} {} at {timestamp}", self.count.get()?));
        if word == "again" && timestamp < 5000 {
            context.timer_service().register_processing_time_timer(timestamp + 1)?;
        }
        Ok(())
    }
}

fn count_later() -> Tested {
    Tested::open(&FunctionFactory::new(KeyedProcess::new(CountLater::default())), true, vec![]).unwrap()
}

#[test]
fn a_timer_fires_once_for_its_key_unless_it_was_deleted() {
    let mut tested = count_later();
    tested.words(&["a", "b", "a", "stop"]).unwrap();
    tested.hand.set(1500);
    tested.words(&["c", "a", "stop"]).unwrap();
    assert_eq!(tested.next_timer(), Some(3000));
    tested.advance(2999).unwrap();
    assert!(tested.emitted().is_empty());
    tested.advance(3000).unwrap();
    let mut emitted = tested.emitted();
    emitted.sort_unstable();
    assert_eq!(emitted, ["a 3 at 3000", "b 1 at 3000"]);
    tested.advance(9000).unwrap();
    assert_eq!(tested.emitted(), ["c 1 at 3500"]);
    assert_eq!(tested.next_timer(), None);
}

#[test]
fn a_timer_that_a_timer_registers_fires_when_its_time_has_come() {
    let mut tested = count_later();
    tested.words(&["again"]).unwrap();
    tested.advance(3000).unwrap();
    assert_eq!((tested.emitted(), tested.next_timer()), (vec!["again 1 at 3000".to_string()], Some(3001)));
    tested.advance(4000).unwrap();
    assert_eq!((tested.emitted(), tested.next_timer()), (vec!["again 1 at 3001".to_string()], Some(3002)));
}

#[test]
fn an_error_of_a_timer_says_that_it_was_one() {
    let mut tested = count_later();
    tested.words(&["fail"]).unwrap();
    let error = tested.advance(3000).unwrap_err();
    assert_eq!(error.message, "timer 1 of 1: no luck");
}

/// Keeps words that a broadcast rule names, with the rule's number.
#[derive(Clone, Default)]
struct Rules {
    rules: ReadOnlyBroadcastState<String, i64>,
    seen: Option<OperatorListState<String>>,
    counts: ValueState<i64>,
}

impl BroadcastProcessFunction<String, (String, i64), String> for Rules {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.rules = context.broadcast_state("rules")?;
        self.seen = Some(context.operator_state().union_list("seen")?);
        Ok(())
    }

    fn process_element(
        &mut self,
        word: String,
        _context: &ProcessContext<'_>,
        out: &mut Collector<String>,
    ) -> FunctionResult {
        if let Some(rule) = self.rules.get(&word)? {
            out.collect(format!("{word} {rule} of {}", self.rules.with(|rules| rules.len())?));
        }
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        (word, number): (String, i64),
        context: &BroadcastContext<'_>,
        _out: &mut Collector<String>,
    ) -> FunctionResult {
        self.seen.as_ref().ok_or("not open")?.add(word.clone());
        let rules = context.broadcast_state(&self.rules)?;
        if number < 0 {
            rules.remove(&word)
        } else {
            rules.put(word, number)
        }
        Ok(())
    }
}

impl KeyedBroadcastProcessFunction<String, String, (String, i64), String> for Rules {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.rules = context.broadcast_state("rules")?;
        self.counts = context.value_state("counts", 0)?;
        Ok(())
    }

    fn process_element(
        &mut self,
        word: String,
        context: &KeyedProcessContext<'_, String>,
        _out: &mut Collector<String>,
    ) -> FunctionResult {
        let timers = context.timer_service();
        timers.register_processing_time_timer(timers.current_processing_time() + 10)?;
        self.counts.modify(|count| *count += self.rules.get(&word).ok().flatten().unwrap_or(1))?;
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        (word, number): (String, i64),
        context: &BroadcastContext<'_>,
        _out: &mut Collector<String>,
    ) -> FunctionResult {
        if word == "keyed" {
            self.counts.set(1)?;
        }
        assert_eq!(context.current_processing_time(), 1000);
        context.broadcast_state(&self.rules)?.put(word, number);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _timestamp: u64,
        context: &KeyedProcessContext<'_, String>,
        out: &mut Collector<String>,
    ) -> FunctionResult {
        out.collect(format!("{} {}", context.current_key()?, self.counts.get()?));
        Ok(())
    }
}

#[test]
fn what_is_broadcast_is_seen_by_the_other_side_and_kept_in_a_checkpoint() {
    let factory = BroadcastFactory::<_, String, (String, i64), String>::new(BroadcastProcess::new(Rules::default()));
    let mut tested = Tested::open(&factory, false, vec![]).unwrap();
    tested.words(&["a"]).unwrap();
    tested.broadcast(&[("a", 1), ("b", 2), ("c", 3), ("b", -1)]).unwrap();
    tested.words(&["a", "b", "c"]).unwrap();
    assert_eq!(tested.emitted(), ["a 1 of 2", "c 3 of 2"]);
    let snapshot = tested.context.operator_state.snapshot().unwrap();
    let names: BTreeMap<_, _> = snapshot.iter().map(|list| (list.name.as_str(), list.items.len())).collect();
    assert_eq!(names, [("rules", 2), ("seen", 4)].into());
    let mut restored = Tested::open(&factory, false, snapshot).unwrap();
    restored.broadcast(&[("d", 4)]).unwrap();
    restored.words(&["c", "d"]).unwrap();
    assert_eq!(restored.emitted(), ["c 3 of 3", "d 4 of 3"]);
}

#[test]
fn a_keyed_stream_beside_a_broadcast_one_has_state_and_timers_and_the_broadcast_side_has_no_key() {
    let function = KeyedBroadcastProcess::<_, String, (String, i64)>::new(Rules::default());
    let factory = BroadcastFactory::<_, String, (String, i64), String>::new(function);
    let mut tested = Tested::open(&factory, true, vec![]).unwrap();
    tested.words(&["a", "b"]).unwrap();
    tested.broadcast(&[("a", 100)]).unwrap();
    tested.words(&["a", "b"]).unwrap();
    tested.advance(1010).unwrap();
    let mut emitted = tested.emitted();
    emitted.sort_unstable();
    assert_eq!(emitted, ["a 101", "b 2"]);
    tested.hand.set(1000);
    let error = tested.broadcast(&[("x", 0), ("keyed", 1)]).unwrap_err();
    assert!(error.message.starts_with("broadcast record 2 of 2") && error.message.contains("no key"), "{error}");
}

#[test]
fn broadcast_state_that_was_not_obtained_says_so() {
    let error = ReadOnlyBroadcastState::<i32, i32>::default().get(&1).unwrap_err();
    assert!(error.message.contains("open"), "{error}");
}
