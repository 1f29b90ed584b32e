//! What a jobmanager says of its job.

use std::fmt;

use millrace_core::rest::{
    CheckpointStatistics, CheckpointingStatistics, ExecutionState, JobDetails, JobStatus, TaskManagerInfo,
};

/// A job as REST shows it.
#[derive(Clone, Debug)]
pub struct JobState {
    /// `/jobs/<id>`
    pub job: JobDetails,
    /// `/jobs/<id>/checkpoints`
    pub checkpoints: CheckpointingStatistics,
    /// `/taskmanagers`
    pub taskmanagers: Vec<TaskManagerInfo>,
}

impl JobState {
    /// Whether all tasks run.
    pub fn is_running(&self) -> bool {
        let runs = |state, count| state == ExecutionState::Running || count == 0;
        let vertices = &self.job.vertices;
        let all = vertices.iter().all(|vertex| vertex.tasks.iter().all(|(state, count)| runs(*state, *count)));
        let some = vertices.iter().any(|vertex| vertex.tasks.values().any(|count| *count > 0));
        self.job.state == JobStatus::Running && all && some
    }

    /// The newest completed checkpoint.
    pub fn completed(&self) -> Option<&CheckpointStatistics> {
        self.checkpoints.latest.completed.as_ref()
    }

    /// The highest number of a checkpoint that is known, triggered by this jobmanager or by one before it; 0 where none is.
    pub fn newest_checkpoint(&self) -> u64 {
        newest(&self.checkpoints)
    }

    /// The number of the checkpoint that the last recovery restored.
    pub fn recovered_from(&self) -> Option<u64> {
        self.job.last_recovery.as_ref().and_then(|recovery| recovery.restored_checkpoint)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, checkpoints, taskmanagers } = self;
        let counts = &checkpoints.counts;
        write!(f, "job {} (generation {}, attempt {}", job.state, job.generation, job.attempt)?;
        write!(f, ", {} restarts, {} taskmanagers", job.restarts, taskmanagers.len())?;
        if let Some(reason) = &job.waiting_for {
            write!(f, ", waiting for {reason}")?;
        }
        write!(f, "); checkpoints: {} completed, {} failed", counts.completed, counts.failed)?;
        write!(f, ", {} under way, {} restored", counts.in_progress, counts.restored)?;
        for vertex in &job.vertices {
            let tasks = vertex.tasks.iter().filter(|(_, count)| **count > 0);
            let tasks: Vec<_> = tasks.map(|(state, count)| format!("{count} {state:?}")).collect();
            let (read, written) = (vertex.metrics.read_records, vertex.metrics.write_records);
            write!(f, "; {}: {}, {read} records in, {written} out", vertex.name, tasks.join(", "))?;
        }
        Ok(())
    }
}

fn newest(known: &CheckpointingStatistics) -> u64 {
    known.history.iter().chain(&known.latest.completed).map(|checkpoint| checkpoint.id).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use millrace_core::rest::CheckpointStatus;

    use super::*;

    fn checkpoint(id: u64, status: CheckpointStatus) -> CheckpointStatistics {
        CheckpointStatistics {
            id,
            status,
            is_savepoint: false,
            trigger_timestamp: 0,
            latest_ack_timestamp: -1,
            checkpointed_size: 0,
            state_size: 0,
            end_to_end_duration: 0,
            processed_data: 0,
            persisted_data: 0,
            num_subtasks: 0,
            num_acknowledged_subtasks: 0,
            external_path: None,
            discarded: None,
            failure_timestamp: None,
            failure_message: None,
        }
    }

    #[test]
    fn what_a_new_jobmanager_has_inherited_is_known() {
        let mut known = CheckpointingStatistics::default();
        assert_eq!(newest(&known), 0);
        // It is in no history: another jobmanager has triggered it.
        known.latest.completed = Some(checkpoint(7, CheckpointStatus::Completed));
        assert_eq!(newest(&known), 7);
        known.history = vec![checkpoint(9, CheckpointStatus::InProgress), checkpoint(8, CheckpointStatus::Completed)];
        assert_eq!(newest(&known), 9);
    }
}
