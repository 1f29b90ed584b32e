//! The sources' splits: which there are, who reads them, and the thread that looks for new ones.
//!
//! Enumerators may block (they ask brokers and list directories), and a Kafka client must not be dropped on an
//! asynchronous thread; so each attempt has one plain thread that owns them all and ends with the attempt.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use millrace_core::{
    Result,
    ids::{Attempt, TaskId, VertexId},
    source::{Discovery, EnumeratorContext},
};
use millrace_runtime::{
    graph::JobGraph,
    source::{EncodedSplit, ErasedEnumerator},
};

/// The splits of each source vertex.
pub type SplitsByVertex = BTreeMap<VertexId, Vec<EncodedSplit>>;
/// The splits of each source subtask.
pub type SplitsByTask = BTreeMap<TaskId, Vec<EncodedSplit>>;

/// The splits that an attempt begins with.
#[derive(Clone, Debug, Default)]
pub struct InitialSplits {
    /// The splits of each source subtask.
    pub splits: SplitsByTask,
    /// The sources that may find more later.
    pub open: BTreeSet<VertexId>,
}

/// What the thread finds.
pub enum Found {
    /// The splits that the attempt begins with.
    Initial(Attempt, Result<InitialSplits>),
    /// New splits under the running job.
    More(Attempt, SplitsByTask),
    /// Looking for new ones failed for good.
    Failed(Attempt, millrace_core::Error),
}

/// The enumerators of an attempt. Dropping it ends their thread.
pub struct Enumerators {
    /// Told when the attempt runs; closed when it is over.
    running: mpsc::Sender<()>,
}

impl Enumerators {
    /// Starts the thread. `restored` are the splits of the checkpoint that the attempt starts from; without one the
    /// start positions are resolved now. What is found goes to `report`.
    pub fn start(
        graph: Arc<JobGraph>,
        attempt: Attempt,
        restored: Option<SplitsByVertex>,
        report: impl Fn(Found) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (running, is_running) = mpsc::channel();
        std::thread::Builder::new().name("split-enumerators".to_string()).spawn(move || {
            let (known, discovery) = match restored {
                Some(known) => (known, Discovery::Later),
                None => (SplitsByVertex::new(), Discovery::Initial),
            };
            let mut sources = match Sources::create(&graph, known) {
                Ok(sources) => sources,
                Err(error) => return report(Found::Initial(attempt, Err(error))),
            };
            let first = sources.initial(discovery);
            let failed = first.is_err();
            report(Found::Initial(attempt, first));
            // New splits are handed out only to tasks that run.
            if !failed && is_running.recv().is_ok() {
                sources.watch(&is_running, |found| report(found(attempt)));
            }
        })?;
        Ok(Self { running })
    }

    /// Starts the thread for tasks that have these splits: it looks for new ones alone. Where some of the tasks start
    /// again, they are told to begin with `initial`.
    pub fn go_on(
        graph: Arc<JobGraph>,
        attempt: Attempt,
        splits: BTreeMap<TaskId, Vec<String>>,
        initial: Option<SplitsByTask>,
        report: impl Fn(Found) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (running, is_running) = mpsc::channel();
        std::thread::Builder::new().name("split-enumerators".to_string()).spawn(move || {
            let mut sources = match Sources::create(&graph, SplitsByVertex::new()) {
                Ok(sources) => sources,
                Err(error) => return report(Found::Failed(attempt, error)),
            };
            sources.0.iter_mut().for_each(|source| source.take_over(&splits));
            if let Some(splits) = initial {
                report(Found::Initial(attempt, Ok(sources.again(splits))));
                // New splits are handed out only to tasks that run.
                if is_running.recv().is_err() {
                    return;
                }
            }
            sources.watch(&is_running, |found| report(found(attempt)));
        })?;
        Ok(Self { running })
    }

    /// The attempt's tasks run: new splits may be handed to them.
    pub fn tasks_run(&self) {
        // The thread has ended where no source can find more.
        let _ = self.running.send(());
    }
}

/// A source's enumerator and what it has found.
struct SourceSplits {
    vertex: VertexId,
    parallelism: u32,
    enumerator: Box<dyn ErasedEnumerator>,
    /// How many splits each subtask reads.
    load: Vec<usize>,
    known: BTreeSet<String>,
    restored: Vec<EncodedSplit>,
    next_look: Option<Instant>,
    warned: bool,
}

struct Sources(Vec<SourceSplits>);

