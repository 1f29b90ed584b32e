//! What every sink that commits must do, ours and a user's own: [`sink_conformance`] kills it at every step.
//!
//! ```no_run
//! use millrace_core::{Result, sink::*};
//! use millrace_testkit::conformance::sink::{SinkUnderTest, sink_conformance};
//! # struct MySink;
//! # impl Sink for MySink {
//! #     type Record = String;
//! #     type Committable = u64;
//! #     fn create_writer(&self, _: &mut WriterContext<u64>) -> Result<Box<dyn SinkWriter<String, u64>>> { todo!() }
//! #     fn create_committer(&self, _: &CommitterContext) -> Result<Box<dyn Committer<u64>>> { todo!() }
//! # }
//!
//! struct Mine;
//!
//! impl SinkUnderTest for Mine {
//!     type Sink = MySink;
//!
//!     fn sink(&self) -> MySink {
//!         MySink
//!     }
//!
//!     fn visible(&mut self) -> Vec<String> {
//!         // what a reader of the sink's output sees now
//! #       Vec::new()
//!     }
//! }
//!
//! sink_conformance(&mut Mine);
//! ```

mod engine;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{Result, sink::Sink};

use engine::{Checkpoint, Engine};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How often a job that fails of itself is started again.
const ATTEMPTS: u32 = 5;
/// Records of one round, and keys.
const RECORDS: u64 = 12;
const KEYS: u64 = 5;

/// A sink, and a reader of what it writes.
pub trait SinkUnderTest {
    /// The sink.
    type Sink: Sink<Record = String>;

    /// The sink as every process of a job would make it.
    fn sink(&self) -> Self::Sink;

    /// What a reader sees now, in the order in which it sees it.
    fn visible(&mut self) -> Vec<String>;

    /// Whether readers see the records of a key in their order.
    fn is_ordered(&self) -> bool {
        true
    }

    /// So long a reader may have to wait for what was committed.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// What is left behind when the job has ended that is no output: files, uploads, open transactions.
    fn left_over(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Where a job dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records are written, and no barrier has come.
    Written,
    /// One subtask has prepared.
    Preparing,
    /// All have prepared; the checkpoint is never complete.
    Prepared,
    /// The checkpoint is complete, and nobody has been told.
    Completed,
    /// One subtask has committed.
    Committing,
    /// All have committed, and nobody knows.
    Committed,
    /// It is restored, and one subtask has committed what the checkpoint held.
    Restoring,
    /// It is restored, and nothing is written yet.
    Restored,
}

/// All steps, in their order.
pub const STEPS: [Step; 8] = [
    Step::Written,
    Step::Preparing,
    Step::Prepared,
    Step::Completed,
    Step::Committing,
    Step::Committed,
    Step::Restoring,
    Step::Restored,
];

/// How a job dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Its writers are dropped, as when a task fails.
    Dropped,
    /// They are not, as when a process is killed; they may go on as zombies.
    Killed,
}

/// Kills a job at every step, in both ways, with a change of parallelism between, and checks all the while that readers
/// see what checkpoints have committed: each record once, and the records of a key in order. Panics where they don't.
pub fn sink_conformance<U: SinkUnderTest>(under_test: &mut U) {
    let mut run = Run { sink: under_test.sink(), under_test, position: 0, ids: 0, restored_from: None };
    for death in [Death::Dropped, Death::Killed] {
        for (step, parallelism) in STEPS.into_iter().zip([2, 1, 3, 2].into_iter().cycle()) {
            run.die_at(step, death, parallelism);
        }
    }
    run.finish();
}

struct Run<'a, U: SinkUnderTest> {
    under_test: &'a mut U,
    sink: U::Sink,
    /// The next record that the source would yield.
    position: u64,
    /// The last checkpoint id.
    ids: u64,
    restored_from: Option<Checkpoint<<U::Sink as Sink>::Committable>>,
}

