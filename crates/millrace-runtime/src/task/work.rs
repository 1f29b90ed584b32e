//! A task's loop: takes what comes, in order, until it is told to finish.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use millrace_core::{
    Batch, Result,
    ids::{CheckpointId, InputId},
    source::ReadStatus,
};

use super::{
    TaskCommand, TaskEvent,
    blame::Blame,
    debloater::Debloater,
    figures::{self, FiguresTimer},
    gate::{Gate, GateEvent, StreamElement},
    handle::TaskSetup,
    in_flight::RecordTypes,
    run::{Ended, Parts, SOURCE_WAIT},
    sizer::BatchSizer,
    snapshot::BarrierTimes,
};
use crate::{
    alignment::{AlignerEvent, BarrierAligner},
    metrics::{Activity, TaskMetrics},
};

/// The clock may be set: a timer is not slept for longer than this at a time.
const LONGEST_TIMER_WAIT: Duration = Duration::from_millis(50);

/// A running task.
pub(super) struct Work<'a> {
    pub(super) setup: &'a Arc<TaskSetup>,
    pub(super) gate: &'a Arc<Gate>,
    pub(super) metrics: &'a TaskMetrics,
    pub(super) blame: &'a Rc<Blame>,
    pub(super) parts: &'a mut Parts,
    sizer: BatchSizer,
    figures: FiguresTimer,
    last_call: Option<Call>,
    debloater: Option<Debloater>,
    /// Spent on checkpoints: a sink that takes long to prepare and to commit is not slow with records. Were it measured
    /// as such, ever fewer records would come in between two checkpoints.
    pub(super) aside: Duration,
    pub(super) aligner: BarrierAligner,
    pub(super) barriers: BTreeMap<CheckpointId, BarrierTimes>,
    /// Which checkpoint's barriers may overtake, and from when on.
    pub(super) overtaking: Option<(CheckpointId, Instant)>,
    /// What is known of the records of the job's edges.
    pub(super) record_types: Option<RecordTypes>,
    /// Snapshots that may still be under way, each with the flag that drops it.
    pub(super) writing: BTreeMap<CheckpointId, Arc<AtomicBool>>,
    /// The channels whose input has ended. They stay open for barriers.
    ended_channels: Vec<bool>,
    /// All input has been read and told on.
    ended: bool,
    /// So many records, since the start, are to be read until the source is where it was before a failure.
    again: u64,
    /// Somebody waits for the next batch to be put out.
    tell_output: bool,
}

/// A call into the chain, of which it is not known yet how long the task will wait for consumers because of it.
struct Call {
    records: usize,
    /// How long it lasted, without waiting.
    own: Duration,
    /// How long the task had waited before it.
    waited_before: Duration,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // The final checkpoint is complete, or the attempt is over: nobody waits for what is still being written.
        self.writing.values().for_each(|aborted| aborted.store(true, Ordering::Relaxed));
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(
        setup: &'a Arc<TaskSetup>,
        gate: &'a Arc<Gate>,
        metrics: &'a TaskMetrics,
        blame: &'a Rc<Blame>,
        parts: &'a mut Parts,
    ) -> Self {
        let channels = gate.channels().len();
        Self {
            setup,
            gate,
            metrics,
            blame,
            parts,
            sizer: BatchSizer::new(setup.settings.max_batch_size),
            figures: FiguresTimer::new(),
            last_call: None,
            debloater: setup.settings.debloat.map(|settings| Debloater::new(settings, channels)),
            aside: Duration::ZERO,
            aligner: BarrierAligner::new(setup.spec.barriers.unwrap_or_default().mode, channels),
            barriers: BTreeMap::new(),
            overtaking: None,
            record_types: None,
            writing: BTreeMap::new(),
            ended_channels: vec![false; channels],
            ended: false,
            again: setup.spec.again,
            tell_output: false,
        }
    }

    /// Runs until the task is told to finish; `early` came before the start.
    pub(super) fn run(mut self, early: Vec<TaskCommand>) -> Result<Ended> {
        for command in early {
            if let Some(ended) = self.command(command)? {
                return Ok(ended);
            }
        }
        if self.parts.source.is_some() { self.run_source() } else { self.run_inputs() }
    }

    fn run_inputs(&mut self) -> Result<Ended> {
        loop {
            let wait = self.timer_wait().into_iter().chain(self.overtaking_wait()).min();
            let event = self.next(wait);
            if let Some(ended) = self.event(event)? {
                return Ok(ended);
            }
            if self.overtaking_wait() == Some(Duration::ZERO) {
                self.time_out()?;
            }
            if self.timer_wait() == Some(Duration::ZERO) && self.parts.outputs.have_room(self.gate) {
                self.parts.chain.fire_timers(self.setup.clock.now(), &mut self.parts.outputs)?;
            }
        }
    }

