//! What every state backend must do, ours and a user's own (and in [`sink`], what every sink must): run [`state_backend_conformance`] on it, and
//! [`checkpoint_compatibility`] on it together with the others.
//!
//! [`BTreeStateBackend`] is an example of a user's own backend.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use millrace_state::{FsStateBackend, StateBackend};
//! use millrace_testkit::conformance::{BTreeStateBackend, checkpoint_compatibility, state_backend_conformance};
//!
//! let mine: Arc<dyn StateBackend> = Arc::new(BTreeStateBackend);
//! state_backend_conformance(&mine);
//! checkpoint_compatibility(&[mine, Arc::new(FsStateBackend::configured())]);
//! ```

mod access;
mod btree_backend;
mod evolution;
mod model;
mod operator;
mod restore;
pub mod sink;
mod timers;
mod ttl;

pub use btree_backend::BTreeStateBackend;

use std::sync::Arc;

use millrace_core::Result;
use millrace_state::StateBackend;

/// A check of one backend.
type Check = fn(&Arc<dyn StateBackend>) -> Result<()>;

/// Runs named checks; panics where one fails.
fn run(backend: &Arc<dyn StateBackend>, checks: &[(&str, Check)]) {
    for (name, check) in checks {
        check(backend).unwrap_or_else(|error| panic!("{name}, on {}: {error}", backend.name()));
    }
}

/// Runs every check that concerns one backend. Panics where it fails.
pub fn state_backend_conformance(backend: &Arc<dyn StateBackend>) {
    access::check(backend);
    restore::check(backend);
    ttl::check(backend);
    timers::check(backend);
    evolution::check(backend);
    model::check(backend);
}

/// Checks that a checkpoint of each backend restores on each other, at the same and at another parallelism. Panics where
/// it does not.
pub fn checkpoint_compatibility(backends: &[Arc<dyn StateBackend>]) {
    for from in backends {
        for to in backends {
            restore::check_from_to(from, to);
            ttl::check_from_to(from, to);
            timers::check_from_to(from, to);
            evolution::check_from_to(from, to);
        }
    }
}
