//! Failover by regions, as Flink's strategy of that name: tasks that are connected fail and start again together, all
//! others run on.
//!
//! What fails before the region is deployed again is added to it: it ends, and both are prepared as one attempt, since tasks
//! that run on join an attempt as a whole. What fails while it is deployed is a failure of its own, after which it starts
//! again with what that is connected to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_core::ids::{Attempt, TaskId, TaskManagerId, VertexId};

use super::{AfterEnding, Effect, JobScheduler, Phase};
use crate::graph::{JobGraph, Partitioning};

/// The tasks that run on while others start again.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) assignment: BTreeMap<TaskId, TaskManagerId>,
    /// Those that have not read all their input.
    pub(super) reading: BTreeSet<TaskId>,
}

/// The tasks by regions: what edges connect, one to one where they go forward, and otherwise all with all.
pub(super) fn regions(tasks: &[TaskId], edges: impl Iterator<Item = Edge>) -> Vec<BTreeSet<TaskId>> {
    let mut regions: Vec<BTreeSet<TaskId>> = tasks.iter().map(|task| BTreeSet::from([*task])).collect();
    for Edge { between, forward } in edges {
        let subtasks: BTreeSet<_> = tasks.iter().map(|task| task.subtask).filter(|_| forward).collect();
        let mut join = |of: Option<u32>| {
            let touches = |task: &TaskId| between.contains(&task.vertex) && of.is_none_or(|of| task.subtask == of);
            let (joined, apart): (Vec<_>, Vec<_>) =
                std::mem::take(&mut regions).into_iter().partition(|region| region.iter().any(touches));
            regions = apart;
            regions.extend(joined.into_iter().reduce(|a, b| a.into_iter().chain(b).collect()));
        };
        match forward {
            true => subtasks.into_iter().for_each(|subtask| join(Some(subtask))),
            false => join(None),
        }
    }
    regions
}

/// An edge of a job graph.
pub(super) struct Edge {
    pub(super) between: [VertexId; 2],
    pub(super) forward: bool,
}

impl Edge {
    /// All edges of a graph.
    pub(super) fn all(graph: &JobGraph) -> impl Iterator<Item = Self> {
        graph
            .edges
            .iter()
            .map(|edge| Self { between: [edge.from, edge.to], forward: edge.partitioning == Partitioning::Forward })
    }
}

impl JobScheduler {
    /// The tasks that start again when these have failed, with those that do so already; `None` where that is the whole
    /// job.
    fn region_of(&self, failed: &BTreeSet<TaskId>) -> Option<BTreeSet<TaskId>> {
        // Without a checkpoint that these tasks have taken a part of the job has nothing to go back to.
        let may =
            self.has_checkpoint && self.adaptive.is_none() && !self.stopping && self.handing_over != Some(self.attempt);
        if !may || failed.is_empty() {
            return None;
        }
        let mut tasks = self.connected(failed);
        match &self.phase {
            Phase::Running { .. } => {}
            Phase::Deploying { assignment, .. } => {
                tasks.extend(assignment.keys().filter(|task| !self.runs_on(**task)));
            }
            _ => return None,
        }
        (tasks.len() < self.plan.tasks.len()).then_some(tasks)
    }

    fn connected(&self, to: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        let regions = self.plan.regions.iter().filter(|region| !region.is_disjoint(to));
        regions.flatten().copied().collect()
    }

