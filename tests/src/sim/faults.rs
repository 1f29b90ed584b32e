//! Crashes and pauses, and where they strike.

use millrace_state::log::protocol::{Answer as LogAnswer, StoreOp};
use rand::{Rng, seq::IteratorRandom};

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, LogTask, Phase},
    plan::{Blow, Planned, Point},
    requests::{Answer, Op},
    world::{Event, World},
};

impl World {
    /// Whether something that happens with this probability, in percent, happens now. Nothing does in the calm.
    pub fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && !self.is_calm() && self.rng.random_range(0..100) < percent
    }

    /// A planned fault is due.
    pub fn planned(&mut self, planned: Planned) {
        match planned {
            Planned::Strike(point, blow) => self.armed.push((point, blow)),
            Planned::CutOff => {
                if let Some(deployment) = self.one_of_the_newest().filter(|d| !self.deployments[*d].cut_off) {
                    self.note(|| format!("deployment {deployment} is cut off"));
                    self.deployments[deployment].cut_off = true;
                    self.notice_loss(deployment);
                }
            }
            Planned::KillTask => {
                if let Some(deployment) = self.one_of_the_newest() {
                    self.counters.saw(Seen::TaskCrash);
                    self.crashes += 1;
                    self.note(|| format!("a task of deployment {deployment} dies"));
                    self.kill(deployment);
                }
            }
        }
    }

    fn one_of_the_newest(&mut self) -> Option<usize> {
        let alive = (0..self.deployments.len()).rev().filter(|d| self.deployments[*d].alive);
        alive.take(self.plan.regions.max(2)).choose(&mut self.rng)
    }

    /// Whether a jobmanager that passes here is hit; a crash or a pause has happened when this returns.
    pub fn strike(&mut self, index: usize, point: Point) -> Option<Blow> {
        if self.is_calm() || !self.jobmanagers[index].alive {
            return None;
        }
        let hits = |(armed, _): &(Point, Blow)| *armed == point || *armed == Point::Anywhere;
        let (_, blow) = self.armed.swap_remove(self.armed.iter().position(hits)?);
        match blow {
            Blow::Crash => {
                match point {
                    Point::Announced => self.counters.saw(Seen::CrashBetweenAnnounceAndDelete),
                    Point::TakingOver => self.counters.saw(Seen::CrashWhileTakingOver),
                    _ => {}
                }
                self.crash(index);
            }
            Blow::Pause(length) => {
                self.note(|| format!("jobmanager {index} stands still for {length} ms at {point:?}"));
                self.jobmanagers[index].paused_until = self.now + length;
                self.replace_soon();
            }
        }
        Some(blow)
    }

    /// A jobmanager dies.
    pub fn crash(&mut self, index: usize) {
        self.note(|| format!("jobmanager {index} dies"));
        self.counters.saw(Seen::JobManagerCrash);
        self.crashes += 1;
        let jm = &mut self.jobmanagers[index];
        jm.alive = false;
        if jm.created_entry {
            self.counters.saw(Seen::CrashBetweenCreateAndAnnounce);
        } else if jm.wrote_metadata {
            self.counters.saw(Seen::CrashBetweenMetadataAndLog);
        }
        if self.rng.random_bool(0.5) {
            (0..self.deployments.len())
                .filter(|d| self.deployments[*d].jobmanager == index && !self.deployments[*d].cut_off)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|d| self.kill(d));
        }
        self.replace_soon();
    }

    fn replace_soon(&mut self) {
        let after = self.rng.random_range(2..15);
        self.queue_in(after, Event::StartJobManager);
    }

    /// A deployment's tasks die; its jobmanager notices a little later.
    pub fn kill(&mut self, deployment: usize) {
        if std::mem::take(&mut self.deployments[deployment].alive) {
            self.notice_loss(deployment);
        }
    }

    fn notice_loss(&mut self, deployment: usize) {
        let after = self.rng.random_range(1..15);
        let index = self.deployments[deployment].jobmanager;
        self.queue_in(after, Event::JobManager(index, JobManagerEvent::TasksLost(deployment)));
    }

    /// Which planned faults may strike before a jobmanager takes notice of an event.
    pub fn point_of(&self, index: usize, event: &JobManagerEvent) -> Option<Point> {
        let jm = &self.jobmanagers[index];
        match event {
            JobManagerEvent::Answer(id, op, answer) if jm.open.contains(id) => Some(match (op, answer) {
                (Op::CreateMetadata(_, own), Answer::Metadata(there)) if own.instance == *there => {
                    Point::MetadataWritten
                }
                (Op::Log(_, StoreOp::Create { .. }), Answer::Log(LogAnswer::Created, _))
                    if matches!(jm.log_task, Some(LogTask::Append(_))) =>
                {
                    Point::Created
                }
                _ if matches!(jm.phase, Phase::TakingOver | Phase::Restoring(_)) => Point::TakingOver,
                _ => Point::Anywhere,
            }),
            JobManagerEvent::Effects(_) => None,
            _ => Some(Point::Anywhere),
        }
    }
}