    /// How long it is until a timer fires; `None` where none does. Behind the end of the input nothing can be sent.
    fn timer_wait(&self) -> Option<Duration> {
        let next = self.parts.chain.next_timer().filter(|_| !self.ended)?;
        let left = next.saturating_sub(self.setup.clock.now());
        Some(Duration::from_millis(left).min(LONGEST_TIMER_WAIT))
    }

    fn run_source(&mut self) -> Result<Ended> {
        let mut wait = Some(Duration::ZERO);
        loop {
            let event = self.next(wait);
            let idle = matches!(event, GateEvent::Timeout);
            if let Some(ended) = self.event(event)? {
                return Ok(ended);
            }
            let source = self.parts.source.as_ref();
            if self.ended || source.is_none_or(|source| source.held) {
                wait = None;
            } else if idle {
                wait = Some(self.read()?);
            } else {
                // More commands may wait.
                wait = Some(Duration::ZERO);
            }
        }
    }

    /// The next event; counts the waiting as idle time. While a consumer has no room, only what is no record comes.
    fn next(&mut self, wait: Option<Duration>) -> GateEvent {
        let now = Instant::now();
        let due = self.figures.due_in(now, self.metrics.num_records_in());
        if due == Some(Duration::ZERO) {
            self.metrics.publish(figures::of(self.parts));
            self.figures.published(now, self.metrics.num_records_in());
        }
        if !self.parts.outputs.have_room(self.gate) {
            self.metrics.enter(Activity::BackPressured);
            // Neither a source's next batch nor a timer is due before there is room.
            let event = self.gate.next_urgent(self.overtaking_wait());
            self.metrics.enter(Activity::Busy);
            return event;
        }
        match self.gate.next(Some(Duration::ZERO)) {
            GateEvent::Timeout if wait != Some(Duration::ZERO) => {
                self.metrics.enter(Activity::Idle);
                let event = self.gate.next(wait.into_iter().chain(due.filter(|due| !due.is_zero())).min());
                self.metrics.enter(Activity::Busy);
                event
            }
            event => event,
        }
    }

    fn event(&mut self, event: GateEvent) -> Result<Option<Ended>> {
        match event {
            GateEvent::Control(command) => return self.command(command),
            GateEvent::Announced { channel, barrier } => self.announced(channel, barrier)?,
            GateEvent::Element { channel, element } => self.element(channel, element)?,
            GateEvent::Timeout | GateEvent::Nudged => {}
            GateEvent::Closed => return Ok(Some(Ended::Canceled)),
            GateEvent::Failed(error) => return Err(error),
        }
        Ok(None)
    }

    /// Reads a batch and takes it through the chain. Returns how long to wait before the next one.
    fn read(&mut self) -> Result<Duration> {
        let size = self.batch_size();
        let Some(source) = &mut self.parts.source else { return Ok(SOURCE_WAIT) };
        self.blame.set_position(None);
        self.metrics.enter(Activity::Busy);
        let started = Instant::now();
        let (status, batch) = self.blame.part(0, || source.read(size, SOURCE_WAIT))?;
        let mut pause = Duration::ZERO;
        if batch.is_none() {
            self.metrics.was(Activity::Idle);
            // A reader that did not wait itself must not be asked again and again.
            pause = SOURCE_WAIT.saturating_sub(started.elapsed());
        }
        if let Some(batch) = batch {
            self.process(InputId(0), batch)?;
            if self.again > 0 && self.metrics.num_records_in() >= self.again {
                self.again = 0;
                self.setup.tell(TaskEvent::CaughtUp);
            }
        }
        match status {
            ReadStatus::Finished => self.end_input()?,
            ReadStatus::More => pause = Duration::ZERO,
            ReadStatus::Idle => {}
        }
        Ok(pause)
    }

    /// One call into the chain.
    fn process(&mut self, input: InputId, batch: Batch) -> Result<()> {
        let records = batch.len();
        self.metrics.add_records_in(records);
        let (started, waited_before) = (Instant::now(), self.metrics.backpressured());
        self.parts.chain.process(input, batch, &mut self.parts.outputs)?;
        if self.setup.memory.exceeded().is_some() {
            self.parts.chain.check_memory()?;
        }
        let waited = self.metrics.backpressured().saturating_sub(waited_before);
        let own = started.elapsed().saturating_sub(waited);
        self.last_call = Some(Call { records, own, waited_before });
        self.debloat();
        if std::mem::take(&mut self.tell_output) {
            self.setup.tell(TaskEvent::PutOut);
        }
        Ok(())
    }