impl Sources {
    fn create(graph: &JobGraph, mut restored: SplitsByVertex) -> Result<Self> {
        let mut sources = Vec::new();
        for vertex in &graph.vertices {
            let Some(source) = &vertex.source else { continue };
            let context = EnumeratorContext { parallelism: vertex.parallelism };
            sources.push(SourceSplits {
                vertex: vertex.id,
                parallelism: vertex.parallelism,
                enumerator: source.source.create_enumerator(&context)?,
                load: vec![0; vertex.parallelism as usize],
                known: BTreeSet::new(),
                restored: restored.remove(&vertex.id).unwrap_or_default(),
                next_look: None,
                warned: false,
            });
        }
        Ok(Self(sources))
    }

    fn initial(&mut self, discovery: Discovery) -> Result<InitialSplits> {
        let mut all = InitialSplits::default();
        for source in &mut self.0 {
            let mut splits = std::mem::take(&mut source.restored);
            source.known = splits.iter().map(|split| split.id.clone()).collect();
            if discovery == Discovery::Later && source.enumerator.discovery_interval().is_some() {
                // A recovery does not wait for what may be new: that is looked for once the tasks run.
                source.next_look = Some(Instant::now());
            } else {
                splits.extend(source.enumerator.discover(&source.known, discovery)?);
            }
            all.splits.extend(source.deal(splits));
            if source.enumerator.discovery_interval().is_some() {
                all.open.insert(source.vertex);
            }
        }
        Ok(all)
    }

    /// What tasks begin with that start again. What they were given since is found at once.
    fn again(&mut self, splits: SplitsByTask) -> InitialSplits {
        let mut open = BTreeSet::new();
        for source in self.0.iter_mut().filter(|source| source.enumerator.discovery_interval().is_some()) {
            source.next_look = Some(Instant::now());
            open.insert(source.vertex);
        }
        InitialSplits { splits, open }
    }

    /// Looks for new splits, each source in its interval, until the other end of `is_running` is gone.
    fn watch(&mut self, is_running: &mpsc::Receiver<()>, report: impl Fn(&dyn Fn(Attempt) -> Found)) {
        for source in self.0.iter_mut().filter(|source| source.next_look.is_none()) {
            source.schedule();
        }
        while let Some(next) = self.0.iter().filter_map(|source| source.next_look).min() {
            let wait = next.saturating_duration_since(Instant::now());
            match is_running.recv_timeout(wait) {
                Ok(()) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            for source in self.0.iter_mut().filter(|source| source.next_look.is_some_and(|at| at <= Instant::now())) {
                source.schedule();
                match source.look() {
                    Ok(splits) if splits.is_empty() => {}
                    Ok(splits) => report(&|attempt| Found::More(attempt, splits.clone())),
                    Err(error) => return report(&|attempt| Found::Failed(attempt, error.clone())),
                }
            }
        }
    }
}

impl SourceSplits {
    /// Its readers have these splits.
    fn take_over(&mut self, splits: &BTreeMap<TaskId, Vec<String>>) {
        for (task, ids) in splits.iter().filter(|(task, _)| task.vertex == self.vertex) {
            if let Some(load) = self.load.get_mut(task.subtask as usize) {
                *load = ids.len();
            }
            self.known.extend(ids.iter().cloned());
        }
    }

    fn schedule(&mut self) {
        let interval = self.enumerator.discovery_interval();
        self.next_look = interval.map(|interval| Instant::now() + interval.max(Duration::from_millis(1)));
    }

    /// New splits; an outside that does not answer now may do so at the next look.
    fn look(&mut self) -> Result<SplitsByTask> {
        match self.enumerator.discover(&self.known, Discovery::Later) {
            Ok(splits) => {
                self.warned = false;
                Ok(self.deal(splits))
            }
            Err(error) if error.retryable => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(vertex = %self.vertex, %error, "can't look for new splits; trying again");
                }
                Ok(SplitsByTask::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives each split to the subtask that has the fewest.
    fn deal(&mut self, mut splits: Vec<EncodedSplit>) -> SplitsByTask {
        splits.sort_by(|a, b| a.id.cmp(&b.id));
        let mut dealt = SplitsByTask::new();
        for split in splits {
            self.known.insert(split.id.clone());
            let subtask = (0..self.parallelism).min_by_key(|subtask| self.load[*subtask as usize]).unwrap_or(0);
            self.load[subtask as usize] += 1;
            dealt.entry(TaskId { vertex: self.vertex, subtask }).or_default().push(split);
        }
        dealt
    }
}