    /// More has failed beside tasks that run on, before a region is deployed: what is connected to that ends and starts
    /// again too. False where no region is on that way.
    pub(super) fn extend_region(&mut self, failed: &BTreeSet<TaskId>, effects: &mut Vec<Effect>) -> bool {
        let planned = match &self.phase {
            Phase::Ending { .. } => None,
            Phase::WaitingToRestart(delay) => Some(*delay),
            // The strategy is not asked: nothing that it has started again has failed.
            Phase::WaitingForSlots | Phase::Preparing { .. } => Some(Duration::ZERO),
            _ => return false,
        };
        if let Some(delay) = planned {
            effects.push(Effect::Stopped(self.attempt));
            self.phase = Phase::Ending { running: BTreeMap::new(), next: AfterEnding::Restart(delay) };
        }
        let region = self.connected(failed);
        let also = self.kept.assignment.iter().filter(|(task, _)| region.contains(task));
        let also = self.that_run(also.map(|(task, place)| (*task, place.clone())).collect());
        let Phase::Ending { running, .. } = &mut self.phase else { return false };
        self.kept.assignment.retain(|task, _| !region.contains(task));
        self.kept.reading.retain(|task| !region.contains(task));
        if !also.is_empty() {
            effects.push(Effect::CancelTasks(also.clone()));
            running.extend(also);
        }
        true
    }

    /// Ends the regions of these tasks, to start them again after a while. False where the whole job is to.
    pub(super) fn restart_region(
        &mut self,
        now: Duration,
        failed: &BTreeSet<TaskId>,
        delay: Duration,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(region) = self.region_of(failed) else { return false };
        let (assignment, reading) = match &mut self.phase {
            Phase::Running { assignment, reading } => (assignment, reading),
            Phase::Deploying { assignment, .. } => (assignment, &mut self.kept.reading),
            _ => return false,
        };
        let (ending, kept) = std::mem::take(assignment).into_iter().partition(|(task, _)| region.contains(task));
        let reading = std::mem::take(reading).into_iter().filter(|task| !region.contains(task)).collect();
        self.kept = Kept { assignment: kept, reading };
        // What has failed has left the assignment, or was on a taskmanager that is gone.
        let running = self.that_run(ending);
        effects.push(Effect::Stopped(self.attempt));
        if !running.is_empty() {
            effects.push(Effect::CancelTasks(running.clone()));
        }
        self.phase = Phase::Ending { running, next: AfterEnding::Restart(delay) };
        self.after_ending(now, effects);
        true
    }

    /// Those of these tasks whose taskmanagers are there.
    pub(super) fn that_run(&self, tasks: BTreeMap<TaskId, TaskManagerId>) -> BTreeMap<TaskId, TaskManagerId> {
        tasks.into_iter().filter(|(_, place)| self.slots.contains_key(place)).collect()
    }

    /// The tasks that run on end too: the whole job starts again, or ends.
    pub(super) fn give_up_kept(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        let kept = std::mem::take(&mut self.kept).assignment;
        let kept = self.that_run(kept);
        if let Phase::Ending { running, .. } = &mut self.phase
            && !kept.is_empty()
        {
            effects.push(Effect::CancelTasks(kept.clone()));
            running.extend(kept);
        }
    }

    /// Whether all tasks that run on would stay where they are.
    pub(super) fn kept_stay(&self, assignment: &BTreeMap<TaskId, TaskManagerId>) -> bool {
        self.kept.assignment.iter().all(|(task, place)| assignment.get(task) == Some(place))
    }

    /// Whether tasks that start again may go back to a checkpoint that this attempt has taken, or (`None`) one of another
    /// jobmanager. Beside tasks that run on it must be of the same start of the whole job: at each, splits and what has no
    /// key are dealt out anew, maybe to another number of subtasks.
    pub fn may_go_back_to(&self, taken_by: Option<Attempt>) -> bool {
        self.kept.assignment.is_empty() || taken_by.is_some_and(|attempt| attempt >= self.began)
    }

    /// Whether a task runs on while others start again.
    pub fn runs_on(&self, task: TaskId) -> bool {
        self.kept.assignment.contains_key(&task)
    }

    /// The attempt that a task is of.
    pub fn attempt_of(&self, task: TaskId) -> Option<Attempt> {
        self.attempts.get(&task).copied()
    }

    /// All attempts that tasks are of.
    pub fn attempts(&self) -> BTreeSet<Attempt> {
        self.attempts.values().copied().collect()
    }

