//! What each task is told to be: pure.

use std::collections::BTreeMap;

use millrace_core::ids::{Attempt, CheckpointId, Generation, TaskId, TaskManagerId};
use millrace_runtime::{
    graph::JobGraph,
    task::{BarrierHandling, OperatorRestore, TaskManagerLocation, TaskSpec},
};

use super::{progress::RecordCounts, splits::InitialSplits};

/// Everything that an attempt's tasks start from.
pub struct AttemptPlan<'a> {
    /// The job.
    pub graph: &'a JobGraph,
    /// This jobmanager's incarnation.
    pub generation: Generation,
    /// The attempt.
    pub attempt: Attempt,
    /// How barriers are handled, where checkpoints are on.
    pub barriers: Option<BarrierHandling>,
    /// Whether the sources wait for a first checkpoint.
    pub hold_sources: bool,
    /// Whether state that no operator claims is dropped.
    pub allow_non_restored: bool,
    /// Where each task runs.
    pub assignment: &'a BTreeMap<TaskId, TaskManagerId>,
    /// Where each taskmanager is.
    pub locations: &'a BTreeMap<TaskManagerId, TaskManagerLocation>,
    /// The checkpoint that it starts from.
    pub continues: Option<CheckpointId>,
    /// The state of each task that has some.
    pub restore: &'a BTreeMap<TaskId, Vec<OperatorRestore>>,
    /// What the sources begin with.
    pub sources: &'a InitialSplits,
    /// What the sources have to read until they are where the last attempt was.
    pub again: &'a RecordCounts,
}

/// The tasks of each taskmanager. `None` when a taskmanager of the assignment is gone.
pub fn specs(plan: &AttemptPlan<'_>) -> Option<BTreeMap<TaskManagerId, Vec<TaskSpec>>> {
    let mut by_taskmanager = BTreeMap::<_, Vec<_>>::new();
    for (task, place) in plan.assignment {
        by_taskmanager.entry(place.clone()).or_default().push(spec(plan, *task)?);
    }
    Some(by_taskmanager)
}

fn spec(plan: &AttemptPlan<'_>, task: TaskId) -> Option<TaskSpec> {
    let place = |task: TaskId| plan.locations.get(plan.assignment.get(&task)?).cloned();
    let consumers = plan
        .graph
        .edges_from(task.vertex)
        .map(|(_, edge)| {
            let all = 0..plan.graph.vertex(edge.to).parallelism;
            all.map(|subtask| place(TaskId { vertex: edge.to, subtask })).collect::<Option<Vec<_>>>()
        })
        .collect::<Option<Vec<_>>>()?;
    Some(TaskSpec {
        task,
        generation: plan.generation,
        attempt: plan.attempt,
        slots: plan.graph.slots_needed(),
        barriers: plan.barriers,
        consumers,
        restore: plan.restore.get(&task).cloned().unwrap_or_default(),
        splits: plan.sources.splits.get(&task).cloned().unwrap_or_default(),
        more_splits: plan.sources.open.contains(&task.vertex),
        hold_source: plan.hold_sources && plan.graph.vertex(task.vertex).source.is_some(),
        allow_non_restored: plan.allow_non_restored,
        continues: plan.continues,
        again: plan.again.get(&task).copied().unwrap_or(0),
    })
}
