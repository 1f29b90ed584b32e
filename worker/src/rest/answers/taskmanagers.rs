//! Answers about one taskmanager.

use millrace_core::rest::*;
use millrace_runtime::metrics::OperatorFigures;

use crate::rest::view::JobView;

/// A taskmanager with the state of its tasks.
pub fn details(view: &JobView, id: &str) -> Option<TaskManagerDetails> {
    let info = info(view, id)?.clone();
    let mut operators = Vec::new();
    for subtask in view.vertices.iter().flat_map(|vertex| &vertex.subtasks) {
        if subtask.place.as_ref().is_some_and(|(place, _)| *place == info.id) {
            operators.extend(subtask.figures.operators.iter().map(|of| operator(of, subtask.index)));
        }
    }
    Some(TaskManagerDetails { info, operators })
}

/// The taskmanager with this id.
pub fn info<'a>(view: &'a JobView, id: &str) -> Option<&'a TaskManagerInfo> {
    view.taskmanagers.iter().find(|taskmanager| taskmanager.id.0 == id)
}

fn operator(of: &OperatorFigures, subtask: u32) -> OperatorState {
    let state = |state: &millrace_state::keyed::StateFigures| StateInfo {
        name: state.state.clone(),
        size: state.bytes,
        accesses: state.accesses,
        access_latency: state.mean_nanos(),
    };
    OperatorState {
        operator_id: of.uid.0.clone(),
        operator_name: of.name.clone(),
        subtask,
        size: of.state_bytes(),
        states: of.states.iter().map(state).collect(),
    }
}
