//! The model job: sources emit numbered records, counting tasks count them and commit what they counted when a
//! checkpoint completes. Every source has a channel to every counting task; records of a source are dealt out in turn. A
//! job may have up to three such graphs, which nothing connects: its regions.

use std::collections::{BTreeMap, VecDeque};

use millrace_core::{
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    ids::{Attempt, CheckpointId, Generation, TaskId, VertexId},
};
use millrace_runtime::{
    alignment::{AlignerAction, AlignerEvent, BarrierAligner},
    scheduler::adoption::AdoptableTask,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::store::Snapshot;

/// How many elements a channel holds.
const CAPACITY: usize = 6;

/// What flows through a channel.
#[derive(Clone, Copy, Debug)]
enum Element {
    /// Records from a number on, up to another.
    Records(u64, u64),
    Barrier(CheckpointBarrier),
}

/// What a jobmanager tells a task.
#[derive(Clone, Copy, Debug)]
pub enum TaskMessage {
    /// Take a checkpoint.
    Trigger(CheckpointBarrier),
    /// A checkpoint is complete.
    Complete(CheckpointId),
    /// A checkpoint will not complete.
    Aborted(CheckpointId),
    /// The source may read.
    Resume,
}

/// What a task does that others notice.
#[derive(Clone, Debug)]
pub enum TaskOutput {
    /// It took its part of a checkpoint.
    Snapshot(usize, CheckpointId, Snapshot),
    /// That was ahead of records that waited.
    Overtook,
    /// It gave one up.
    Declined(usize, CheckpointId),
    /// A counting task made what it had counted visible.
    Commit(usize, Vec<u64>),
}

#[derive(Clone, Debug)]
struct SourceTask {
    base: u64,
    position: u64,
    held: bool,
    last_barrier: CheckpointId,
}

#[derive(Clone, Debug)]
struct CounterTask {
    aligner: BarrierAligner,
    /// What the task has not heard of yet: barriers in its channels that may overtake.
    announced: VecDeque<(usize, CheckpointBarrier)>,
    channels: Vec<VecDeque<Element>>,
    counts: Vec<u64>,
    next: Vec<u64>,
    /// What is to be committed with each checkpoint.
    prepared: BTreeMap<CheckpointId, Vec<u64>>,
}

/// The tasks of one region that were started in one attempt.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The region.
    pub region: usize,
    /// The jobmanager that started them.
    pub jobmanager: usize,
    /// Its generation, or that of the one that adopted them last.
    pub generation: Generation,
    /// The generation that started them.
    pub started_by: Generation,
    /// The attempt.
    pub attempt: Attempt,
    /// The attempt of the job that they are a part of.
    pub job_attempt: Attempt,
    /// Other regions' tasks of that attempt do not run yet.
    pub joining: bool,
    /// Their jobmanager has lost them, and they know nothing of it.
    pub cut_off: bool,
    /// The first jobmanager that started them again without these.
    pub superseded: Option<Generation>,
    /// Whether they run.
    pub alive: bool,
    /// The checkpoint instance that they continue: the restored one, then each that was taken of them.
    pub tip: Option<usize>,
    /// The checkpoint that they or those beside them were restored from, or at which they were adopted.
    pub continues: Option<CheckpointId>,
    /// For each task, the number of the latest message that has reached it, and of the latest one that it sent and that
    /// arrived.
    pub latest: Vec<(u64, u64)>,
    exact: bool,
    unaligned: bool,
    keeps_in_flight: bool,
    sources: Vec<SourceTask>,
    counters: Vec<CounterTask>,
}

