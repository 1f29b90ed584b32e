//! Every backend passes the one conformance suite, and reads what the others wrote.

use std::sync::Arc;

use millrace_state::{BackendRegistry, StateBackend};
use millrace_testkit::conformance::{BTreeStateBackend, checkpoint_compatibility, state_backend_conformance};

/// By name, as a job asks for them: ours, and a user's own that is registered in the same way.
fn backend(name: &str) -> Arc<dyn StateBackend> {
    let mut registry = BackendRegistry::default();
    registry.register(Arc::new(BTreeStateBackend)).unwrap();
    registry.get(name).unwrap()
}

#[test]
fn memory_conforms() {
    state_backend_conformance(&backend("memory"));
}

#[test]
fn filesystem_conforms() {
    state_backend_conformance(&backend("filesystem"));
}

#[test]
fn a_users_own_backend_conforms() {
    state_backend_conformance(&backend("btree"));
}

#[test]
fn a_checkpoint_of_each_restores_on_every_other() {
    checkpoint_compatibility(&["memory", "filesystem", "btree"].map(backend));
}
