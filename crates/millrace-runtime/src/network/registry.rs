//! Which channels a taskmanager's tasks listen to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_core::ids::{Attempt, Generation};

use crate::task::gate::Gate;

/// A channel, as all taskmanagers of the job name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelKey {
    /// The jobmanager's incarnation.
    pub generation: Generation,
    /// The start of the job.
    pub attempt: Attempt,
    /// The edge, by its index in the job graph.
    pub edge: u32,
    /// The producing subtask.
    pub producer: u32,
    /// The consuming subtask.
    pub consumer: u32,
}

/// A channel of a task's gate.
#[derive(Clone)]
pub struct GateChannel {
    /// The gate.
    pub gate: Arc<Gate>,
    /// The channel's index in it.
    pub index: usize,
}

#[derive(Default)]
pub(super) struct Registry {
    channels: Mutex<HashMap<ChannelKey, GateChannel>>,
}

impl Registry {
    pub(super) fn insert(&self, key: ChannelKey, channel: GateChannel) {
        self.lock().insert(key, channel);
    }

    pub(super) fn remove(&self, keys: &[ChannelKey]) {
        let mut channels = self.lock();
        keys.iter().for_each(|key| drop(channels.remove(key)));
    }

    pub(super) fn get(&self, key: &ChannelKey) -> Option<GateChannel> {
        self.lock().get(key).cloned()
    }

    pub(super) fn knows(&self, generation: Generation, attempt: Attempt) -> bool {
        self.lock().keys().any(|key| key.generation == generation && key.attempt == attempt)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelKey, GateChannel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inputs of a task that producers can reach as long as this lives.
pub struct Registration {
    pub(super) registry: Arc<Registry>,
    pub(super) keys: Vec<ChannelKey>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.remove(&self.keys);
    }
}