/// How the tasks of an attempt begin.
#[derive(Clone, Debug)]
pub struct Start {
    /// The region.
    pub region: usize,
    /// The jobmanager, its generation and the attempt.
    pub by: (usize, Generation, Attempt),
    /// The job's guarantee.
    pub exact: bool,
    /// How barriers are handled. Differs from the guarantee in the mutation without alignment.
    pub mode: CheckpointingMode,
    /// Whether barriers may overtake records.
    pub unaligned: bool,
    /// Whether these belong to the checkpoint then. Not so in the mutation without.
    pub keeps_in_flight: bool,
    /// The first record of each source, where nothing is restored.
    pub bases: Vec<u64>,
    /// How many counting tasks.
    pub counters: usize,
    /// The checkpoint that is restored: its id, its instance and the states.
    pub restored: Option<(CheckpointId, usize, BTreeMap<TaskId, Snapshot>)>,
}

impl Deployment {
    /// Starts the tasks. Without a restored state the sources are held.
    pub fn start(start: Start) -> Self {
        let Start { region, by, exact, mode, unaligned, keeps_in_flight, bases, counters, restored } = start;
        let (jobmanager, generation, attempt) = by;
        let held = restored.is_none();
        let continues = restored.as_ref().map(|(id, ..)| *id);
        let (tip, states) = restored.map_or((None, BTreeMap::new()), |(_, instance, states)| (Some(instance), states));
        let sources = bases.iter().enumerate().map(|(index, &latest)| {
            let (base, position) = match states.get(&task_id(region, index, bases.len())) {
                Some(Snapshot::Source { base, position }) => (*base, *position),
                _ => (latest, latest),
            };
            SourceTask { base, position, held, last_barrier: CheckpointId(0) }
        });
        let sources: Vec<_> = sources.collect();
        let counters = (0..counters).map(|index| {
            let (counts, next, in_flight) = match states.get(&task_id(region, bases.len() + index, bases.len())) {
                Some(Snapshot::Counter { counts, next, in_flight }) => {
                    (counts.clone(), next.clone(), in_flight.clone())
                }
                _ => {
                    let bases = sources.iter().map(|source| source.base);
                    (vec![0; bases.len()], bases.collect(), vec![Vec::new(); sources.len()])
                }
            };
            let restored = |records: Vec<(u64, u64)>| records.into_iter().map(|(from, to)| Element::Records(from, to));
            CounterTask {
                aligner: BarrierAligner::new(mode, bases.len()),
                announced: VecDeque::new(),
                channels: in_flight.into_iter().map(|records| restored(records).collect()).collect(),
                counts,
                next,
                prepared: BTreeMap::new(),
            }
        });
        let counters: Vec<_> = counters.collect();
        let latest = vec![(0, 0); sources.len() + counters.len()];
        let alive = true;
        Self {
            region,
            jobmanager,
            generation,
            started_by: generation,
            attempt,
            job_attempt: attempt,
            joining: false,
            cut_off: false,
            superseded: None,
            alive,
            tip,
            continues,
            latest,
            exact,
            unaligned,
            keeps_in_flight,
            sources,
            counters,
        }
    }

    /// The tasks as their taskmanagers report them to a new jobmanager.
    pub fn reports(&self) -> Vec<AdoptableTask> {
        let held = |index| self.sources.get(index).is_some_and(|source: &SourceTask| source.held);
        let of_task = |(index, task)| AdoptableTask {
            task,
            generation: self.generation,
            attempt: self.attempt,
            job_attempt: self.job_attempt,
            continues: self.continues,
            triggered: self.sources.get(index).map(|source: &SourceTask| source.last_barrier),
            unsteady: (self.joining || held(index)).then(|| "is held, or waits for others".to_string()),
            ended: false,
            splits: Vec::new(),
        };
        self.tasks().enumerate().map(of_task).collect()
    }

    /// Whether any records wait in the channels.
    pub fn has_in_flight(&self) -> bool {
        let mut channels = self.counters.iter().flat_map(|counter| &counter.channels);
        channels.any(|channel| channel.iter().any(|element| matches!(element, Element::Records(..))))
    }

