//! What lies where the sink writes, and nobody will ever commit: zombies and the dead have left it, or a request that was
//! given up has taken effect in the end, when what it wrote was committed and removed already.

use std::{
    collections::BTreeSet,
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millrace_core::{Result, ids::JobAttempt, sink::WriterContext};

use super::store::{FileCommittable, PartStore, Waiting};
use crate::sweep::Sweeper;

/// The later after a failure, the less likely; and to look takes a listing.
const FIRST_SWEEP: Duration = Duration::from_secs(10);
const RAREST_SWEEP: Duration = Duration::from_secs(640);

/// Which of the parts that wait are whose.
#[derive(Clone, Debug)]
pub(super) struct LeftOver {
    /// Names the sink: a digest of its uid, since that may be anything.
    sink: String,
    subtask: u32,
    parallelism: u32,
    attempt: JobAttempt,
    /// What the restored checkpoint holds is committed, by whichever subtask gets it.
    held: BTreeSet<String>,
    /// The names of this writer's part files that are not settled yet.
    live: Arc<Mutex<BTreeSet<String>>>,
}

impl LeftOver {
    pub fn new(context: &WriterContext<FileCommittable>) -> Self {
        // FNV-1a: it must be the same in every version.
        let digest = context
            .uid
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let WriterContext { subtask, attempt, .. } = *context;
        let held = context.restored.iter().map(|held| held.waits_as().to_owned()).collect();
        let (sink, parallelism) = (format!("{digest:016x}"), context.parallelism.max(1));
        Self { sink, subtask, parallelism, attempt, held, live: Arc::default() }
    }

    /// What the names of this writer's parts begin with while they wait.
    pub fn label(&self) -> String {
        format!("{}-{}-{}-", self.sink, self.subtask, self.attempt)
    }

    /// This writer begins a part file of this name.
    pub fn begun(&self, name: &str) {
        self.live().insert(name.to_owned());
    }

    /// These were committed, and will not be again.
    pub fn settled(&self, committables: &[FileCommittable]) {
        let mut live = self.live();
        committables.iter().for_each(|settled| {
            live.remove(settled.file_name());
        });
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what is left when a writer starts.
    pub fn remove(&self, store: &dyn PartStore) -> Result<()> {
        // Nothing is begun yet, so that what has this attempt's name was left by a job of the same id. Labels were once
        // without attempts.
        let is_over = |of: Option<JobAttempt>| of.is_none_or(|of| of == self.attempt || self.attempt.supersedes(of));
        store.remove(&|waiting| self.has(waiting, is_over))
    }

    /// Removes what has been left since.
    pub fn sweep(&self, store: &dyn PartStore) -> Result<()> {
        // Of another job this may be the zombie itself.
        let is_over = |of: Option<JobAttempt>| of.is_some_and(|of| self.attempt.follows(of));
        let own = self.label();
        let is_settled = |waiting: &Waiting<'_>| {
            let name = waiting.labelled.strip_prefix(&own);
            name.is_some_and(|name| !self.live().contains(name))
        };
        store.remove(&|waiting| self.has(waiting, is_over) || is_settled(waiting))
    }

    /// Sweeps as long as the writer is there.
    pub fn watch(self, store: Arc<dyn PartStore>) -> Sweeper {
        let delays = iter::successors(Some(FIRST_SWEEP), |delay| Some((*delay * 2).min(RAREST_SWEEP)));
        Sweeper::start("file-left-over", delays, move || self.sweep(&*store))
    }

    /// Whether something that waits is this subtask's to remove: its own, and that of subtasks that are no more; but not
    /// what a later attempt has begun, which may be committed although this one does not know it yet.
    fn has(&self, waiting: &Waiting<'_>, is_over: impl Fn(Option<JobAttempt>) -> bool) -> bool {
        let label = waiting.labelled.strip_prefix(&self.sink).and_then(|rest| rest.strip_prefix('-'));
        let Some(mut parts) = label.map(|label| label.split('-')) else { return false };
        let subtask = parts.next().and_then(|subtask| subtask.parse::<u32>().ok());
        let attempt = parts.next().and_then(|attempt| attempt.parse().ok());
        subtask.is_some_and(|subtask| subtask % self.parallelism == self.subtask)
            && is_over(attempt)
            && !self.held.contains(waiting.name)
    }
}
