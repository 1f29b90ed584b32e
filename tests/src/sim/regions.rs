//! One region starts again while the other runs on, as the scheduler and its shell do it.

use millrace_core::ids::{Attempt, CheckpointId};

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, Phase},
    store::Restored,
    task::TaskMessage,
    world::{Event, World},
};

/// A region that starts again.
#[derive(Clone, Debug)]
pub struct Again {
    region: usize,
    /// The deployment of the other one, which runs on.
    kept: usize,
    /// Its tasks know that they are of the new attempt.
    joined: bool,
    /// What the region starts from, once it was read.
    restored: Option<(CheckpointId, Restored)>,
}

impl World {
    /// A jobmanager has lost a deployment: its region starts again alone if it may, and else the whole job.
    pub fn begin_again(&mut self, index: usize, lost: usize) {
        let jm = &mut self.jobmanagers[index];
        jm.running.retain(|deployment| *deployment != lost);
        let kept = jm.running.first().copied().filter(|_| jm.has_checkpoint);
        let Some(kept) = kept else {
            for other in self.own_deployments(index) {
                // Known to have ended.
                self.jobmanagers[index].may_run_on &= !self.deployments[other].alive;
                self.kill(other);
            }
            return self.jobmanagers[index].running.clear();
        };
        jm.attempt = jm.attempt.next();
        let attempt = jm.attempt;
        jm.again = Some(Again { region: self.deployments[lost].region, kept, joined: false, restored: None });
        // The connection is ordered, and breaks rather than lose anything: then the tasks are lost too.
        let after = self.way();
        self.queue_in(after, Event::Region { by: index, deployment: kept, attempt, runs_from: None });
    }

    /// What runs on beside a region that starts again is lost too: the whole job starts again.
    pub fn lost_beside_region(&mut self, index: usize, deployment: usize) -> bool {
        let jm = &mut self.jobmanagers[index];
        let Some(again) = jm.again.take_if(|again| again.kept == deployment) else { return false };
        self.note(|| format!("jobmanager {index} has lost deployment {deployment} too, which ran on"));
        if let Some(restored) = again.restored {
            self.start_all(index, Some(restored));
        }
        true
    }

    /// Tasks that run on hear of the other region.
    pub fn hears_of_region(&mut self, by: usize, kept: usize, attempt: Attempt, runs_from: Option<CheckpointId>) {
        let deployment = &mut self.deployments[kept];
        if !deployment.alive || deployment.jobmanager != by || deployment.cut_off {
            return;
        }
        if let Some(checkpoint) = runs_from {
            if deployment.job_attempt == attempt {
                (deployment.continues, deployment.joining) = (Some(checkpoint), false);
            }
            return;
        }
        (deployment.job_attempt, deployment.joining) = (attempt, true);
        let after = self.way();
        self.queue_in(after, Event::JobManager(by, JobManagerEvent::Joined(kept, attempt)));
    }

    /// The tasks that run on know of the attempt.
    pub fn joined(&mut self, index: usize, deployment: usize, attempt: Attempt) {
        let jm = &mut self.jobmanagers[index];
        if let Some(again) = jm.again.as_mut().filter(|again| again.kept == deployment && jm.attempt == attempt) {
            again.joined = true;
            self.start_again(index);
        }
    }

    /// The checkpoint that the region starts from was read.
    pub fn region_read(&mut self, index: usize, restored: (CheckpointId, Restored)) {
        let jm = &mut self.jobmanagers[index];
        jm.phase = Phase::Joining;
        if let Some(again) = &mut jm.again {
            again.restored = Some(restored);
        }
        self.start_again(index);
    }

    fn start_again(&mut self, index: usize) {
        let jm = &mut self.jobmanagers[index];
        let ready = |again: &mut Again| again.restored.is_some() && again.joined;
        let Some(Again { region, kept, restored: Some(restored), .. }) = jm.again.take_if(ready) else { return };
        let (generation, attempt) = (jm.generation, jm.attempt);
        jm.asked_for_final = false;
        for other in 0..self.deployments.len() {
            let deployment = &mut self.deployments[other];
            if deployment.region == region && deployment.generation <= generation {
                deployment.superseded.get_or_insert(generation);
                let spared = deployment.cut_off && self.chance(self.plan.spare_old_tasks);
                if !spared && self.deployments[other].generation == generation {
                    self.kill(other);
                }
            }
        }
        self.counters.saw(Seen::RegionRestarted);
        let (checkpoint, instance) = (restored.0, restored.1.instance);
        self.start_region(index, region, Some(&restored));
        if self.deployments[kept].jobmanager == index {
            self.deployments[kept].tip = Some(instance);
        }
        let after = self.way();
        let runs_from = Some(checkpoint);
        self.queue_in(after, Event::Region { by: index, deployment: kept, attempt, runs_from });
        self.all_run(index, runs_from);
        // It may have completed when the tasks that run on could not be told.
        self.tell(index, TaskMessage::Complete(checkpoint));
    }
}
