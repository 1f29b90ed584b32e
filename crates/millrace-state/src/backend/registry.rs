//! Backends by name.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{Error, Result};

use super::{FsStateBackend, MemoryStateBackend, StateBackend};

/// What a backend was called before, or is called elsewhere, and its name here.
const ALIASES: [(&str, &str); 2] = [("jobmanager", "memory"), ("hashmap", "filesystem")];

/// The backends that `state.backend` can name.
#[derive(Clone)]
pub struct BackendRegistry {
    backends: BTreeMap<String, Arc<dyn StateBackend>>,
}

impl Default for BackendRegistry {
    /// `memory` and `filesystem`, registered as a user's own would be.
    fn default() -> Self {
        let mut registry = Self { backends: BTreeMap::new() };
        registry.replace(Arc::new(MemoryStateBackend::default()));
        registry.replace(Arc::new(FsStateBackend::configured()));
        registry
    }
}

impl BackendRegistry {
    /// Adds a backend under its name. A name or an alias that is taken is refused.
    pub fn register(&mut self, backend: Arc<dyn StateBackend>) -> Result<()> {
        let name = backend.name();
        let taken = self.backends.contains_key(name) || ALIASES.iter().any(|(alias, _)| *alias == name);
        if taken || name.is_empty() {
            return Err(Error::invalid(format!(
                "a state backend can't be registered as {name:?}: the name is taken or empty; choose another"
            )));
        }
        self.replace(backend);
        Ok(())
    }

    /// Adds a backend in the place of the one that has its name, such as [`MemoryStateBackend`] with another limit.
    pub fn replace(&mut self, backend: Arc<dyn StateBackend>) {
        self.backends.insert(backend.name().to_string(), backend);
    }

    /// The backend of this name or alias; an unknown name is an error that lists what there is.
    pub fn get(&self, name: &str) -> Result<Arc<dyn StateBackend>> {
        let own = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, own)| own);
        self.backends.get(own).cloned().ok_or_else(|| {
            let known = self.backends.keys().map(String::as_str).chain(ALIASES.iter().map(|(alias, _)| *alias));
            Error::invalid(format!(
                "state backend {name:?} is unknown: choose one of {}, or register it before the job starts",
                known.collect::<Vec<_>>().join(", ")
            ))
        })
    }

    /// The names that are registered, without aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{KeyedBackend, KeyedBackendContext, SnapshotTarget},
        *,
    };

    struct Named(&'static str);
    impl StateBackend for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn snapshot_target(&self) -> SnapshotTarget {
            SnapshotTarget::Files
        }
        fn open(&self, _context: &KeyedBackendContext) -> Result<KeyedBackend> {
            Ok(KeyedBackend::Heap)
        }
    }

    #[test]
    fn names_and_aliases_find_their_backend() {
        let registry = BackendRegistry::default();
        for (name, own) in
            [("memory", "memory"), ("jobmanager", "memory"), ("filesystem", "filesystem"), ("hashmap", "filesystem")]
        {
            assert_eq!(registry.get(name).unwrap().name(), own);
        }
    }

    #[test]
    fn a_users_backend_is_registered_as_ours_are() {
        let mut registry = BackendRegistry::default();
        registry.register(Arc::new(Named("mine"))).unwrap();
        assert_eq!(registry.get("mine").unwrap().name(), "mine");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["filesystem", "memory", "mine"]);
        for taken in ["mine", "memory", "jobmanager", "hashmap", ""] {
            assert!(registry.register(Arc::new(Named(taken))).is_err(), "{taken:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_there_is() {
        let error = BackendRegistry::default().get("rockdb").err().unwrap();
        assert!(error.message.contains("\"rockdb\"") && error.message.contains("filesystem"), "{error}");
        assert!(!error.retryable);
    }
}
