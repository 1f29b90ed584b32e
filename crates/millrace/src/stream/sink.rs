//! The end of a stream.

use crate::plan::{NodeId, SharedPlan, describe};

/// The end of a stream.
pub struct DataStreamSink {
    plan: SharedPlan,
    node: NodeId,
}

impl DataStreamSink {
    pub(crate) fn new(plan: SharedPlan, node: NodeId) -> Self {
        Self { plan, node }
    }

    /// Names the sink.
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        describe(&self.plan, Some(self.node), "name", |node| node.name = name);
        self
    }

    /// Ties the sink's state, where it has any, to a name that stays the same when the program changes.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        let uid = uid.into();
        describe(&self.plan, Some(self.node), "uid", |node| node.uid = Some(uid));
        self
    }

    /// How many subtasks the sink has. The default is the environment's parallelism.
    pub fn set_parallelism(self, parallelism: u32) -> Self {
        describe(&self.plan, Some(self.node), "set_parallelism", |node| node.parallelism = Some(parallelism));
        self
    }
}
