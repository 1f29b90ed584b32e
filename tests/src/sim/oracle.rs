//! What must hold whatever happens, judged from outside, by someone who sees everything.

use std::collections::BTreeMap;

use millrace_core::ids::{CheckpointId, TaskId};

use super::{
    plan::Plan,
    store::Snapshot,
    task::{dealt, task_id},
};

/// The judge. Checkpoint ids may be used by several jobmanagers; an *instance* is one that a jobmanager tried to
/// complete, and knows what it continues.
#[derive(Debug, Default)]
pub struct Oracle {
    instances: Vec<Instance>,
    announced: Vec<usize>,
    announced_ids: BTreeMap<CheckpointId, usize>,
    /// What the tasks of the newest generation were last restored from.
    newest_restore: Option<usize>,
    /// What each counting task's sink has made visible, for each source.
    committed: BTreeMap<usize, Vec<u64>>,
}

#[derive(Debug)]
struct Instance {
    parent: Option<usize>,
    checkpoint: CheckpointId,
}

impl Oracle {
    /// A jobmanager begins to complete a checkpoint whose tasks continue `parent`.
    pub fn begin(&mut self, parent: Option<usize>, checkpoint: CheckpointId) -> usize {
        self.instances.push(Instance { parent, checkpoint });
        self.instances.len() - 1
    }

    /// How many checkpoints were announced.
    pub fn announced(&self) -> usize {
        self.announced_ids.len()
    }

    /// The newest generation restores its tasks. What was announced as complete must be in it, and what sinks have made
    /// visible must not be produced again.
    pub fn restores(
        &mut self,
        plan: &Plan,
        instance: usize,
        snapshots: &BTreeMap<TaskId, Snapshot>,
    ) -> Result<(), String> {
        self.newest_restore = Some(instance);
        if let Some(&lost) = self.announced.iter().find(|&&announced| !self.continues(instance, announced)) {
            return Err(format!("{} was announced, and {} is restored", self.name(lost), self.name(instance)));
        }
        for (counter, committed) in self.committed.iter().filter(|_| plan.is_exact()) {
            let task = task_id(counter / plan.counters, plan.sources + counter % plan.counters, plan.sources);
            let Some(Snapshot::Counter { counts, .. }) = snapshots.get(&task) else { continue };
            if committed.iter().zip(counts).any(|(committed, restored)| committed > restored) {
                return Err(format!(
                    "counter {counter} has committed {committed:?} records and is restored to {counts:?} from {}",
                    self.name(instance)
                ));
            }
        }
        Ok(())
    }

    /// The newest generation adopts tasks that continue this instance. What was announced as complete must be in it.
    pub fn adopts(&mut self, tip: Option<usize>) -> Result<(), String> {
        let Some(tip) = tip else { return Err("tasks that never took a checkpoint are adopted".to_string()) };
        self.newest_restore = Some(tip);
        match self.announced.iter().find(|&&announced| !self.continues(tip, announced)) {
            Some(&lost) => Err(format!(
                "{} was announced, and tasks that continue {} are adopted",
                self.name(lost),
                self.name(tip)
            )),
            None => Ok(()),
        }
    }

    /// The newest generation starts its tasks from nothing.
    pub fn starts_empty(&self, records_were_read: bool) -> Result<(), String> {
        match self.announced.first() {
            Some(&lost) => Err(format!("{} was announced, and the job starts from nothing", self.name(lost))),
            None if records_were_read => Err("records were read, and the start positions are found anew".to_string()),
            None => Ok(()),
        }
    }

    /// A jobmanager announces a checkpoint as complete. All that are announced, and what the newest generation was
    /// restored from, must be one line of history.
    pub fn announces(&mut self, instance: usize) -> Result<(), String> {
        let id = self.instances[instance].checkpoint;
        if let Some(&other) = self.announced_ids.get(&id).filter(|&&other| other != instance) {
            return Err(format!(
                "two checkpoints are announced under one id: {} and {}",
                self.name(other),
                self.name(instance)
            ));
        }
        let one_line = |other: &usize| self.continues(*other, instance) || self.continues(instance, *other);
        if let Some(&other) = self.announced.iter().find(|other| !one_line(other)) {
            return Err(format!(
                "{} and {} are announced, and neither continues the other",
                self.name(other),
                self.name(instance)
            ));
        }
        if let Some(other) = self.newest_restore.filter(|other| !one_line(other)) {
            return Err(format!("{} is announced, and the job goes on from {}", self.name(instance), self.name(other)));
        }
        self.announced.push(instance);
        self.announced_ids.insert(id, instance);
        Ok(())
    }

    /// The sink of a counting task makes visible what was counted.
    pub fn commits(&mut self, counter: usize, counts: Vec<u64>) -> Result<(), String> {
        let committed = self.committed.entry(counter).or_insert_with(|| vec![0; counts.len()]);
        let above = committed.iter().zip(&counts).any(|(before, now)| now > before);
        let below = committed.iter().zip(&counts).any(|(before, now)| now < before);
        match (above, below) {
            (true, true) => Err(format!("counter {counter} commits {counts:?} after {committed:?}")),
            (true, false) => {
                *committed = counts;
                Ok(())
            }
            // An older commit once more.
            (false, _) => Ok(()),
        }
    }

    fn continues(&self, instance: usize, earlier: usize) -> bool {
        let mut at = Some(instance);
        while let Some(here) = at {
            if here == earlier {
                return true;
            }
            at = self.instances[here].parent;
        }
        false
    }

    fn name(&self, instance: usize) -> String {
        format!("checkpoint {} (instance {instance})", self.instances[instance].checkpoint)
    }
}

/// Checks a job's whole state: counts against positions. Returns whether records are going to be counted again.
pub fn check_state(plan: &Plan, snapshots: &BTreeMap<TaskId, Snapshot>) -> Result<bool, String> {
    let mut again = false;
    for (region, source) in (0..plan.regions).flat_map(|region| (0..plan.sources).map(move |source| (region, source))) {
        let Some(Snapshot::Source { base, position }) = snapshots.get(&task_id(region, source, plan.sources)) else {
            return Err(format!("the state of source {source} is missing"));
        };
        for counter in 0..plan.counters {
            let Some(Snapshot::Counter { counts, in_flight, .. }) =
                snapshots.get(&task_id(region, plan.sources + counter, plan.sources))
            else {
                return Err(format!("the state of counter {counter} is missing"));
            };
            let expected = dealt(source, counter, plan.counters, *base, *position);
            let to_come = in_flight[source].iter().map(|(from, to)| dealt(source, counter, plan.counters, *from, *to));
            let known = counts[source] + to_come.sum::<u64>();
            if known < expected || (plan.is_exact() && known != expected) {
                return Err(format!(
                    "counter {counter} knows of {known} records of source {source}, and its position {position} says \
                     {expected}"
                ));
            }
            again |= known > expected;
        }
    }
    Ok(again)
}

/// Checks that everything was read.
pub fn check_positions(regions: usize, ends: &[u64], snapshots: &BTreeMap<TaskId, Snapshot>) -> Result<(), String> {
    let all = (0..regions).flat_map(|region| ends.iter().enumerate().map(move |(source, end)| (region, source, end)));
    for (region, source, end) in all {
        match snapshots.get(&task_id(region, source, ends.len())) {
            Some(Snapshot::Source { position, .. }) if position == end => {}
            other => return Err(format!("source {source} ends at {end}, and the final checkpoint has {other:?}")),
        }
    }
    Ok(())
}
