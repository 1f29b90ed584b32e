//! The operators of a subtask, called one within the other.

use std::rc::Rc;

use millrace_core::{
    Batch, Error, Result,
    ids::{CheckpointId, InputId, OutputId},
};

use millrace_state::KeyedStateStore;

use super::{blame::Blame, outputs::Outputs};
use crate::operator::{Operator, OperatorContext, Output};

/// An operator with what it was given.
pub(super) struct ChainedOperator {
    operator: Box<dyn Operator>,
    pub(super) context: OperatorContext,
}

/// The operators of a subtask in order. The first has the number `first` among the parts that [`Blame`] knows.
pub(super) struct Chain {
    operators: Vec<ChainedOperator>,
    /// How many were opened, or tried to: these are closed.
    opened: usize,
    /// Which of them have timers.
    timed: Vec<usize>,
    first: usize,
    blame: Rc<Blame>,
}

impl Chain {
    pub(super) fn new(first: usize, blame: Rc<Blame>) -> Self {
        Self { operators: Vec::new(), opened: 0, timed: Vec::new(), first, blame }
    }

    /// Appends an operator.
    pub(super) fn push(&mut self, operator: Box<dyn Operator>, context: OperatorContext) {
        self.operators.push(ChainedOperator { operator, context });
    }

    /// Opens all operators in order.
    pub(super) fn open(&mut self) -> Result<()> {
        for (index, ChainedOperator { operator, context }) in self.operators.iter_mut().enumerate() {
            self.opened = index + 1;
            self.blame.part(self.first + index, || operator.open(context))?;
            if context.keyed_state.as_ref().is_some_and(KeyedStateStore::has_timers) {
                self.timed.push(index);
            }
        }
        Ok(())
    }

    /// Takes a batch through all operators.
    pub(super) fn process(&mut self, input: InputId, batch: Batch, outputs: &mut Outputs) -> Result<()> {
        self.blame.set_position(batch.origin());
        if self.operators.is_empty() {
            let source = self.first.saturating_sub(1);
            return self.blame.part(source, || outputs.emit(OutputId(0), batch));
        }
        process(&mut self.operators, self.first, input, batch, outputs, &self.blame)
    }

    /// When the next timer of an operator fires.
    pub(super) fn next_timer(&self) -> Option<u64> {
        let stores = self.timed.iter().filter_map(|index| self.operators[*index].context.keyed_state.as_ref());
        stores.filter_map(KeyedStateStore::next_timer).min()
    }

    /// Fires the timers that are due `now`.
    pub(super) fn fire_timers(&mut self, now: u64, outputs: &mut Outputs) -> Result<()> {
        self.blame.set_position(None);
        for index in &self.timed {
            let Some((timed, rest)) = self.operators[*index..].split_first_mut() else { continue };
            if timed.context.keyed_state.as_ref().and_then(KeyedStateStore::next_timer).is_none_or(|next| next > now) {
                continue;
            }
            let part = self.first + index;
            let mut out = ChainOutput { rest, part: part + 1, outputs: &mut *outputs, blame: &self.blame };
            self.blame.part(part, || timed.operator.on_processing_time(now, &mut out))?;
        }
        Ok(())
    }

    /// Lets what is buffered leave the operators before they are snapshotted.
    pub(super) fn prepare_snapshot(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.each(|operator| operator.prepare_snapshot(checkpoint))
    }

    /// Tells all operators that there is no more input.
    pub(super) fn end_input(&mut self) -> Result<()> {
        self.each(|operator| operator.end_input())
    }

    /// Fails the operator with state on the heap where the process takes too much memory.
    pub(super) fn check_memory(&self) -> Result<()> {
        let mut stores = self.operators.iter().enumerate().filter_map(|(index, operator)| {
            operator.context.keyed_state.as_ref().map(|store| (self.first + index, store))
        });
        stores.try_for_each(|(part, store)| self.blame.part(part, || store.check_memory()))
    }

    /// Tells all operators that a checkpoint is complete.
    pub(super) fn notify_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        for store in self.operators.iter().filter_map(|operator| operator.context.keyed_state.as_ref()) {
            store.uploaded_files().checkpoint_completed(checkpoint);
        }
        self.each(|operator| operator.notify_checkpoint_complete(checkpoint))
    }

    fn each(&mut self, call: impl Fn(&mut dyn Operator) -> Result<()>) -> Result<()> {
        self.blame.set_position(None);
        for (index, chained) in self.operators.iter_mut().enumerate() {
            self.blame.part(self.first + index, || call(chained.operator.as_mut()))?;
        }
        Ok(())
    }

    /// Closes the next operator that was opened and is not closed yet; none is left when this returns `None`.
    pub(super) fn close_next(&mut self) -> Option<Result<()>> {
        if self.opened == 0 {
            return None;
        }
        self.opened -= 1;
        // In order: what an operator hands on at its end, a later one can still take.
        let mut chained = self.operators.remove(0);
        let part = self.first;
        self.first += 1;
        self.blame.set_position(None);
        Some(self.blame.part(part, || chained.operator.close()))
    }

    /// The operators, with what they were given.
    pub(super) fn operators(&self) -> &[ChainedOperator] {
        &self.operators
    }
}

fn process(
    operators: &mut [ChainedOperator],
    part: usize,
    input: InputId,
    batch: Batch,
    outputs: &mut Outputs,
    blame: &Blame,
) -> Result<()> {
    let Some((first, rest)) = operators.split_first_mut() else { return outputs.emit(OutputId(0), batch) };
    let mut out = ChainOutput { rest, part: part + 1, outputs, blame };
    blame.part(part, || first.operator.process(input, batch, &mut out))
}

/// Where an operator's results go: the operators behind it, or the edges behind the last.
struct ChainOutput<'a> {
    rest: &'a mut [ChainedOperator],
    part: usize,
    outputs: &'a mut Outputs,
    blame: &'a Blame,
}

impl Output for ChainOutput<'_> {
    fn emit(&mut self, output: OutputId, batch: Batch) -> Result<()> {
        if self.rest.is_empty() {
            return self.outputs.emit(output, batch);
        }
        if output != OutputId(0) {
            return Err(Error::internal(format!("output {output} of an operator inside a chain leads nowhere")).fatal());
        }
        if batch.is_empty() {
            return Ok(());
        }
        process(self.rest, self.part, InputId(0), batch, self.outputs, self.blame)
    }
}
