//! Messages between jobmanager and tasks: lost, doubled, out of order.

use millrace_core::{
    ids::{CheckpointId, OperatorUid},
    key::KeyGroupRange,
};
use millrace_runtime::{
    coordinator::{TaskAnswer, TaskPart},
    task::SubtaskCheckpointMetrics,
};
use millrace_state::{KeyedStateHandle, OperatorSubtaskState, StateHandle};
use rand::Rng;

use super::{
    counters::Seen,
    jobmanager::{JobManagerEvent, no_answer},
    store::Snapshot,
    task::{TaskMessage, TaskOutput, task_id},
    world::{Event, World},
};

impl World {
    /// A jobmanager tells its tasks something.
    pub fn tell(&mut self, index: usize, message: TaskMessage) {
        for deployment in self.own_deployments(index) {
            self.tell_deployment(index, deployment, message);
        }
    }

    fn tell_deployment(&mut self, index: usize, deployment: usize, message: TaskMessage) {
        let tasks = match message {
            TaskMessage::Trigger(_) | TaskMessage::Resume => self.deployments[deployment].sources(),
            _ => self.deployments[deployment].latest.len(),
        };
        for task in 0..tasks {
            let number = self.unique();
            // Nothing tells a source again that it may read: its connection would break, and the job restart.
            let reliable = matches!(message, TaskMessage::Resume);
            for copy in self.copies(reliable) {
                let after = self.way();
                self.queue_in(after, Event::Task { by: index, deployment, task, number, message, copy });
            }
        }
    }

    /// A message reaches a task.
    pub fn at_task(
        &mut self,
        by: usize,
        (deployment, task): (usize, usize),
        number: u64,
        message: TaskMessage,
        copy: bool,
    ) {
        let receiver = &mut self.deployments[deployment];
        if !receiver.alive || receiver.jobmanager != by || receiver.cut_off {
            return;
        }
        if copy {
            self.counters.saw(Seen::DuplicatedMessage);
        } else if number < receiver.latest[task].0 {
            self.counters.saw(Seen::ReorderedMessage);
        }
        receiver.latest[task].0 = receiver.latest[task].0.max(number);
        let outputs = receiver.receive(task, message);
        self.outputs(deployment, outputs);
    }

    /// Lets a deployment's tasks work.
    pub fn step_tasks(&mut self, deployment: usize) {
        if !self.deployments[deployment].alive {
            return;
        }
        for _ in 0..4 {
            let (now, plan) = (self.now, &self.plan);
            let end = |source| super::world::topic_end(plan, now, source);
            match self.deployments[deployment].step(&mut self.rng, end) {
                Ok(outputs) => self.outputs(deployment, outputs),
                Err(error) => self.violated(error),
            }
        }
        self.records_were_read |= self.deployments[deployment].has_read();
        self.queue_in(1, Event::Step(deployment));
    }

    fn outputs(&mut self, deployment: usize, outputs: Vec<TaskOutput>) {
        for output in outputs {
            match output {
                TaskOutput::Overtook => self.counters.saw(Seen::Overtook),
                TaskOutput::Snapshot(task, checkpoint, _) if self.chance(self.plan.fail_snapshot) => {
                    self.answer(deployment, task, checkpoint, None);
                }
                TaskOutput::Snapshot(task, checkpoint, snapshot) => {
                    let after = self.rng.random_range(1..6);
                    self.queue_in(after, Event::Persist { deployment, task, checkpoint, snapshot });
                }
                TaskOutput::Declined(task, checkpoint) => self.answer(deployment, task, checkpoint, None),
                TaskOutput::Commit(counter, counts) if self.plan.is_exact() => {
                    let counter = self.deployments[deployment].region * self.plan.counters + counter;
                    let result = self.oracle.commits(counter, counts);
                    self.expect(result);
                }
                TaskOutput::Commit(..) => {}
            }
        }
    }

    /// A task's snapshot is in the store, and its jobmanager is told.
    pub fn persist(&mut self, deployment: usize, task: usize, checkpoint: CheckpointId, snapshot: Snapshot) {
        let name = format!("{checkpoint}-{}.state", self.unique());
        self.store.put_state(checkpoint, name.clone(), snapshot);
        let data = StateHandle::File { directory: String::new(), name, size: 1, crc32: 0 };
        let keyed = Some(KeyedStateHandle { range: KeyGroupRange { start: 0, end: 0 }, data });
        let state = OperatorSubtaskState {
            uid: OperatorUid(String::new()),
            keyed,
            lists: Vec::new(),
            in_flight: None,
            ahead: Vec::new(),
        };
        self.answer(deployment, task, checkpoint, Some(state));
    }

    /// A task answers a barrier.
    fn answer(&mut self, from: usize, task: usize, checkpoint: CheckpointId, state: Option<OperatorSubtaskState>) {
        let number = self.unique();
        let deployment = &self.deployments[from];
        if !deployment.alive || deployment.cut_off {
            return;
        }
        let outcome = state
            .map(|state| TaskPart { state: vec![state], metrics: SubtaskCheckpointMetrics::default() })
            .ok_or_else(no_answer);
        let (generation, attempt) = (deployment.generation, deployment.attempt);
        let task_id = task_id(deployment.region, task, deployment.sources());
        let answer = TaskAnswer { generation, attempt, task: task_id, checkpoint, outcome };
        let own = deployment.jobmanager;
        let newest = self.jobmanagers.len() - 1;
        if newest != own && self.chance(self.plan.misdirect) {
            let after = self.way();
            let event = JobManagerEvent::Task(from, task, number, answer.clone());
            self.queue_in(after, Event::JobManager(newest, event));
        }
        for copy in self.copies(false) {
            if copy {
                self.counters.saw(Seen::DuplicatedMessage);
            }
            let after = self.way();
            let event = JobManagerEvent::Task(from, task, number, answer.clone());
            self.queue_in(after, Event::JobManager(own, event));
        }
    }

    /// Which copies of a message arrive; `true` marks one that is one too many.
    fn copies(&mut self, reliable: bool) -> Vec<bool> {
        if !reliable && self.chance(self.plan.lose_message) {
            self.counters.saw(Seen::LostMessage);
            return Vec::new();
        }
        if self.chance(self.plan.double_message) { vec![false, true] } else { vec![false] }
    }

    /// How long a message is on its way.
    pub fn way(&mut self) -> u64 {
        let slow = self.chance(self.plan.delay_message);
        self.rng.random_range(if slow { 5..60 } else { 1..3 })
    }
}
