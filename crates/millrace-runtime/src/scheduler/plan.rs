//! What the scheduler knows of the job.

use std::collections::BTreeSet;

use millrace_core::ids::TaskId;

use super::regions::{Edge, regions};
use crate::graph::{JobGraph, JobVertex};

/// The part of the job graph that scheduling needs.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) tasks: Vec<TaskId>,
    /// Which of them start again together.
    pub(super) regions: Vec<BTreeSet<TaskId>>,
    pub(super) slots_needed: u32,
    pub(super) checkpoints: bool,
}

impl Plan {
    /// The plan of a graph whose job takes checkpoints or does not.
    pub fn new(graph: &JobGraph, checkpoints: bool) -> Self {
        let tasks_of = |vertex: &JobVertex| {
            let id = vertex.id;
            (0..vertex.parallelism).map(move |subtask| TaskId { vertex: id, subtask })
        };
        let tasks: Vec<_> = graph.vertices.iter().flat_map(tasks_of).collect();
        let regions = regions(&tasks, Edge::all(graph));
        Self { tasks, regions, slots_needed: graph.slots_needed(), checkpoints }
    }

    /// All tasks.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }
}
