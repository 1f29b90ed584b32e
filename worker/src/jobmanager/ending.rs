//! The job's end: the log first, then the checkpoints, then the taskmanagers.

use std::{sync::Arc, time::Duration};

use millrace_core::{Error, Result, checkpoint::Retention, rest::JobStatus};
use millrace_runtime::scheduler::JobResult;
use millrace_state::log::{LogError, TerminalRecord, TerminalResult};
use tokio::sync::mpsc;

use super::{
    Event, JobManager, JobOutcome, PeerEvent,
    deletion::{delete_from, left_behind},
};
use crate::rpc::ToTaskManager;

/// How long taskmanagers may take to end with the job.
const FAREWELL: Duration = Duration::from_secs(5);

impl JobManager {
    /// Writes the result down beside the loop; the loop ends when that is done.
    pub(super) fn end(&mut self, result: JobResult) {
        self.ending = true;
        // How it ended is shown once that is in the log: who sees it may end this process.
        match &result {
            JobResult::Failed(_) => self.view.enter(JobStatus::Failing, self.clock.now_ms()),
            JobResult::Canceled => self.view.enter(JobStatus::Cancelling, self.clock.now_ms()),
            JobResult::Finished | JobResult::Stopped => {}
        }
        let retained = match &result {
            _ if self.delete => false,
            JobResult::Stopped | JobResult::Failed(_) => true,
            JobResult::Finished | JobResult::Canceled => self.checkpoints.retention == Retention::RetainOnCancellation,
        };
        let deployment = self.settings.deployment;
        let record = TerminalRecord { result: terminal(&result), checkpoints_retained: retained, deployment };
        let (storage, log, job) = (self.storage.clone(), Arc::clone(&self.log), self.job);
        let newest = self.coordinator.retained().last().filter(|_| !self.storage.is_volatile());
        let newest = newest.map(|id| self.storage.checkpoint_uri(self.job, *id));
        let events = self.events.clone();
        if matches!(result, JobResult::Failed(_)) && !self.has_run {
            // It could not be started: a refused checkpoint, an unknown topic. Once that is mended, the next jobmanager
            // goes on where the job stood, so the log says nothing of an end.
            let outcome = JobOutcome { result, retained_checkpoint: newest, left_behind: None };
            let _ = events.send(Event::Ended(Ok(outcome)));
            return;
        }
        let delete = self.delete;
        tokio::spawn(async move {
            let mut log = log.lock().await;
            let written = log.append_terminal(record).await;
            let outcome = match written {
                Ok(_) if retained => Ok(JobOutcome { result, retained_checkpoint: newest, left_behind: None }),
                // All of it is deleted when its taskmanagers have gone.
                Ok(_) if delete => Ok(JobOutcome { result, retained_checkpoint: None, left_behind: None }),
                Ok(_) => {
                    let deleted = storage.delete_checkpoints(job).await;
                    let left = deleted.err().map(|error| left_behind(&storage, job, &error));
                    if let Some(left) = &left {
                        tracing::warn!("checkpoints of the ended job were left behind: {left}");
                    }
                    Ok(JobOutcome { result, retained_checkpoint: None, left_behind: left })
                }
                Err(LogError::Failed(error)) if delete => {
                    let left_behind = Some(left_behind(&storage, job, &error));
                    Ok(JobOutcome { result, retained_checkpoint: None, left_behind })
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
            "a newer jobmanager has taken over job {}, or it was deleted; this one, of generation {}, stops without \
             touching anything",
            self.job, self.generation
        ));
        let _ = self.events.send(Event::Ended(Err(error.fatal())));
    }

    /// The job's end is written down, or this jobmanager can't go on: tells everybody.
    pub(super) async fn conclude(
        &mut self,
        mut outcome: Result<JobOutcome>,
        peers: &mut mpsc::UnboundedReceiver<PeerEvent>,
    ) -> Result<JobOutcome> {
        match &mut outcome {
            Ok(outcome) => {
                let JobOutcome { result, retained_checkpoint, .. } = &*outcome;
                tracing::info!(job = %self.job, status = %result.status(), retained_checkpoint, "the job has ended");
                if self.delete {
                    // Whoever still writes files must be gone before they are looked for.
                    self.dismiss(peers).await;
                    if outcome.left_behind.is_none() {
                        outcome.left_behind = delete_from(&self.storage, self.job).await;
                    }
                    outcome.retained_checkpoint = None;
                    self.show_end(JobStatus::Canceled, outcome);
                } else {
                    self.show_end(outcome.result.status(), outcome);
                    self.dismiss(peers).await;
                }
            }
            // Taskmanagers of a job that another jobmanager runs belong to that one.
            Err(error) => tracing::error!(job = %self.job, %error, "the jobmanager ends"),
        }
        self.publish();
        outcome
    }

    fn show_end(&mut self, state: JobStatus, outcome: &JobOutcome) {
        self.view.left_behind = outcome.left_behind.clone();
        self.view.waiting_for = None;
        self.view.enter(state, self.clock.now_ms());
        self.publish();
    }
}

impl JobManager {
    /// Sends the taskmanagers away and waits until they have gone: what was sent to one that has not read it yet can be lost when this
    /// process ends, and it would look for a jobmanager.
    async fn dismiss(&mut self, peers: &mut mpsc::UnboundedReceiver<PeerEvent>) {
        // One that can't be told is not waited for.
        self.taskmanagers.retain(|_, taskmanager| taskmanager.sender.send(&ToTaskManager::Shutdown).is_ok());
        let all_gone = async {
            while !self.taskmanagers.is_empty() {
                match peers.recv().await {
                    Some(PeerEvent::Registered(newcomer)) => {
                        let id = newcomer.location.id.clone();
                        self.on_peer(PeerEvent::Registered(newcomer));
                        self.send(&id, &ToTaskManager::Shutdown);
                    }
                    Some(PeerEvent::Message(..)) => {}
                    Some(PeerEvent::Lost { id, connection, .. }) => {
                        self.taskmanagers.retain(|known, peer| *known != id || peer.connection != connection);
                    }
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
