//! A new jobmanager finds tasks that run, and goes on with them where the real rules say so.

use millrace_core::ids::CheckpointId;
use millrace_runtime::{
    coordinator::CoordinatorEvent,
    scheduler::adoption::{Adoption, AdoptionVerdict, NewestCheckpoint},
};

use super::{counters::Seen, jobmanager::Phase, task::TaskMessage, world::World};
use millrace_core::ids::TaskManagerId;

impl World {
    /// The deployment whose tasks are connected to this jobmanager.
    pub fn own_deployment(&self, index: usize) -> Option<usize> {
        match self.jobmanagers[index].phase {
            Phase::Running(deployment) if self.deployments[deployment].jobmanager == index => Some(deployment),
            _ => None,
        }
    }

    /// A jobmanager that has taken over hears of tasks that run; returns whether it has adopted them.
    pub fn adopt_tasks(&mut self, index: usize) -> bool {
        let jm = &self.jobmanagers[index];
        let (generation, newest) = (jm.generation, jm.protocol.view().newest_checkpoint().map(|record| record.id));
        let Some(newest) = newest.and_then(|id| self.newest(id)) else { return false };
        let mut adoption: Option<(usize, Adoption)> = None;
        for deployment in 0..self.deployments.len() {
            let runs = self.deployments[deployment].alive && self.deployments[deployment].generation < generation;
            if runs && self.chance(self.plan.adopt) {
                let (tasks, reports) = (self.deployments[deployment].tasks(), self.deployments[deployment].reports());
                let new = || (deployment, Adoption::new(tasks.collect(), newest, self.mutation.adoption()));
                let (_, adoption) = adoption.get_or_insert_with(new);
                adoption.reported(&TaskManagerId(format!("deployment {deployment}")), reports);
            }
        }
        let Some((deployment, adoption)) = adoption else { return false };
        match adoption.verdict() {
            AdoptionVerdict::Adopt(running) => {
                self.adopt(index, deployment, newest, running.triggered);
                true
            }
            AdoptionVerdict::Restart(why) => {
                self.counters.saw(Seen::AdoptionRefused);
                self.note(|| format!("jobmanager {index} does not adopt deployment {deployment}: {why}"));
                false
            }
            AdoptionVerdict::Wait => false,
        }
    }

    /// Whose the log's newest checkpoint is.
    fn newest(&self, id: CheckpointId) -> Option<NewestCheckpoint> {
        let (generation, attempt) = self.store.metadata(id)?.by;
        // Long ago: the next one is due.
        Some(NewestCheckpoint { id, generation, attempt, triggered_at_ms: 0 })
    }

    fn adopt(&mut self, index: usize, deployment: usize, newest: NewestCheckpoint, triggered: Option<CheckpointId>) {
        let NewestCheckpoint { id: newest, triggered_at_ms: newest_at_ms, .. } = newest;
        self.note(|| format!("jobmanager {index} adopts deployment {deployment} at checkpoint {newest}"));
        self.counters.saw(Seen::Adopted);
        let jm = &mut self.jobmanagers[index];
        let adopted = &mut self.deployments[deployment];
        jm.attempt = adopted.attempt;
        jm.phase = Phase::Running(deployment);
        (adopted.jobmanager, adopted.generation, adopted.continues) = (index, jm.generation, Some(newest));
        let (attempt, tasks, tip) = (adopted.attempt, adopted.tasks().collect(), adopted.tip);
        if jm.generation == self.store.generation() {
            let result = self.oracle.adopts(tip);
            self.expect(result);
        }
        self.coordinate(index, CoordinatorEvent::TasksAdopted { attempt, tasks, triggered, newest_at_ms });
        self.tell(index, TaskMessage::Complete(newest));
        for id in newest.0 + 1..=triggered.map_or(newest.0, |id| id.0) {
            self.tell(index, TaskMessage::Aborted(CheckpointId(id)));
        }
    }
}
