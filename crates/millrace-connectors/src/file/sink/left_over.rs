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
    unsettled: Arc<Mutex<Unsettled>>,
}

/// What must stay.
#[derive(Debug, Default)]
struct Unsettled {
    /// What the restored checkpoint holds, by whole names: it may be committed again.
    held: BTreeSet<String>,
    /// This writer's part files, by their numbers: all else of their names may be encoded.
    own: BTreeSet<u64>,
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
        let unsettled = Arc::new(Mutex::new(Unsettled { held, own: BTreeSet::new() }));
        Self { sink: format!("{digest:016x}"), subtask, parallelism: context.parallelism.max(1), attempt, unsettled }
    }

    /// What the names of this writer's parts begin with while they wait.
    pub fn label(&self) -> String {
        format!("{}-{}-{}-", self.sink, self.subtask, self.attempt)
    }

    /// This writer begins a part file of this name.
    pub fn begun(&self, name: &str) {
        self.unsettled().own.extend(number(name));
    }

    /// These were committed, and will not be again.
    pub fn settled(&self, committables: &[FileCommittable]) {
        let mut unsettled = self.unsettled();
        for settled in committables {
            // One that was restored has a number of another writer's.
            if !unsettled.held.remove(settled.waits_as())
                && let Some(number) = number(settled.file_name())
            {
                unsettled.own.remove(&number);
            }
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
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
            let number = waiting.labelled.strip_prefix(&own).and_then(number);
            number.is_some_and(|number| !self.unsettled().own.contains(&number))
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
            && !self.unsettled().held.contains(waiting.name)
    }
}

/// That of a part file: `part-<subtask>-<unique>-<number>`, and what its format appends.
fn number(file_name: &str) -> Option<u64> {
    let rest = file_name.splitn(4, '-').nth(3)?;
    rest[..rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}
