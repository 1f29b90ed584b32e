//! The shell of the checkpoint coordinator: sends barriers, writes what it asks for, and tells it what came of that.

use std::{collections::BTreeSet, sync::Arc};

use millrace_core::{
    checkpoint::CheckpointBarrier,
    ids::{CheckpointId, JobId},
};
use millrace_runtime::{
    STEP,
    coordinator::{
        AppendOutcome, CoordinatorEvent, Effect, LeaderOutcome, MetadataOutcome, MetadataReceipt, TaskStates,
        TriggerReason,
    },
    scheduler::Event as SchedulerEvent,
    task::TaskCommand,
};
use millrace_state::{
    log::{CheckpointRecord, JobLog, LogError},
    storage::{CheckpointStorage, MetadataWrite},
};

use super::{Event, JobManager};

impl JobManager {
    /// Tells the coordinator and carries out what it asks for.
    pub(super) fn coordinate(&mut self, event: CoordinatorEvent) {
        if self.ending {
            return;
        }
        let effects = self.coordinator.on(self.clock.now_ms(), event);
        for effect in effects {
            self.coordinate_effect(effect);
        }
        if let Some(attempt) = self.undecided.take() {
            self.prepare(attempt);
        }
    }

    fn coordinate_effect(&mut self, effect: Effect) {
        let attempt = self.scheduler.attempt();
        match effect {
            Effect::Trigger(barrier) => self.trigger(barrier),
            Effect::WriteMetadata { checkpoint, states } => self.write_metadata(checkpoint, states),
            Effect::AppendLog { checkpoint, triggered_at_ms, metadata } => {
                self.append(checkpoint, triggered_at_ms, metadata);
            }
            Effect::Relist { checkpoint } => self.relist(checkpoint),
            Effect::Announce { checkpoint, reason } => {
                tracing::debug!(target: STEP, step = "complete", %checkpoint, ?reason);
                self.progress.completed(checkpoint);
                self.tell_all(&TaskCommand::NotifyComplete(checkpoint));
                if std::mem::take(&mut self.attempt.held) {
                    self.tell_all(&TaskCommand::Resume);
                }
                if std::mem::take(&mut self.garbage) {
                    self.sweep();
                }
                let is_final = reason == TriggerReason::Final;
                self.schedule(SchedulerEvent::CheckpointCompleted { is_final });
                self.hand_over_at(checkpoint);
            }
            Effect::Abort(checkpoint) => {
                let reason = self.coordinator.statistics().latest.failed.as_ref();
                let reason = reason.filter(|failed| failed.id == checkpoint).and_then(|f| f.failure_message.as_deref());
                tracing::warn!(%checkpoint, reason, "checkpoint failed");
                self.garbage = true;
                self.tell_all(&TaskCommand::NotifyAborted(checkpoint));
                self.resume_after(checkpoint);
            }
            // They lie in their checkpoint's directory, which the next sweep removes.
            Effect::DiscardState(_) => self.garbage = true,
            Effect::DeleteCheckpoints(ids) => self.delete(ids),
            Effect::FailJob(error) => self.schedule(SchedulerEvent::AttemptFailed(attempt, error)),
            Effect::Stop => self.fenced(),
        }
    }

    fn trigger(&mut self, barrier: CheckpointBarrier) {
        tracing::debug!(target: STEP, step = "trigger", checkpoint = %barrier.id);
        self.stop_sources_at(barrier.id);
        self.tell_sources(&TaskCommand::TriggerCheckpoint(barrier));
    }

