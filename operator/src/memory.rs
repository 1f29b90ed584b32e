//! What the operator keeps of each job between two reconciles. Nothing of it is needed: an operator that starts again
//! asks once more what it had asked already.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::apply::Applied;

/// What is kept of a job.
#[derive(Clone, Debug, Default)]
pub struct JobMemory {
    /// What was applied last.
    pub applied: Option<Applied>,
    /// What the API server refused of it.
    pub refused: Option<String>,
    /// The job id that a jobmanager was asked to delete.
    pub discard_asked: Option<String>,
    /// Whether the namespace was found to be terminating.
    pub namespace_terminating: bool,
    /// Reconciles that failed in a row.
    pub failures: u32,
}

/// What is kept of all jobs, by their uid.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, JobMemory>>);

impl Memory {
    /// What is kept of a job.
    pub fn of(&self, uid: &str) -> JobMemory {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is kept of a job.
    pub fn update<T>(&self, uid: &str, change: impl FnOnce(&mut JobMemory) -> T) -> T {
        let mut jobs = self.lock();
        if !jobs.contains_key(uid) {
            jobs.insert(uid.to_owned(), JobMemory::default());
        }
        change(jobs.get_mut(uid).expect("it was just inserted"))
    }

    /// Forgets a job that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, JobMemory>> {
        // A panic under the lock can't leave it half changed: entries are replaced field by field.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
