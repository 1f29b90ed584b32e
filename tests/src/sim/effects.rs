//! What a jobmanager's shell does for its checkpoint coordinator.

use std::{collections::BTreeSet, rc::Rc};

use millrace_core::ids::CheckpointId;
use millrace_runtime::coordinator::{Effect, MetadataReceipt, TaskStates, TriggerReason};
use millrace_state::log::CheckpointRecord;

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, LogTask, Phase},
    oracle::{check_positions, check_state},
    plan::{Blow, Point},
    requests::Op,
    store::{Metadata, file_names},
    task::TaskMessage,
    world::{Event, World},
};

impl World {
    /// Runs a coordinator's effects in their order.
    pub fn run_effects(&mut self, index: usize, effects: Vec<Effect>) {
        let mut announced = None;
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            if !self.jobmanagers[index].alive {
                return;
            }
            match &effect {
                Effect::Announce { checkpoint, .. } => announced = Some(*checkpoint),
                Effect::Abort(id) if announced.is_some_and(|newer| *id < newer) => self.counters.saw(Seen::Superseded),
                Effect::Abort(_) => self.counters.saw(Seen::FailedCheckpoint),
                _ => {}
            }
            let is_announcement = matches!(effect, Effect::Announce { .. });
            self.run_effect(index, effect);
            if is_announcement && let Some(Blow::Pause(_)) = self.strike(index, Point::Announced) {
                let rest = JobManagerEvent::Effects(effects.collect());
                return self.queue_at(self.jobmanagers[index].paused_until, Event::JobManager(index, rest));
            }
        }
    }

    fn run_effect(&mut self, index: usize, effect: Effect) {
        self.note(|| format!("jobmanager {index}: {}", brief(&effect)));
        match effect {
            Effect::Trigger(barrier) => self.tell(index, TaskMessage::Trigger(barrier)),
            Effect::Abort(id) => self.tell(index, TaskMessage::Aborted(id)),
            Effect::WriteMetadata { checkpoint, states } => self.write_metadata(index, checkpoint, &states),
            Effect::AppendLog { checkpoint, triggered_at_ms, metadata } => {
                let record = record(checkpoint, triggered_at_ms, metadata);
                self.want_of_log(index, LogTask::Append(record));
            }
            Effect::Relist { checkpoint } => self.want_of_log(index, LogTask::Check(checkpoint)),
            Effect::Announce { checkpoint, reason } => self.announce(index, checkpoint, reason),
            Effect::DiscardState(states) => {
                let names = file_names(&states).map(str::to_string).collect();
                self.request(index, Op::DeleteFiles(names));
            }
            Effect::DeleteCheckpoints(ids) => ids.into_iter().for_each(|id| self.delete_checkpoint(index, id)),
            Effect::FailJob(_) => {
                self.own_deployments(index).into_iter().for_each(|deployment| self.kill(deployment));
            }
            Effect::Stop => {
                self.counters.saw(Seen::Fenced);
                self.retire(index);
            }
        }
    }

    fn write_metadata(&mut self, index: usize, checkpoint: CheckpointId, states: &TaskStates) {
        let running = self.jobmanagers[index].running.clone();
        // Where another has adopted them, this one is fenced, and what they continue is not its business.
        let own = running.iter().all(|deployment| self.deployments[*deployment].jobmanager == index);
        let tips: BTreeSet<_> = running.iter().map(|deployment| self.deployments[*deployment].tip).collect();
        if own && tips.len() > 1 {
            self.violated(format!("tasks that continue {tips:?} take part in checkpoint {checkpoint}"));
        }
        let instance = self.oracle.begin(tips.into_iter().next().flatten(), checkpoint);
        for deployment in running.into_iter().filter(|_| own) {
            self.deployments[deployment].tip = Some(instance);
        }
        self.jobmanagers[index].instances.insert(checkpoint, instance);
        let by = (self.jobmanagers[index].generation, self.jobmanagers[index].attempt);
        let metadata = Rc::new(Metadata { instance, by, states: Rc::new(states.clone()) });
        self.request(index, Op::CreateMetadata(checkpoint, metadata));
    }

    fn announce(&mut self, index: usize, checkpoint: CheckpointId, reason: TriggerReason) {
        self.must_not_know_better(index, "announces a checkpoint");
        self.counters.saw(Seen::Announced);
        self.jobmanagers[index].created_entry = false;
        self.jobmanagers[index].has_checkpoint = true;
        let instance = self.jobmanagers[index].instances.get(&checkpoint).copied();
        let result = instance
            .ok_or_else(|| format!("checkpoint {checkpoint} is announced and was never written"))
            .and_then(|instance| self.oracle.announces(instance));
        self.expect(result);
        self.tell(index, TaskMessage::Complete(checkpoint));
        match reason {
            TriggerReason::Initial => self.tell(index, TaskMessage::Resume),
            TriggerReason::Final => {
                self.jobmanagers[index].phase = Phase::Finishing;
                self.check_end(checkpoint);
                self.want_of_log(index, LogTask::Terminal);
            }
            _ => {}
        }
    }

    /// The final checkpoint holds every record.
    fn check_end(&mut self, checkpoint: CheckpointId) {
        let ends: Vec<_> = (0..self.plan.sources).map(|source| self.topic_end(source)).collect();
        let result = self.store.read_checkpoint(checkpoint).and_then(|restored| {
            check_state(&self.plan, &restored.snapshots)?;
            check_positions(self.plan.regions, &ends, &restored.snapshots)
        });
        self.expect(result);
    }

    /// Deletes a checkpoint.
    pub fn delete_checkpoint(&mut self, index: usize, checkpoint: CheckpointId) {
        self.must_not_know_better(index, "deletes a checkpoint");
        self.counters.saw(Seen::Deleted);
        self.request(index, Op::DeleteCheckpoint(checkpoint));
    }

    /// A jobmanager that has seen a newer generation leaves everything as it is.
    fn must_not_know_better(&mut self, index: usize, does: &str) {
        let jm = &self.jobmanagers[index];
        if jm.listed > jm.generation {
            let (own, seen) = (jm.generation, jm.listed);
            self.violated(format!("jobmanager {index} of generation {own} {does} and has listed generation {seen}"));
        }
    }
}

fn record(checkpoint: CheckpointId, created_at_ms: u64, metadata: MetadataReceipt) -> CheckpointRecord {
    CheckpointRecord {
        id: checkpoint,
        metadata: format!("chk-{checkpoint}/_metadata"),
        metadata_size: metadata.size,
        metadata_crc32: metadata.crc32,
        created_at_ms,
        commits: metadata.commits,
    }
}

/// An effect in a few words.
fn brief(effect: &Effect) -> String {
    match effect {
        Effect::WriteMetadata { checkpoint, .. } => format!("WriteMetadata({checkpoint})"),
        Effect::DiscardState(states) => format!("DiscardState({:?})", file_names(states).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}
