//! What a task finds out about itself once in a while, since it takes longer than counting.

use millrace_core::ids::OperatorUid;
use millrace_state::keyed::StateFigures;
use serde::{Deserialize, Serialize};

/// The figures of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// How many records wait outside that the task's source has not read yet, where the source knows.
    pub pending_records: Option<u64>,
    /// The operators with keyed state.
    pub operators: Vec<OperatorFigures>,
}

/// The keyed state of one operator of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorFigures {
    /// The operator.
    pub uid: OperatorUid,
    /// Its name.
    pub name: String,
    /// Each of its states.
    pub states: Vec<StateFigures>,
    /// The bytes of all states together, where the backend holds them together.
    pub backend_bytes: Option<u64>,
}

impl TaskFigures {
    /// The bytes of the task's keyed state.
    pub fn state_bytes(&self) -> u64 {
        self.operators.iter().map(OperatorFigures::state_bytes).sum()
    }
}

impl OperatorFigures {
    /// The bytes of the operator's keyed state.
    pub fn state_bytes(&self) -> u64 {
        let of_states = || self.states.iter().filter_map(|state| state.bytes).sum();
        self.backend_bytes.unwrap_or_else(of_states)
    }
}
