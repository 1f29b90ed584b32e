//! A new jobmanager finds tasks that run, and goes on with them where the real rules say so.

use std::collections::BTreeSet;

use millrace_core::ids::{CheckpointId, TaskId, TaskManagerId};
use millrace_runtime::{
    coordinator::CoordinatorEvent,
    scheduler::adoption::{Adoption, AdoptionVerdict, NewestCheckpoint, RunningAttempt},
};

use super::{
    counters::Seen,
    jobmanager::Phase,
    task::{TaskMessage, task_id},
    world::World,
};

impl World {
    /// The deployments whose tasks are connected to this jobmanager: not those that another has adopted.
    pub fn own_deployments(&self, index: usize) -> Vec<usize> {
        let own = |d: &&usize| self.deployments[**d].jobmanager == index && !self.deployments[**d].cut_off;
        self.jobmanagers[index].running.iter().filter(own).copied().collect()
    }

    /// A jobmanager that has taken over hears of tasks that run; returns whether it has adopted them.
    pub fn adopt_tasks(&mut self, index: usize) -> bool {
        let jm = &self.jobmanagers[index];
        let (generation, newest) = (jm.generation, jm.protocol.view().newest_checkpoint().map(|record| record.id));
        let Some(newest) = newest.and_then(|id| self.newest(id)) else { return false };
        let (tasks, marked) = (self.all_tasks(), jm.protocol.view().newest_attempt());
        let (mut adoption, mut reported) = (Adoption::new(tasks, newest, marked, self.mutation.adoption()), Vec::new());
        for deployment in 0..self.deployments.len() {
            let runs = self.deployments[deployment].alive && self.deployments[deployment].generation < generation;
            if runs && self.chance(self.plan.adopt) {
                if self.deployments[deployment].superseded.is_some() {
                    self.counters.saw(Seen::ZombieReported);
                }
                reported.push(deployment);
                let from = TaskManagerId(format!("deployment {deployment}"));
                adoption.reported(&from, self.deployments[deployment].reports());
            }
        }
        match adoption.verdict() {
            AdoptionVerdict::Adopt(running) => {
                self.adopt(index, &reported, newest, running);
                true
            }
            AdoptionVerdict::Restart(why) => {
                self.counters.saw(Seen::AdoptionRefused);
                self.note(|| format!("jobmanager {index} does not adopt deployments {reported:?}: {why}"));
                false
            }
            AdoptionVerdict::Wait => false,
        }
    }

    fn all_tasks(&self) -> Vec<TaskId> {
        let (sources, counters) = (self.plan.sources, self.plan.counters);
        let of_region = |region| (0..sources + counters).map(move |index| task_id(region, index, sources));
        (0..self.plan.regions).flat_map(of_region).collect()
    }

    /// Whose the log's newest checkpoint is.
    fn newest(&self, id: CheckpointId) -> Option<NewestCheckpoint> {
        let (generation, attempt) = self.store.metadata(id)?.by;
        // Long ago: the next one is due.
        Some(NewestCheckpoint { id, generation, attempt, triggered_at_ms: 0 })
    }

    fn adopt(&mut self, index: usize, deployments: &[usize], newest: NewestCheckpoint, running: RunningAttempt) {
        let NewestCheckpoint { id: newest, triggered_at_ms: newest_at_ms, .. } = newest;
        let RunningAttempt { attempt, attempts, triggered, .. } = running;
        self.note(|| format!("jobmanager {index} adopts deployments {deployments:?} at checkpoint {newest}"));
        self.counters.saw(Seen::Adopted);
        if attempts.values().collect::<BTreeSet<_>>().len() > 1 {
            self.counters.saw(Seen::AdoptedAfterRegion);
        }
        let jm = &mut self.jobmanagers[index];
        (jm.attempt, jm.phase, jm.has_checkpoint, jm.may_run_on) = (attempt, Phase::Running, false, true);
        jm.running = deployments.to_vec();
        let generation = jm.generation;
        for &deployment in deployments {
            let adopted = &mut self.deployments[deployment];
            (adopted.jobmanager, adopted.generation, adopted.continues) = (index, generation, Some(newest));
            (adopted.job_attempt, adopted.cut_off) = (attempt, false);
            let (tip, superseded) = (adopted.tip, adopted.superseded);
            if superseded.is_some_and(|by| by < generation) {
                self.violated(format!("deployment {deployment} is adopted, whose tasks were started again without it"));
            }
            if generation == self.store.generation() {
                let result = self.oracle.adopts(tip);
                self.expect(result);
            }
        }
        let tasks = attempts.into_keys().collect();
        self.coordinate(index, CoordinatorEvent::TasksAdopted { attempt, tasks, triggered, newest_at_ms });
        self.tell(index, TaskMessage::Complete(newest));
        for id in newest.0 + 1..=triggered.map_or(newest.0, |id| id.0) {
            self.tell(index, TaskMessage::Aborted(CheckpointId(id)));
        }
    }
}