    /// The ids of all tasks.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        (0..self.latest.len()).map(|index| task_id(self.region, index, self.sources.len()))
    }

    /// How many sources there are; they come first.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Whether everything up to the sources' ends has been read and counted.
    pub fn has_read_all(&self, end: impl Fn(usize) -> u64) -> bool {
        let read = |(index, source): (usize, &SourceTask)| !source.held && source.position >= end(index);
        self.sources.iter().enumerate().all(read)
            && self.counters.iter().all(|counter| counter.channels.iter().all(VecDeque::is_empty))
    }

    /// Whether a source has read anything.
    pub fn has_read(&self) -> bool {
        self.sources.iter().any(|source| source.position > source.base)
    }

    /// Lets a random task do something.
    pub fn step(&mut self, rng: &mut ChaCha8Rng, end: impl Fn(usize) -> u64) -> Result<Vec<TaskOutput>, String> {
        let index = rng.random_range(0..self.latest.len());
        if index < self.sources.len() {
            self.emit(index, rng.random_range(1..4), end(index));
            return Ok(Vec::new());
        }
        self.take(index - self.sources.len(), rng)
    }

    fn emit(&mut self, index: usize, records: u64, end: u64) {
        let full = self.counters.iter().any(|counter| counter.channels[index].len() >= CAPACITY);
        let source = &mut self.sources[index];
        let to = end.min(source.position + records);
        if source.held || full || to <= source.position {
            return;
        }
        for counter in &mut self.counters {
            counter.channels[index].push_back(Element::Records(source.position, to));
        }
        source.position = to;
    }

    fn take(&mut self, index: usize, rng: &mut ChaCha8Rng) -> Result<Vec<TaskOutput>, String> {
        let (sources, counters) = (self.sources.len(), self.counters.len());
        if let Some((channel, barrier)) = self.counters[index].announced.pop_front() {
            return Ok(self.align(index, AlignerEvent::Announced { channel, barrier }));
        }
        let pending = self.counters[index].aligner.pending().last();
        if let Some(id) = pending.filter(|_| self.unaligned && rng.random_range(0..4) == 0) {
            return Ok(self.align(index, AlignerEvent::TimedOut(id)));
        }
        let counter = &mut self.counters[index];
        let first = rng.random_range(0..sources);
        let free = |channel: &usize| !counter.channels[*channel].is_empty() && !counter.aligner.is_blocked(*channel);
        let Some(channel) = (0..sources).map(|offset| (first + offset) % sources).find(free) else {
            return Ok(Vec::new());
        };
        match counter.channels[channel].pop_front() {
            Some(Element::Records(from, to)) => {
                let next = counter.next[channel];
                if from > next || (self.exact && from != next) {
                    return Err(format!(
                        "counter {index} awaited record {next} of source {channel} and got {from}, attempt {} of \
                         generation {}",
                        self.attempt, self.generation
                    ));
                }
                counter.counts[channel] += dealt(channel, index, counters, from, to);
                counter.next[channel] = next.max(to);
                Ok(Vec::new())
            }
            Some(Element::Barrier(barrier)) => Ok(self.align(index, AlignerEvent::Barrier { channel, barrier })),
            None => Ok(Vec::new()),
        }
    }

    fn align(&mut self, index: usize, event: AlignerEvent) -> Vec<TaskOutput> {
        let task = self.sources.len() + index;
        let counter = &mut self.counters[index];
        let mut outputs = Vec::new();
        for action in counter.aligner.on(event) {
            match action {
                // Which channels are free is asked for every element.
                AlignerAction::Block(_) | AlignerAction::UnblockAll => {}
                AlignerAction::Snapshot(barrier) => outputs.push(counter.snapshot(task, barrier, false)),
                AlignerAction::Overtake(barrier) => {
                    outputs.push(counter.snapshot(task, barrier, self.keeps_in_flight));
                    outputs.push(TaskOutput::Overtook);
                }
                AlignerAction::Abandon(id) => outputs.push(TaskOutput::Declined(task, id)),
            }
        }
        outputs
    }

    /// A message reaches a task.
    pub fn receive(&mut self, task: usize, message: TaskMessage) -> Vec<TaskOutput> {
        match (message, task.checked_sub(self.sources.len())) {
            (TaskMessage::Trigger(barrier), None) => self.trigger(task, barrier),
            (TaskMessage::Resume, None) => {
                self.sources[task].held = false;
                Vec::new()
            }
            (TaskMessage::Complete(id), Some(index)) => self.commit(index, id),
            (TaskMessage::Aborted(id), Some(index)) => {
                self.counters[index].prepared.remove(&id);
                self.align(index, AlignerEvent::Aborted(id));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn trigger(&mut self, index: usize, barrier: CheckpointBarrier) -> Vec<TaskOutput> {
        let source = &mut self.sources[index];
        // Barriers ascend on every channel, whatever the order of the messages.
        if barrier.id <= source.last_barrier {
            return Vec::new();
        }
        source.last_barrier = barrier.id;
        for counter in &mut self.counters {
            counter.channels[index].push_back(Element::Barrier(barrier));
            if self.unaligned {
                counter.announced.push_back((index, barrier));
            }
        }
        let snapshot = Snapshot::Source { base: source.base, position: source.position };
        vec![TaskOutput::Snapshot(index, barrier.id, snapshot)]
    }

    fn commit(&mut self, index: usize, id: CheckpointId) -> Vec<TaskOutput> {
        let counter = &mut self.counters[index];
        let later = counter.prepared.split_off(&id.next());
        let prepared = std::mem::replace(&mut counter.prepared, later);
        prepared.into_values().next_back().map(|counts| TaskOutput::Commit(index, counts)).into_iter().collect()
    }
}

impl CounterTask {
    /// The task's part of a checkpoint, with what waits before the barrier in its channels or without.
    fn snapshot(&mut self, task: usize, barrier: CheckpointBarrier, with_in_flight: bool) -> TaskOutput {
        self.prepared.insert(barrier.id, self.counts.clone());
        let before = |channel: &VecDeque<Element>| {
            let is_barrier = |element: &Element| matches!(element, Element::Barrier(b) if b.id == barrier.id);
            let at = channel.iter().position(is_barrier).filter(|_| with_in_flight).unwrap_or(0);
            let records = channel.iter().take(at).filter_map(|element| match element {
                Element::Records(from, to) => Some((*from, *to)),
                Element::Barrier(_) => None,
            });
            records.collect()
        };
        let snapshot = Snapshot::Counter {
            counts: self.counts.clone(),
            next: self.next.clone(),
            in_flight: self.channels.iter().map(before).collect(),
        };
        TaskOutput::Snapshot(task, barrier.id, snapshot)
    }
}

/// The id of a task by its index among all of its region.
pub fn task_id(region: usize, index: usize, sources: usize) -> TaskId {
    let (vertex, subtask) = if index < sources { (0, index) } else { (1, index - sources) };
    TaskId { vertex: VertexId(2 * region as u32 + vertex), subtask: subtask as u32 }
}

/// How many of a source's records from one number up to another a counting task is dealt.
pub fn dealt(source: usize, counter: usize, counters: usize, from: u64, to: u64) -> u64 {
    let all = counters as u64;
    let first = (counter as u64 + all - source as u64 % all) % all;
    let below = |end: u64| (end + all - 1 - first) / all;
    below(to) - below(from)
}

#[cfg(test)]
mod tests {
    use super::dealt;

    #[test]
    fn every_record_is_dealt_to_one_counter() {
        for (source, counters, from, to) in [(0, 1, 0, 9), (1, 2, 3, 10), (2, 2, 4, 5), (2, 3, 0, 100)] {
            let by_hand =
                |counter| (from..to).filter(|r| (r + source as u64) % counters as u64 == counter as u64).count();
            for counter in 0..counters {
                assert_eq!(dealt(source, counter, counters, from, to), by_hand(counter) as u64);
            }
        }
    }
}