impl<U: SinkUnderTest> Run<'_, U> {
    /// Dies at a step. A job that fails of itself is started again from its last checkpoint, as the engine does: a dead
    /// start of it that goes on as a zombie may have got in its way.
    fn die_at(&mut self, step: Step, death: Death, parallelism: u32) {
        let context = format!("a job that dies at {step:?} ({death:?}) with {parallelism} subtasks");
        self.persist(&context, |run| run.try_to_die_at(step, death, parallelism, &context));
        self.check(&context);
    }

    fn persist(&mut self, context: &str, mut attempt: impl FnMut(&mut Self) -> Result<()>) {
        for _ in 0..ATTEMPTS {
            match attempt(self) {
                Ok(()) => return,
                Err(error) if error.retryable => eprintln!("{context} is started again: {error}"),
                Err(error) => panic!("{context}: {error}"),
            }
        }
        panic!("{context} has failed {ATTEMPTS} times");
    }

    /// Starts at a parallelism, lets a checkpoint be declined and one complete, and dies at a step of the next.
    fn try_to_die_at(&mut self, step: Step, death: Death, parallelism: u32, context: &str) -> Result<()> {
        if matches!(step, Step::Restoring | Step::Restored) {
            let dying = Engine::start(&self.sink, parallelism, self.restored_from.as_ref(), step == Step::Restoring)?;
            dying.end(death == Death::Killed);
        }
        let mut engine = self.start(parallelism)?;
        self.committed_is_visible(context);
        // One that is declined joins the next, which is complete.
        self.write(&mut engine)?;
        engine.prepare(self.next_id(), parallelism)?;
        self.write(&mut engine)?;
        self.complete(&mut engine, parallelism)?;
        self.committed_is_visible(context);
        self.write(&mut engine)?;
        match step {
            Step::Written | Step::Restoring | Step::Restored => {}
            Step::Preparing => engine.prepare(self.next_id(), 1)?,
            Step::Prepared => engine.prepare(self.next_id(), parallelism)?,
            Step::Completed | Step::Committing | Step::Committed => {
                let id = self.next_id();
                engine.prepare(id, parallelism)?;
                self.restored_from = Some(engine.snapshot(self.position));
                let committing = match step {
                    Step::Completed => 0,
                    Step::Committing => 1,
                    _ => parallelism,
                };
                engine.commit(id, committing)?;
            }
        }
        engine.end(death == Death::Killed);
        Ok(())
    }

    fn start(&mut self, parallelism: u32) -> Result<Engine<U::Sink>> {
        let engine = Engine::start(&self.sink, parallelism, self.restored_from.as_ref(), false)?;
        self.position = self.restored_from.as_ref().map_or(0, |checkpoint| checkpoint.position);
        Ok(engine)
    }

    fn write(&mut self, engine: &mut Engine<U::Sink>) -> Result<()> {
        engine.write((self.position..self.position + RECORDS).map(|n| (n % KEYS, record(n))))?;
        self.position += RECORDS;
        Ok(())
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn complete(&mut self, engine: &mut Engine<U::Sink>, parallelism: u32) -> Result<()> {
        let id = self.next_id();
        engine.prepare(id, parallelism)?;
        self.restored_from = Some(engine.snapshot(self.position));
        engine.commit(id, parallelism)
    }

    /// The job ends, with a final checkpoint.
    fn finish(&mut self) {
        let context = "a job that has ended";
        self.persist(context, |run| {
            let mut engine = run.start(1)?;
            run.write(&mut engine)?;
            run.complete(&mut engine, 1)?;
            run.committed_is_visible(context);
            engine.end(false);
            Ok(())
        });
        let patience = self.under_test.patience();
        let give_up = Instant::now() + patience;
        loop {
            let left = self.under_test.left_over();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < give_up, "{context} leaves behind {left:?}");
            thread::sleep(POLL);
        }
        assert_eq!(self.under_test.visible().len() as u64, self.position);
    }

    /// Waits until all that was committed is visible, within a bounded time.
    fn committed_is_visible(&mut self, context: &str) {
        let committed = self.restored_from.as_ref().map_or(0, |checkpoint| checkpoint.position);
        let patience = self.under_test.patience();
        let give_up = Instant::now() + patience;
        loop {
            let visible = self.check(context);
            let missing: Vec<_> = (0..committed).map(record).filter(|record| !visible.contains(record)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "{context}: {} of {committed} committed records are not visible after {patience:?}: {missing:?}",
                missing.len()
            );
            thread::sleep(POLL);
        }
    }

    /// Nothing is visible twice, none that is not covered by a checkpoint, and each key's are in order.
    fn check(&mut self, context: &str) -> BTreeSet<String> {
        let visible = self.under_test.visible();
        let covered = self.restored_from.as_ref().map_or(0, |checkpoint| checkpoint.position);
        let mut last = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in visible {
            assert!(seen.insert(record.clone()), "{context}: {record:?} is visible twice");
            let number: u64 = record.strip_prefix("record-").and_then(|n| n.parse().ok()).unwrap_or_else(|| {
                panic!("{context}: {record:?} is visible, which was never written");
            });
            assert!(number < covered, "{context}: {record:?} is visible, and no checkpoint covers more than {covered}");
            let before = last.insert(number % KEYS, number);
            let in_order = before.is_none_or(|before| before < number) || !self.under_test.is_ordered();
            assert!(in_order, "{context}: {record:?} is visible after record-{before:?} of the same key");
        }
        seen
    }
}

fn record(number: u64) -> String {
    format!("record-{number:06}")
}
