//! Operators for the tests.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use millrace_core::{
    Batch, Error, RecordBatch, Result,
    ids::{InputId, OutputId},
    operator_state::OperatorListState,
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};
use millrace_state::{KeyedStateStore, ValueState};

use crate::numbers::Event;

/// Makes operators with a closure.
pub struct Factory<F>(pub F);

impl<F: Fn() -> Box<dyn Operator> + Send + Sync> OperatorFactory for Factory<F> {
    fn create(&self) -> Box<dyn Operator> {
        (self.0)()
    }
}

/// Stops whoever passes until the test lets it.
#[derive(Default)]
pub struct Turnstile {
    /// How many calls may pass, how many have come, how many have passed.
    state: Mutex<(u64, u64, u64)>,
    changed: Condvar,
}

impl Turnstile {
    /// Lets as many more calls pass.
    pub fn let_pass(&self, calls: u64) {
        let mut state = self.state.lock().unwrap();
        state.0 = state.0.saturating_add(calls);
        self.changed.notify_all();
    }

    /// Whether a call waits that none of those that may pass is.
    pub fn is_stopping(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.0 == 0 && state.1 > state.2
    }

    /// How many calls have come, those that wait included.
    pub fn arrived(&self) -> u64 {
        self.state.lock().unwrap().1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        state = self.changed.wait_while(state, |state| state.0 == 0).unwrap();
        state.0 -= 1;
        state.2 += 1;
    }
}

/// What a test sees of its sinks.
#[derive(Default)]
pub struct Seen {
    /// Every event, with the sink's subtask, in the order of each sink.
    pub events: Mutex<Vec<(u32, Event)>>,
    /// The sizes of the batches.
    pub batches: Mutex<Vec<usize>>,
    /// How many sinks were closed.
    pub closed: AtomicUsize,
    /// The keyed counts, each with its key.
    pub counts: Mutex<Vec<(u64, u64)>>,
}

impl Seen {
    /// How many events have arrived.
    pub fn len(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

/// Notes the subtask that an event passes.
pub struct Map(u32);

impl Map {
    pub fn factory() -> Arc<dyn OperatorFactory> {
        Arc::new(Factory(|| Box::new(Self(0)) as _))
    }
}

impl Operator for Map {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.0 = context.subtask;
        Ok(())
    }

    fn process(&mut self, _: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut batch = batch.into_typed::<Event>()?;
        batch.records.iter_mut().for_each(|event| event.via = self.0);
        out.emit(OutputId(0), Batch::new(RecordBatch::new(batch.records, None)))
    }
}

/// Takes its time for each event.
pub struct Slow(Duration);

impl Slow {
    pub fn factory(per_event: Duration) -> Arc<dyn OperatorFactory> {
        Arc::new(Factory(move || Box::new(Self(per_event)) as _))
    }
}

impl Operator for Slow {
    fn open(&mut self, _: &mut OperatorContext) -> Result<()> {
        Ok(())
    }

    fn process(&mut self, _: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let (started, time) = (Instant::now(), self.0 * batch.len() as u32);
        while started.elapsed() < time {
            std::hint::spin_loop();
        }
        out.emit(OutputId(0), batch)
    }
}

/// Fails on an event's number, by error or by panic.
pub struct FailOn {
    number: u64,
    error: Option<Error>,
}

impl FailOn {
    pub fn factory(number: u64, error: Option<Error>) -> Arc<dyn OperatorFactory> {
        Arc::new(Factory(move || Box::new(Self { number, error: error.clone() }) as _))
    }
}

impl Operator for FailOn {
    fn open(&mut self, _: &mut OperatorContext) -> Result<()> {
        Ok(())
    }

    fn process(&mut self, _: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let events = batch.as_typed::<Event>().expect("a batch of events");
        if events.records.iter().any(|event| event.number == self.number) {
            match &self.error {
                Some(error) => return Err(error.clone()),
                None => panic!("number {} is cursed", self.number),
            }
        }
        out.emit(OutputId(0), batch)
    }
}

/// Collects what arrives and counts it: in an operator list, and by key where it is behind a `key_by`.
pub struct Sink {
    seen: Arc<Seen>,
    turnstile: Option<Arc<Turnstile>>,
    subtask: u32,
    count: Option<OperatorListState<u64>>,
    keyed: Option<(KeyedStateStore, ValueState<u64>)>,
}

impl Sink {
    pub fn factory(seen: &Arc<Seen>, turnstile: Option<&Arc<Turnstile>>) -> Arc<dyn OperatorFactory> {
        let (seen, turnstile) = (Arc::clone(seen), turnstile.cloned());
        Arc::new(Factory(move || {
            Box::new(Self {
                seen: Arc::clone(&seen),
                turnstile: turnstile.clone(),
                subtask: 0,
                count: None,
                keyed: None,
            }) as _
        }))
    }
}

impl Operator for Sink {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.subtask = context.subtask;
        self.count = Some(context.operator_state.list("count")?);
        if let Some(store) = &context.keyed_state {
            self.keyed = Some((store.clone(), store.value("by-key", 0u64)?));
        }
        Ok(())
    }

    fn process(&mut self, _: InputId, batch: Batch, _: &mut dyn Output) -> Result<()> {
        if let Some(turnstile) = &self.turnstile {
            turnstile.pass();
        }
        let batch = batch.into_typed::<Event>()?;
        if let Some(count) = &self.count {
            let before = count.get().iter().sum::<u64>();
            count.update(vec![before + batch.records.len() as u64]);
        }
        if let (Some((store, state)), Some(keys)) = (&self.keyed, batch.keys) {
            store.begin_batch(keys);
            let mut counts = self.seen.counts.lock().unwrap();
            for (index, event) in batch.records.iter().enumerate() {
                store.select(index);
                let count = state.modify(|count| {
                    *count += 1;
                    *count
                })?;
                counts.push((event.number, count));
            }
            store.end_batch();
        }
        self.seen.batches.lock().unwrap().push(batch.records.len());
        self.seen.events.lock().unwrap().extend(batch.records.into_iter().map(|event| (self.subtask, event)));
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.seen.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
