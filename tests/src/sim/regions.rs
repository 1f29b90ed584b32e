//! Regions start again while the others run on, as the scheduler and its shell do it.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::ids::{Attempt, CheckpointId};

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, Phase},
    store::Restored,
    task::TaskMessage,
    world::{Event, World},
};

/// Regions that start again.
#[derive(Clone, Debug)]
pub struct Again {
    regions: BTreeSet<usize>,
    /// The deployments of the others, which run on, and whether their tasks know that they are of the new attempt.
    kept: BTreeMap<usize, bool>,
    /// What the regions start from, once it was read.
    restored: Option<(CheckpointId, Restored)>,
}

impl World {
    /// A jobmanager has lost a deployment: its region starts again alone if it may, and else the whole job.
    pub fn begin_again(&mut self, index: usize, lost: usize) {
        let jm = &mut self.jobmanagers[index];
        jm.running.retain(|deployment| *deployment != lost);
        if jm.running.is_empty() || !jm.has_checkpoint {
            for other in self.own_deployments(index) {
                // Known to have ended.
                self.jobmanagers[index].may_run_on &= !self.deployments[other].alive;
                self.kill(other);
            }
            return self.jobmanagers[index].running.clear();
        }
        self.prepare_again(index, BTreeSet::from([self.deployments[lost].region]));
    }

    /// Those that run on are told of the attempt in which these regions start again.
    fn prepare_again(&mut self, index: usize, regions: BTreeSet<usize>) {
        let jm = &mut self.jobmanagers[index];
        jm.attempt = jm.attempt.next();
        let (attempt, running) = (jm.attempt, jm.running.clone());
        let kept = running.iter().map(|deployment| (*deployment, false)).collect();
        jm.again = Some(Again { regions, kept, restored: None });
        for deployment in running {
            // The connection is ordered, and breaks rather than lose anything: then the tasks are lost too.
            let after = self.way();
            self.queue_in(after, Event::Region { by: index, deployment, attempt, runs_from: None });
        }
    }

    /// What runs on beside regions that start again is lost too: it starts with them. Where nothing is left that runs on,
    /// the whole job does.
    pub fn lost_beside_region(&mut self, index: usize, deployment: usize) -> bool {
        let jm = &mut self.jobmanagers[index];
        let Some(again) = jm.again.take_if(|again| again.kept.contains_key(&deployment)) else { return false };
        jm.running.retain(|running| *running != deployment);
        let alone = jm.running.is_empty();
        self.note(|| format!("jobmanager {index} has lost deployment {deployment} too, which ran on"));
        let Again { mut regions, restored, .. } = again;
        if alone {
            if let Some(restored) = restored {
                self.start_all(index, Some(restored));
            }
            return true;
        }
        self.counters.saw(Seen::RegionExtended);
        regions.insert(self.deployments[deployment].region);
        self.prepare_again(index, regions);
        if let Some(restored) = restored {
            // No other checkpoint was taken since.
            self.region_read(index, restored);
        }
        true
    }

    /// Tasks that run on hear of the other region.
    pub fn hears_of_region(&mut self, by: usize, kept: usize, attempt: Attempt, runs_from: Option<CheckpointId>) {
        let deployment = &mut self.deployments[kept];
        // Where the word of a later one is there, this came before it.
        let overtaken = attempt < deployment.job_attempt;
        if !deployment.alive || deployment.jobmanager != by || deployment.cut_off || overtaken {
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
        let again = jm.again.as_mut().filter(|_| jm.attempt == attempt);
        if let Some(knows) = again.and_then(|again| again.kept.get_mut(&deployment)) {
            *knows = true;
            self.start_again(index);
        }
    }

    /// The checkpoint that the regions start from was read.
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
        let ready = |again: &mut Again| again.restored.is_some() && again.kept.values().all(|knows| *knows);
        let Some(Again { regions, kept, restored: Some(restored) }) = jm.again.take_if(ready) else { return };
        let (generation, attempt) = (jm.generation, jm.attempt);
        jm.asked_for_final = false;
        for other in 0..self.deployments.len() {
            let deployment = &mut self.deployments[other];
            if regions.contains(&deployment.region) && deployment.generation <= generation {
                deployment.superseded.get_or_insert(generation);
                let spared = deployment.cut_off && self.chance(self.plan.spare_old_tasks);
                if !spared && self.deployments[other].generation == generation {
                    self.kill(other);
                }
            }
        }
        self.counters.saw(Seen::RegionRestarted);
        let (checkpoint, instance) = (restored.0, restored.1.instance);
        for region in regions {
            self.start_region(index, region, Some(&restored));
        }
        let runs_from = Some(checkpoint);
        for deployment in kept.into_keys() {
            if self.deployments[deployment].jobmanager == index {
                self.deployments[deployment].tip = Some(instance);
            }
            let after = self.way();
            self.queue_in(after, Event::Region { by: index, deployment, attempt, runs_from });
        }
        self.all_run(index, runs_from);
        // It may have completed when the tasks that run on could not be told.
        self.tell(index, TaskMessage::Complete(checkpoint));
    }
}
