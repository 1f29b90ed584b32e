//! The suite for sinks finds what it is for: it passes a right sink and fails each wrong one.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use millrace_core::{
    Result,
    sink::{Committer, CommitterContext, Sink, SinkWriter, WriterContext, lost},
};
use millrace_testkit::conformance::sink::{SinkUnderTest, sink_conformance};

/// What is wrong with a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Records are visible when they are written.
    NoTransactions,
    /// A commit that is repeated writes again.
    CommitsTwice,
    /// A start aborts what is open, also what its checkpoint holds for another subtask.
    AbortsWhatIsHeld,
    /// A writer that ends aborts what it has prepared.
    AbortsPrepared,
    /// What was left open by dead starts stays.
    CleansNothingUp,
    /// A committable that only this process understands.
    ForgetsCommits,
}

#[derive(Default)]
struct Store {
    visible: Vec<String>,
    open: BTreeMap<u64, Vec<String>>,
    committed: BTreeMap<u64, Vec<String>>,
    next: u64,
}

#[derive(Clone)]
struct MySink {
    store: Arc<Mutex<Store>>,
    mistake: Mistake,
}

struct MyWriter {
    sink: MySink,
    transaction: Option<u64>,
    prepared: Vec<u64>,
}

impl Sink for MySink {
    type Record = String;
    type Committable = u64;

    fn create_writer(&self, context: &mut WriterContext<u64>) -> Result<Box<dyn SinkWriter<String, u64>>> {
        let held: BTreeSet<u64> = context.restored.iter().copied().collect();
        let mut store = self.store.lock().unwrap();
        // Subtasks start one after the other: the one that does so first cleans up.
        if self.mistake != Mistake::CleansNothingUp && context.subtask + 1 == context.parallelism {
            let aborts_all = self.mistake == Mistake::AbortsWhatIsHeld;
            store.open.retain(|transaction, _| held.contains(transaction) && !aborts_all);
        }
        Ok(Box::new(MyWriter { sink: self.clone(), transaction: None, prepared: Vec::new() }))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<u64>>> {
        Ok(Box::new(MyWriter { sink: self.clone(), transaction: None, prepared: Vec::new() }))
    }
}

impl SinkWriter<String, u64> for MyWriter {
    fn write(&mut self, records: Vec<String>) -> Result<()> {
        let mut store = self.sink.store.lock().unwrap();
        if self.sink.mistake == Mistake::NoTransactions {
            store.visible.extend(records);
            return Ok(());
        }
        let transaction = *self.transaction.get_or_insert_with(|| {
            store.next += 1;
            store.next
        });
        store.open.entry(transaction).or_default().extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<u64>> {
        self.prepared.extend(self.transaction);
        Ok(self.transaction.take().into_iter().collect())
    }
}

impl Drop for MyWriter {
    fn drop(&mut self) {
        let mut store = self.sink.store.lock().unwrap();
        let prepared = if self.sink.mistake == Mistake::AbortsPrepared { &self.prepared[..] } else { &[] };
        for transaction in self.transaction.iter().chain(prepared) {
            store.open.remove(transaction);
        }
    }
}

impl Committer<u64> for MyWriter {
    fn commit(&mut self, committables: &[u64]) -> Result<()> {
        let mut store = self.sink.store.lock().unwrap();
        for transaction in committables {
            match (store.open.remove(transaction), store.committed.get(transaction).cloned()) {
                (Some(_), _) if self.sink.mistake == Mistake::ForgetsCommits => {}
                (Some(records), _) => {
                    store.visible.extend(records.clone());
                    store.committed.insert(*transaction, records);
                }
                (None, Some(records)) if self.sink.mistake == Mistake::CommitsTwice => store.visible.extend(records),
                (None, Some(_)) => {}
                (None, None) if self.sink.mistake == Mistake::ForgetsCommits => {}
                (None, None) => return Err(lost(format!("transaction {transaction}"))),
            }
        }
        Ok(())
    }
}

impl SinkUnderTest for MySink {
    type Sink = MySink;

    fn sink(&self) -> MySink {
        self.clone()
    }

    fn visible(&mut self) -> Vec<String> {
        self.store.lock().unwrap().visible.clone()
    }

    fn left_over(&mut self) -> Vec<String> {
        self.store.lock().unwrap().open.keys().map(u64::to_string).collect()
    }

    fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_millis(100)
    }
}

fn run(mistake: Mistake) -> Result<(), String> {
    let mut sink = MySink { store: Arc::default(), mistake };
    catch_unwind(AssertUnwindSafe(|| sink_conformance(&mut sink))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

#[test]
fn a_right_sink_passes() {
    run(Mistake::None).unwrap();
}

#[test]
fn each_mistake_is_found_and_named() {
    for (mistake, named) in [
        (Mistake::NoTransactions, "no checkpoint covers"),
        (Mistake::CommitsTwice, "visible twice"),
        (Mistake::AbortsWhatIsHeld, "can't be committed"),
        (Mistake::AbortsPrepared, "can't be committed"),
        (Mistake::CleansNothingUp, "leaves behind"),
        (Mistake::ForgetsCommits, "are not visible"),
    ] {
        let found = run(mistake).expect_err(&format!("{mistake:?} is not found"));
        assert!(found.contains(named), "{mistake:?}: {found}");
    }
}
