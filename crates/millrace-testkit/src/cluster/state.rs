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