    /// Adapts what may wait in the input channels to what the task gets through.
    fn debloat(&mut self) {
        let Some(debloater) = self.debloater.as_mut().filter(|_| self.parts.source.is_none()) else { return };
        let worked = self.metrics.active().saturating_sub(self.aside);
        if !debloater.observe(self.metrics.num_records_in(), worked) {
            return;
        }
        if let Some(limit) = debloater.limit() {
            self.gate.limit(limit);
            self.metrics.set_debloated(limit, debloater.time_for(self.gate.records()).unwrap_or_default());
        }
    }

    /// How many records the next call may have.
    fn batch_size(&mut self) -> usize {
        if let Some(Call { records, own, waited_before }) = self.last_call.take() {
            let waited = self.metrics.backpressured().saturating_sub(waited_before);
            self.sizer.observe(records, own + waited, waited);
        }
        self.sizer.size()
    }

    fn element(&mut self, channel: usize, element: StreamElement) -> Result<()> {
        match element {
            StreamElement::Batch(batch) => self.batch(channel, batch),
            StreamElement::Encoded(bytes) => {
                let batch = self.decode(channel, &bytes)?;
                self.batch(channel, batch)
            }
            StreamElement::Barrier(barrier) => {
                self.barriers.entry(barrier.id).or_insert_with(|| BarrierTimes::now(barrier, self.metrics));
                let actions = self.aligner.on(AlignerEvent::Barrier { channel, barrier });
                self.align(actions, true)
            }
            StreamElement::EndOfInput => {
                // The aligner is not told: the channel goes on delivering barriers.
                self.ended_channels[channel] = true;
                if self.ended_channels.iter().all(|ended| *ended) { self.end_input() } else { Ok(()) }
            }
        }
    }

    fn decode(&self, channel: usize, bytes: &Bytes) -> Result<Batch> {
        self.metrics.add_bytes_in(bytes.len());
        let from = self.gate.origin(channel);
        let decoded = self.setup.graph.edges[from.edge as usize].exchange.decode(bytes);
        decoded.map_err(|error| {
            error.context(format_args!("a batch of subtask {} behind edge {}", from.producer, from.edge))
        })
    }

    /// Processes as much of a batch as one call may have and puts the rest back.
    fn batch(&mut self, channel: usize, mut batch: Batch) -> Result<()> {
        let size = self.batch_size();
        while batch.len() > size {
            // In halves, so that a very large batch is not moved again for every call.
            let half = batch.len() / 2;
            let rest = batch.split_off(half.max(size));
            self.gate.put_back(channel, StreamElement::Batch(rest));
        }
        self.process(self.gate.origin(channel).input, batch)
    }

    /// Sends on what is left; from now on there are barriers and commands only.
    fn end_input(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.parts.chain.end_input()?;
        self.parts.outputs.end()?;
        self.setup.tell(TaskEvent::EndOfInput);
        Ok(())
    }

    fn command(&mut self, command: TaskCommand) -> Result<Option<Ended>> {
        let source = self.parts.source.as_mut();
        match command {
            TaskCommand::Start => {}
            TaskCommand::TriggerCheckpoint(barrier) if source.is_some() => {
                self.barriers.insert(barrier.id, BarrierTimes::now(barrier, self.metrics));
                self.snapshot(barrier)?;
            }
            TaskCommand::TriggerCheckpoint(barrier) => {
                let task = self.setup.spec.task;
                tracing::warn!(%task, "was told to trigger checkpoint {}, but only sources are", barrier.id);
            }
            TaskCommand::NotifyComplete(checkpoint) => self.completed(checkpoint)?,
            TaskCommand::NotifyAborted(checkpoint) => {
                if let Some(aborted) = self.writing.remove(&checkpoint) {
                    aborted.store(true, Ordering::Relaxed);
                }
                let actions = self.aligner.on(AlignerEvent::Aborted(checkpoint));
                self.align(actions, false)?;
            }
            TaskCommand::AddSplits(splits) => {
                if let Some(source) = source {
                    self.blame.part(0, || source.add_splits(&splits))?;
                }
            }
            TaskCommand::NoMoreSplits => {
                if let Some(source) = source {
                    source.reader.no_more_splits();
                }
            }
            TaskCommand::Resume => {
                if let Some(source) = source {
                    source.held = false;
                }
            }
            TaskCommand::Hold => {
                if let Some(source) = source {
                    source.held = true;
                }
            }
            TaskCommand::Drain if source.is_some() => self.end_input()?,
            TaskCommand::Drain => {}
            TaskCommand::TellOutput => self.tell_output = true,
            TaskCommand::Finish => return Ok(Some(Ended::Finished)),
            TaskCommand::Cancel => return Ok(Some(Ended::Canceled)),
        }
        Ok(None)
    }
}