    /// Whether an event is of a task as it runs now.
    pub fn is_current(&self, attempt: Attempt, task: TaskId) -> bool {
        self.attempt_of(task) == Some(attempt)
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{Error, rest::JobStatus, restart::RestartStrategy};

    use super::{
        super::{Event, Plan},
        *,
    };

    fn task(vertex: u32, subtask: u32) -> TaskId {
        TaskId { vertex: VertexId(vertex), subtask }
    }

    fn regions_of(vertices: &[u32], edges: &[(u32, u32, bool)]) -> Vec<Vec<TaskId>> {
        let tasks: Vec<_> = (0..).zip(vertices).flat_map(|(v, count)| (0..*count).map(move |s| task(v, s))).collect();
        let edge = |(from, to, forward): &(u32, u32, bool)| Edge {
            between: [VertexId(*from), VertexId(*to)],
            forward: *forward,
        };
        let mut regions: Vec<Vec<_>> =
            regions(&tasks, edges.iter().map(edge)).into_iter().map(|region| region.into_iter().collect()).collect();
        regions.sort();
        regions
    }

    #[test]
    fn a_region_is_what_edges_connect() {
        let all = vec![task(0, 0), task(0, 1), task(1, 0)];
        assert_eq!(regions_of(&[2, 1], &[(0, 1, false)]), [all]);
        assert_eq!(regions_of(&[2], &[]), [vec![task(0, 0)], vec![task(0, 1)]], "a chain in two subtasks");
        let pairs = [vec![task(0, 0), task(1, 0)], vec![task(0, 1), task(1, 1)]];
        assert_eq!(regions_of(&[2, 2], &[(0, 1, true)]), pairs);
        let two = [vec![task(0, 0), task(0, 1), task(2, 0)], vec![task(1, 0), task(3, 0)]];
        assert_eq!(regions_of(&[2, 1, 1, 1], &[(0, 2, false), (1, 3, false)]), two, "two graphs in one job");
        assert_eq!(regions_of(&[2, 2, 2], &[(0, 1, true), (1, 2, false)]).len(), 1);
    }

    fn tm(name: &str) -> TaskManagerId {
        TaskManagerId(name.to_string())
    }

    const NOW: Duration = Duration::ZERO;

    /// A chain in two subtasks (vertex 0) beside a graph of two connected vertices, on `a` and `b`, with a spare `c`.
    fn running() -> JobScheduler {
        running_on(&["a", "b"], &["c"])
    }

    /// The same, whose chain has a subtask on each of these taskmanagers, and the graph beside it on the first two.
    fn running_on(used: &[&str], spare: &[&str]) -> JobScheduler {
        let slots = used.len() as u32;
        let tasks: Vec<_> =
            (0..).zip([slots, 2, 2]).flat_map(|(v, count)| (0..count).map(move |s| task(v, s))).collect();
        let edge = Edge { between: [VertexId(1), VertexId(2)], forward: false };
        let regions = regions(&tasks, std::iter::once(edge));
        let deployed = tasks.len();
        let plan = Plan { tasks, regions, slots_needed: slots, checkpoints: true };
        let mut job = JobScheduler::new(plan, RestartStrategy::exponential_delay());
        for name in used.iter().chain(spare) {
            register(&mut job, name);
        }
        start(&mut job, deployed);
        job.on(NOW, Event::CheckpointCompleted { is_final: false });
        job
    }

    fn register(job: &mut JobScheduler, name: &str) -> Vec<Effect> {
        job.on(NOW, Event::TaskManagerRegistered { id: tm(name), resource_id: name.to_string(), slots: 1 })
    }

    /// The taskmanager of the slot that runs a subtask of each vertex.
    fn place(job: &JobScheduler, subtask: u32) -> TaskManagerId {
        job.last_place(task(0, subtask)).unwrap().clone()
    }

    /// What prepares an attempt beside tasks that run on at these taskmanagers.
    fn prepare(attempt: u32, places: &[&str]) -> [Effect; 2] {
        let places = places.iter().map(|name| tm(name)).collect();
        [Effect::Prepare(Attempt(attempt)), Effect::Join(Attempt(attempt), places)]
    }

    /// Runs the attempt that is being prepared, for which so many tasks are deployed.
    fn start(job: &mut JobScheduler, deployed: usize) {
        let attempt = job.attempt();
        let Phase::Preparing { joining, .. } = job.phase.clone() else { panic!("{:?}", job.phase) };
        let mut effects = job.on(NOW, Event::Prepared(attempt));
        for place in joining {
            assert!(effects.is_empty(), "{place} does not know yet that its tasks are of attempt {attempt}");
            assert!(job.on(NOW, Event::Joined(Attempt(attempt.0 - 1), place.clone())).is_empty(), "an old answer");
            effects = job.on(NOW, Event::Joined(attempt, place));
        }
        assert!(matches!(effects[..], [Effect::Deploy(..)]), "{effects:?}");
        let tasks: Vec<_> = job.assignment().unwrap().keys().filter(|task| !job.runs_on(**task)).copied().collect();
        assert_eq!(tasks.len(), deployed);
        let effects: Vec<_> =
            tasks.into_iter().flat_map(|task| job.on(NOW, Event::TaskDeployed(attempt, task))).collect();
        assert_eq!(effects, [Effect::Start(attempt)]);
    }

    fn lost(name: &str) -> Event {
        Event::TaskManagerLost { id: tm(name), error: Error::external("gone") }
    }

    fn failed(job: &JobScheduler, task: TaskId) -> Event {
        Event::TaskFailed(job.attempt_of(task).unwrap(), task, Error::external("failed"))
    }

    /// What is cancelled, and the rest of the effects once that has ended.
    fn end(job: &mut JobScheduler, event: Event) -> (Vec<TaskId>, Vec<Effect>) {
        let cancelled: Vec<_> = job.on(NOW, event).into_iter().filter_map(cancelled).flatten().collect();
        let canceled = |task: &TaskId| Event::TaskCanceled(job.attempt_of(*task).unwrap(), *task);
        let events: Vec<_> = cancelled.iter().map(canceled).collect();
        (cancelled, events.into_iter().flat_map(|event| job.on(NOW, event)).collect())
    }

    fn cancelled(effect: Effect) -> Option<Vec<TaskId>> {
        match effect {
            Effect::CancelTasks(tasks) => Some(tasks.into_keys().collect()),
            _ => None,
        }
    }

    #[test]
    fn only_what_is_connected_to_a_failed_task_starts_again() {
        let mut job = running();
        let event = failed(&job, task(1, 0));
        let (ended, then) = end(&mut job, event);
        assert_eq!(ended, [task(1, 1), task(2, 0), task(2, 1)]);
        assert_eq!(then, prepare(2, &["a", "b"]));
        assert!(job.runs_on(task(0, 0)) && job.runs_on(task(0, 1)) && !job.runs_on(task(1, 0)));
        start(&mut job, 4);
        assert_eq!([task(0, 0), task(1, 0)].map(|task| job.attempt_of(task)), [Some(Attempt(1)), Some(Attempt(2))]);
        // News of those that ran on count as before, and those of the ended ones don't.
        assert!(!job.is_current(Attempt(1), task(1, 0)));
        let event = failed(&job, task(0, 1));
        assert_eq!(job.on(NOW, event).len(), 3, "reported, stopped, and after a delay started again");
        assert_eq!(job.on(NOW, Event::RestartTimer(Attempt(2))), prepare(3, &["a", "b"]));
        start(&mut job, 1);
    }

    #[test]
    fn a_lost_taskmanager_leaves_alone_what_nothing_connects_to_its_tasks() {
        let mut job = running();
        let (ended, then) = end(&mut job, lost("a"));
        let spared = if job.runs_on(task(0, 0)) { task(0, 0) } else { task(0, 1) };
        assert_eq!((ended.len(), then), (2, prepare(2, &["b"]).to_vec()));
        start(&mut job, 5);
        assert_eq!(job.attempt_of(spared), Some(Attempt(1)));
    }

    /// A neighbour sees the connection to the lost taskmanager close before the jobmanager does.
    #[test]
    fn what_fails_while_a_region_ends_is_added_to_it() {
        let mut job = running();
        let on_b: Vec<_> =
            job.assignment().unwrap().iter().filter(|(_, at)| **at == tm("b")).map(|(t, _)| *t).collect();
        let neighbour = *on_b.iter().find(|task| task.vertex == VertexId(2)).unwrap();
        let event = failed(&job, neighbour);
        job.on(NOW, event);
        let other = *on_b.iter().find(|task| task.vertex == VertexId(1)).unwrap();
        assert!(job.on(NOW, Event::TaskCanceled(Attempt(1), other)).is_empty(), "those on a have not answered");
        let effects = job.on(NOW, lost("a"));
        assert!(effects.contains(&Effect::Prepare(Attempt(2))), "{effects:?}");
        start(&mut job, 5);
    }

    /// The third taskmanager stood still when the graph on the others failed, and is given up at last.
    #[test]
    fn what_is_lost_while_a_region_is_prepared_starts_again_with_it_and_the_rest_runs_on() {
        for prepared in [false, true] {
            let mut job = running_on(&["a", "b", "c"], &["d"]);
            let silent = place(&job, 2);
            let others = [0, 1].map(|subtask| place(&job, subtask));
            let event = failed(&job, task(1, 0));
            end(&mut job, event);
            if prepared {
                job.on(NOW, Event::Prepared(Attempt(2)));
            }
            for other in &others {
                assert!(job.on(NOW, Event::Joined(Attempt(2), other.clone())).is_empty(), "{silent} has not answered");
            }
            let effects = job.on(NOW, lost(&silent.0));
            assert_eq!(effects[2..], prepare(3, &others.each_ref().map(|other| &*other.0)), "{effects:?}");
            assert!(matches!(effects[..2], [Effect::Stopped(Attempt(2)), Effect::Report(..)]), "{effects:?}");
            assert!(job.on(NOW, Event::Prepared(Attempt(2))).is_empty(), "of the attempt before");
            start(&mut job, 5);
            let attempts = [task(0, 0), task(0, 1), task(0, 2)].map(|task| job.attempt_of(task).unwrap().0);
            assert_eq!(attempts, [1, 1, 3]);
        }
    }

    #[test]
    fn what_is_connected_to_tasks_that_are_lost_meanwhile_ends_before_it_starts_again() {
        let mut job = running_on(&["a", "b", "c"], &["d"]);
        let [first, second, third] = [0, 1, 2].map(|subtask| place(&job, subtask));
        let event = failed(&job, task(0, 2));
        assert_eq!(job.on(NOW, event)[2..], prepare(2, &[&first.0, &second.0]));
        let (ended, then) = end(&mut job, lost(&first.0));
        assert_eq!(ended, [task(1, 1), task(2, 1)]);
        assert_eq!(then, prepare(3, &[&second.0]));
        assert!(job.runs_on(task(0, 1)) && place(&job, 2) == third);
        start(&mut job, 6);
    }

    /// A slot that was to be used is gone, and no task with it.
    #[test]
    fn a_region_whose_new_place_is_lost_is_prepared_for_another() {
        let mut job = running_on(&["a", "b", "c"], &["d", "e"]);
        let [first, second] = [0, 1].map(|subtask| place(&job, subtask));
        let gone = place(&job, 2);
        job.on(NOW, lost(&gone.0));
        let taken = place(&job, 2);
        let effects = job.on(NOW, lost(&taken.0));
        assert_eq!(effects[2..], prepare(3, &[&first.0, &second.0]));
        assert!(![gone, taken].contains(&place(&job, 2)));
        start(&mut job, 1);
    }

    #[test]
    fn what_is_lost_while_a_region_waits_for_slots_or_its_time_starts_again_with_it() {
        let mut job = running_on(&["a", "b", "c"], &[]);
        let [first, second, third] = [0, 1, 2].map(|subtask| place(&job, subtask));
        job.on(NOW, lost(&third.0));
        assert_eq!(job.waiting_for_slots(), Some((2, 3)));
        let (ended, _) = end(&mut job, lost(&first.0));
        assert_eq!((ended, job.waiting_for_slots()), (vec![task(1, 1), task(2, 1)], Some((1, 3))));
        register(&mut job, "d");
        assert_eq!(register(&mut job, "e"), prepare(3, &[&second.0]));
        start(&mut job, 6);

        // The second failure has a delay, which is over once, however often it begins.
        let mut job = running_on(&["a", "b", "c"], &["d", "e"]);
        let [first, second, third] = [0, 1, 2].map(|subtask| place(&job, subtask));
        job.on(NOW, lost(&third.0));
        start(&mut job, 1);
        let event = failed(&job, task(0, 2));
        let delayed = |effects: &[Effect]| matches!(effects.last(), Some(Effect::RestartAfter(Attempt(2), _)));
        assert!(delayed(&job.on(NOW, event)));
        let (ended, then) = end(&mut job, lost(&first.0));
        assert_eq!(ended, [task(1, 1), task(2, 1)]);
        assert!(delayed(&then), "{then:?}");
        assert_eq!(job.on(NOW, Event::RestartTimer(Attempt(2))), prepare(3, &[&second.0]));
        assert!(job.on(NOW, Event::RestartTimer(Attempt(2))).is_empty());
        start(&mut job, 6);
    }

    /// All tasks have started again then: some may run on unseen, as after any loss of all.
    #[test]
    fn where_everything_that_ran_on_is_lost_the_whole_job_is_prepared() {
        let mut job = running_on(&["a", "b"], &["c", "d"]);
        let both = [0, 1].map(|subtask| place(&job, subtask));
        job.on(NOW, lost(&both[0].0));
        let on_the_other = [task(1, 1), task(2, 1)];
        for task in on_the_other {
            job.on(NOW, Event::TaskCanceled(Attempt(1), task));
        }
        assert!(job.runs_on(task(0, 1)));
        let effects = job.on(NOW, lost(&both[1].0));
        assert_eq!(effects[2..], [Effect::Prepare(Attempt(3))]);
        start(&mut job, 6);
        let event = failed(&job, task(0, 0));
        assert_eq!(end(&mut job, event).0.len(), 5, "and waits for a checkpoint");
    }

    #[test]
    fn what_is_lost_while_the_whole_job_is_prepared_is_a_failure_of_it() {
        let mut job = running();
        fail_all(&mut job);
        let effects = job.on(NOW, lost(&place(&job, 0).0));
        assert!(matches!(effects.last(), Some(Effect::RestartAfter(..))), "{effects:?}");
    }

    #[test]
    fn what_fails_while_a_region_is_deployed_is_added_to_it_as_the_strategy_says() {
        // Of the four tasks that are deployed, two are on each taskmanager.
        for (what, cancelled, deployed) in [("kept", 4, 5), ("deployed", 3, 4), ("lost", 2, 5)] {
            let mut job = running();
            let event = failed(&job, task(1, 0));
            end(&mut job, event);
            job.on(NOW, Event::Prepared(Attempt(2)));
            for name in ["a", "b"] {
                job.on(NOW, Event::Joined(Attempt(2), tm(name)));
            }
            job.on(NOW, Event::TaskDeployed(Attempt(2), task(2, 1)));
            let event = match what {
                "kept" => failed(&job, task(0, 0)),
                "deployed" => failed(&job, task(1, 0)),
                _ => lost(&place(&job, 0).0),
            };
            let (ended, then) = end(&mut job, event);
            assert_eq!(ended.len(), cancelled, "{what}: {ended:?}");
            assert!(matches!(then[..], [Effect::RestartAfter(Attempt(2), _)]), "{what}: {then:?}");
            assert!(job.runs_on(task(0, 1)), "{what}");
            job.on(NOW, Event::RestartTimer(Attempt(2)));
            start(&mut job, deployed);
        }
    }

    #[test]
    fn what_a_restart_cannot_cure_ends_the_job_beside_a_region_too() {
        for ended in [false, true] {
            let mut job = running();
            let event = failed(&job, task(1, 0));
            match ended {
                true => drop(end(&mut job, event)),
                false => drop(job.on(NOW, event)),
            }
            let fatal = Error::external("data is lost").fatal();
            let event = Event::TaskFailed(Attempt(1), task(0, 0), fatal);
            let effects = job.on(NOW, event);
            let kept: Vec<_> = effects.into_iter().filter_map(cancelled).flatten().collect();
            assert_eq!((kept, job.status()), (vec![task(0, 1)], JobStatus::Failing), "ended: {ended}");
        }
    }

    /// Fails the attempt as a whole; how many tasks are cancelled before the next one is prepared.
    fn fail_all(job: &mut JobScheduler) -> usize {
        let event = Event::AttemptFailed(job.attempt(), Error::external("failed"));
        let (cancelled, then) = end(job, event);
        // Unless it is the first failure there is a delay.
        job.on(NOW, Event::RestartTimer(job.attempt()));
        assert!(matches!(job.phase, Phase::Preparing { .. }), "{then:?}");
        cancelled.len()
    }

    /// The new start has dealt the splits out anew: a checkpoint from before it says of no task what that has read since.
    #[test]
    fn after_a_start_of_the_whole_job_its_regions_wait_for_a_checkpoint() {
        let mut job = running();
        assert_eq!(fail_all(&mut job), 6);
        start(&mut job, 6);
        let event = failed(&job, task(0, 0));
        let others: Vec<_> = job.on(NOW, event).into_iter().filter_map(cancelled).flatten().collect();
        assert_eq!(others.len(), 5);
    }

    /// As when the newest one is damaged.
    #[test]
    fn a_region_that_goes_back_to_before_the_jobs_start_takes_all_others_with_it() {
        let mut job = running();
        fail_all(&mut job);
        start(&mut job, 6);
        job.on(NOW, Event::CheckpointCompleted { is_final: false });
        let event = failed(&job, task(0, 0));
        job.on(NOW, event);
        job.on(NOW, Event::RestartTimer(job.attempt()));
        assert!(matches!(job.phase, Phase::Preparing { .. }) && job.runs_on(task(0, 1)));
        let answers = [Some(Attempt(2)), Some(Attempt(1)), None].map(|taken_by| job.may_go_back_to(taken_by));
        assert_eq!(answers, [true, false, false]);
        // Whoever reads the checkpoint fails the attempt then.
        assert_eq!(fail_all(&mut job), 5);
        assert!(job.may_go_back_to(Some(Attempt(1))) && job.may_go_back_to(None));
        start(&mut job, 6);
    }

    #[test]
    fn the_whole_job_starts_again_before_its_first_checkpoint_and_ends_at_a_users_word() {
        let mut job = running();
        job.has_checkpoint = false;
        let event = failed(&job, task(0, 0));
        assert_eq!(end(&mut job, event).0.len(), 5);

        let mut job = running();
        let event = failed(&job, task(1, 0));
        job.on(NOW, event);
        let effects = job.on(NOW, Event::Cancel);
        let kept = BTreeMap::from([task(0, 0), task(0, 1)].map(|task| (task, job.last_place(task).unwrap().clone())));
        assert_eq!(effects, [Effect::CancelTasks(kept)]);
    }

    #[test]
    fn a_taskmanager_with_tasks_that_run_on_is_not_released() {
        let mut job = running();
        let event = failed(&job, task(1, 0));
        job.on(NOW, event);
        assert!(job.on(NOW, Event::TaskManagerLeaving(tm("a"))).is_empty());
        // Its slot is not there any more: the job starts again elsewhere.
        let rest: Vec<_> = [task(1, 1), task(2, 0), task(2, 1)]
            .into_iter()
            .flat_map(|task| job.on(NOW, Event::TaskCanceled(Attempt(1), task)))
            .collect();
        assert!(rest.iter().any(|effect| matches!(effect, Effect::CancelTasks(..))), "{rest:?}");
    }
}
