//! The job's end: the log first, then the checkpoints, then the taskmanagers.

use std::{sync::Arc, time::Duration};

use millrace_core::{Error, Result, checkpoint::Retention};
use millrace_runtime::scheduler::JobResult;
use millrace_state::log::{LogError, TerminalRecord, TerminalResult};

use tokio::sync::mpsc;

use super::{Event, JobManager, JobOutcome, PeerEvent};
use crate::rpc::ToTaskManager;

/// How long taskmanagers may take to end with the job.
const FAREWELL: Duration = Duration::from_secs(5);

impl JobManager {
    /// Writes the result down beside the loop; the loop ends when that is done.
    pub(super) fn end(&mut self, result: JobResult) {
        self.ending = true;
        self.view.enter(result.status(), self.clock.now_ms());
        let retained = match &result {
            JobResult::Stopped | JobResult::Failed(_) => true,
            JobResult::Finished | JobResult::Canceled => self.checkpoints.retention == Retention::RetainOnCancellation,
        };
        let record = TerminalRecord { result: terminal(&result), checkpoints_retained: retained };
        let (storage, log, job) = (self.storage.clone(), Arc::clone(&self.log), self.job);
        let newest = self.coordinator.retained().last().filter(|_| !self.storage.is_volatile());
        let newest = newest.map(|id| self.storage.checkpoint_uri(self.job, *id));
        let events = self.events.clone();
        if matches!(result, JobResult::Failed(_)) && !self.has_run {
            // It could not be started: a refused checkpoint, an unknown topic. Once that is mended, the next jobmanager
            // goes on where the job stood, so the log says nothing of an end.
            let _ = events.send(Event::Ended(Ok(JobOutcome { result, retained_checkpoint: newest })));
            return;
        }
        tokio::spawn(async move {
            let mut log = log.lock().await;
            let written = log.append_terminal(record).await;
            let outcome = match written {
                Ok(_) if retained => Ok(JobOutcome { result, retained_checkpoint: newest }),
                Ok(_) => {
                    if let Err(error) = storage.delete_checkpoints(job).await {
                        tracing::warn!(%error, "checkpoints of the ended job were left behind");
                    }
                    Ok(JobOutcome { result, retained_checkpoint: None })
                }
                Err(LogError::Failed(error)) => {
                    let what = "the job has ended but its log can't be written, so it may be run again";
                    Err(error.context(what))
                }
                Err(error) => Err(error.into()),
            };
            let _ = events.send(Event::Ended(outcome));
        });
    }

    /// Another jobmanager has taken over: this one leaves everything as it is.
    pub(super) fn fenced(&mut self) {
        self.ending = true;
        let error = Error::external(format!(
            "a newer jobmanager has taken over job {}; this one, of generation {}, stops without touching anything",
            self.job, self.generation
        ));
        let _ = self.events.send(Event::Ended(Err(error.fatal())));
    }

    /// Tells everybody.
    pub(super) fn shut_down(&mut self, outcome: &Result<JobOutcome>) {
        match outcome {
            Ok(JobOutcome { result, retained_checkpoint }) => {
                tracing::info!(job = %self.job, status = %result.status(), retained_checkpoint, "the job has ended");
            }
            Err(error) => tracing::error!(job = %self.job, %error, "the jobmanager ends"),
        }
        self.publish();
        // Taskmanagers of a job that another jobmanager runs belong to that one.
        if outcome.is_ok() {
            let ids: Vec<_> = self.taskmanagers.keys().cloned().collect();
            for id in ids {
                self.send(&id, &ToTaskManager::Shutdown);
            }
        }
    }
}

impl JobManager {
    /// Waits until the taskmanagers have gone: what was sent to one that has not read it yet can be lost when this
    /// process ends, and it would look for a jobmanager.
    pub(super) async fn dismiss(&mut self, peers: &mut mpsc::UnboundedReceiver<PeerEvent>) {
        let all_gone = async {
            while !self.taskmanagers.is_empty() {
                match peers.recv().await {
                    Some(PeerEvent::Lost(id, _)) => drop(self.taskmanagers.remove(&id)),
                    Some(PeerEvent::Registered { location, slots, pid, sender }) => {
                        let id = location.id.clone();
                        self.on_peer(PeerEvent::Registered { location, slots, pid, sender });
                        self.send(&id, &ToTaskManager::Shutdown);
                    }
                    Some(PeerEvent::Message(..)) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(FAREWELL, all_gone).await.is_err() {
            let left: Vec<_> = self.taskmanagers.keys().map(ToString::to_string).collect();
            tracing::warn!(?left, "taskmanagers have not ended within {FAREWELL:?}");
        }
    }
}

fn terminal(result: &JobResult) -> TerminalResult {
    match result {
        JobResult::Finished | JobResult::Stopped => TerminalResult::Finished,
        JobResult::Canceled => TerminalResult::Canceled,
        JobResult::Failed(error) => TerminalResult::Failed { error: error.clone() },
    }
}

/// The result that the log holds of a job that has ended already.
pub fn recorded(record: &TerminalRecord) -> JobResult {
    match &record.result {
        TerminalResult::Finished => JobResult::Finished,
        TerminalResult::Canceled => JobResult::Canceled,
        TerminalResult::Failed { error } => JobResult::Failed(error.clone()),
    }
}