    /// Runs a step beside the loop; what comes of it is the coordinator's next event.
    fn beside(&self, step: impl Future<Output = CoordinatorEvent> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(Event::Coordinator(step.await));
        });
    }

    fn write_metadata(&mut self, checkpoint: CheckpointId, states: Arc<TaskStates>) {
        tracing::debug!(target: STEP, step = "write-metadata", %checkpoint);
        let metadata = Arc::new(self.metadata(checkpoint, &states));
        let completed = self.coordinator.retained().last().copied();
        self.written.retain(|id, _| completed.is_none_or(|completed| *id >= completed));
        self.written.insert(checkpoint, Arc::clone(&metadata));
        let (storage, job, commits) = (self.storage.clone(), self.job, metadata.has_committables());
        self.beside(async move {
            let outcome = match storage.write_metadata(&metadata, commits).await {
                Ok(MetadataWrite::Written(record)) => MetadataOutcome::Written(MetadataReceipt {
                    size: record.metadata_size,
                    crc32: record.metadata_crc32,
                    commits,
                }),
                Ok(MetadataWrite::Conflict) => match storage.list_checkpoints(job).await {
                    Ok(ids) => MetadataOutcome::Conflict { highest: ids.into_iter().max().unwrap_or(checkpoint) },
                    Err(error) => MetadataOutcome::Failed(error),
                },
                Err(error) => MetadataOutcome::Failed(error),
            };
            CoordinatorEvent::MetadataWritten { checkpoint, outcome }
        });
    }

    fn append(&self, checkpoint: CheckpointId, created_at_ms: u64, metadata: MetadataReceipt) {
        tracing::debug!(target: STEP, step = "append-log", %checkpoint);
        let record = CheckpointRecord {
            id: checkpoint,
            metadata: format!("chk-{checkpoint}/_metadata"),
            metadata_size: metadata.size,
            metadata_crc32: metadata.crc32,
            created_at_ms,
            commits: metadata.commits,
        };
        let (log, retained) = (Arc::clone(&self.log), self.checkpoints.num_retained as usize);
        self.beside(async move {
            let outcome = match log.lock().await.append_checkpoint(record, retained).await {
                Ok(_) => AppendOutcome::Appended,
                Err(LogError::Fenced { .. } | LogError::Removed | LogError::Ended(_)) => AppendOutcome::Fenced,
                Err(LogError::Failed(error)) => AppendOutcome::Unknown(error),
            };
            CoordinatorEvent::Appended { checkpoint, outcome }
        });
    }

    fn relist(&self, checkpoint: CheckpointId) {
        let log = Arc::clone(&self.log);
        self.beside(async move {
            let outcome = match log.lock().await.assert_still_leader().await {
                Ok(()) => LeaderOutcome::Yes,
                Err(LogError::Fenced { .. } | LogError::Removed | LogError::Ended(_)) => LeaderOutcome::No,
                Err(LogError::Failed(error)) => LeaderOutcome::Unknown(error),
            };
            CoordinatorEvent::StillLeader { checkpoint, outcome }
        });
    }

    /// Deletes what abandoned checkpoints have written. Right after the second look at the log.
    fn sweep(&self) {
        let (storage, log, job) = (self.storage.clone(), Arc::clone(&self.log), self.job);
        tokio::spawn(async move {
            let log = log.lock().await;
            // None is live: a completed checkpoint supersedes all older ones.
            match storage.sweep(job, log.view(), &BTreeSet::new()).await {
                Ok(swept) if swept.is_empty() => {}
                Ok(swept) => tracing::info!(?swept, "removed what abandoned checkpoints left behind"),
                Err(error) => tracing::warn!(%error, "what abandoned checkpoints left behind is not removed yet"),
            }
            sweep_shared(&storage, job, &log).await;
        });
    }

    fn delete(&self, ids: Vec<CheckpointId>) {
        let (storage, log, job) = (self.storage.clone(), Arc::clone(&self.log), self.job);
        tracing::debug!(target: STEP, step = "delete", checkpoints = ?ids);
        tokio::spawn(async move {
            for id in ids {
                if let Err(error) = storage.delete_checkpoint(job, id).await {
                    tracing::warn!(checkpoint = %id, %error, "a checkpoint that is not needed any more was left behind");
                }
            }
            let mut log = log.lock().await;
            sweep_shared(&storage, job, &log).await;
            if let Err(error) = log.trim().await {
                tracing::debug!(%error, "old log entries were left behind");
            }
        });
    }
}

/// Deletes the files that checkpoints shared which are gone.
async fn sweep_shared(storage: &CheckpointStorage, job: JobId, log: &JobLog) {
    match storage.sweep_shared(job, log.view(), &BTreeSet::new()).await {
        Ok(files) => tracing::debug!(files, "removed shared files that no checkpoint refers to"),
        Err(error) => tracing::warn!(%error, "shared files that no checkpoint refers to are not removed yet"),
    }
}
