//! A task's life on its thread: deploy, wait for the start, run, close, tell how it ended.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millrace_core::Result;

use super::{
    TaskCommand, TaskEvent, TaskFailure,
    blame::Blame,
    chain::Chain,
    control::TaskControl,
    deploy,
    gate::{Gate, GateEvent},
    handle::TaskSetup,
    outputs::Outputs,
    source_head::SourceHead,
    work::Work,
};
use crate::metrics::{Activity, ShownTask, TaskMetrics};

/// How a task's loop ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Finished,
    Canceled,
}

/// What a task consists of. Kept outside of what a panic unwinds, so that operators are closed after one.
pub(super) struct Parts {
    pub(super) source: Option<SourceHead>,
    pub(super) chain: Chain,
    pub(super) outputs: Outputs,
}

/// The body of a task's thread.
pub(super) fn run(
    setup: TaskSetup,
    gate: Arc<Gate>,
    control: Arc<TaskControl>,
    metrics: Arc<TaskMetrics>,
    shown: ShownTask,
) {
    let setup = Arc::new(setup);
    let vertex = setup.graph.vertex(setup.spec.task.vertex);
    let source = vertex.source.iter().map(|source| source.name.clone());
    let names = source.chain(vertex.operators.iter().map(|operator| operator.name.clone())).collect();
    let blame = Rc::new(Blame::new(names, setup.spec.task.subtask, vertex.parallelism));
    let mut parts = Parts {
        source: None,
        chain: Chain::new(usize::from(vertex.source.is_some()), Rc::clone(&blame)),
        outputs: Outputs::unconnected(Arc::clone(&control), Arc::clone(&metrics), Rc::clone(&blame)),
    };
    let mut registration = None;
    let ended = guarded(&blame, || {
        let restored = deploy::deploy(&setup, &gate, &mut parts, &blame)?;
        let task = setup.spec.task;
        registration = Some(setup.network.register(&gate, setup.spec.generation, setup.spec.attempt, task.subtask));
        setup.tell(TaskEvent::Deployed(restored));
        metrics.enter(Activity::Idle);
        let Some(early) = wait_for_start(&gate)? else { return Ok(Ended::Canceled) };
        metrics.enter(Activity::Busy);
        parts.outputs.connect(&setup.graph, &setup.spec, &setup.network, &gate)?;
        Work::new(&setup, &gate, &metrics, &blame, &mut parts).run(early)
    });
    // Before operators are closed: what they fail on is another matter.
    let ended = close(&mut parts.chain, &blame, ended.map_err(|error| blame.failure(error)));
    let canceled = control.cancelled().load(Ordering::SeqCst) || blame.is_cancelled();
    // Before its end is told: a new jobmanager begins with attempt 1 again, and its task is shown by the same labels.
    drop(shown);
    setup.tell(match ended {
        _ if canceled => TaskEvent::Canceled,
        Ok(Ended::Finished) => TaskEvent::Finished,
        Ok(Ended::Canceled) => TaskEvent::Canceled,
        Err(failure) => TaskEvent::Failed(failure),
    });
    // Only now: whoever fails because this task has ended tells so after this task's own reason.
    gate.close();
    control.clear();
    drop(registration);
    let dropped = guarded(&blame, || {
        drop(parts);
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(task = %setup.spec.task, "dropping the task's operators failed: {error}");
    }
}

/// Runs something and makes a panic an error.
fn guarded<T>(blame: &Blame, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(blame.panicked(&*payload)))
}

/// Waits for [`TaskCommand::Start`] and returns the commands that came before it; `None` after a cancellation.
fn wait_for_start(gate: &Gate) -> Result<Option<Vec<TaskCommand>>> {
    let mut early = Vec::new();
    loop {
        match gate.next_urgent(None) {
            GateEvent::Control(TaskCommand::Start) => return Ok(Some(early)),
            GateEvent::Control(command) => early.push(command),
            GateEvent::Closed => return Ok(None),
            GateEvent::Failed(error) => return Err(error),
            GateEvent::Timeout | GateEvent::Nudged | GateEvent::Announced { .. } | GateEvent::Element { .. } => {}
        }
    }
}

/// Closes all operators. The first failure of the task is the one that is told.
fn close(chain: &mut Chain, blame: &Blame, mut ended: Result<Ended, TaskFailure>) -> Result<Ended, TaskFailure> {
    loop {
        match guarded(blame, || chain.close_next().transpose()) {
            Ok(None) => return ended,
            Ok(Some(())) => {}
            Err(error) if matches!(ended, Ok(Ended::Finished)) => ended = Err(blame.failure(error)),
            Err(error) => tracing::warn!("an operator of a task that has ended can't be closed: {error}"),
        }
    }
}

/// How long a source waits for records, and so a command for the source.
pub(super) const SOURCE_WAIT: Duration = Duration::from_millis(10);
