//! Job graphs for the tests.

use std::sync::Arc;

use millrace_core::{
    ids::{InputId, OperatorUid, OutputId, VertexId},
    schema::Schema,
};
use millrace_runtime::{
    exchange::{BroadcastExchange, Exchange, ForwardExchange, HashExchange, KeySelector, RebalanceExchange},
    graph::{JobEdge, JobGraph, JobVertex, OperatorNode, Partitioning, SourceNode},
    operator::OperatorFactory,
    source::TypedSource,
};

use crate::numbers::{Event, Numbers};

/// Keys events by their number.
#[derive(Clone)]
pub struct ByNumber;

impl KeySelector<Event> for ByNumber {
    type Key = u64;

    fn with_key<R>(&self, event: &Event, use_key: impl FnOnce(&u64) -> R) -> R {
        use_key(&event.number)
    }
}

/// A chain of vertices: a source, and operators behind it.
pub struct Builder(JobGraph);

impl Builder {
    /// A source of this parallelism.
    pub fn source(numbers: &Numbers, parallelism: u32) -> Self {
        let source = SourceNode {
            uid: OperatorUid("source".into()),
            name: "numbers".into(),
            source: Arc::new(TypedSource(Numbers(Arc::clone(&numbers.0)))),
        };
        let vertex =
            JobVertex { id: VertexId(0), name: "numbers".into(), parallelism, source: Some(source), operators: vec![] };
        Self(JobGraph { name: "test".into(), max_parallelism: 128, vertices: vec![vertex], edges: vec![] })
    }

    /// Chains an operator to the last vertex.
    pub fn chain(mut self, name: &str, factory: Arc<dyn OperatorFactory>) -> Self {
        let vertex = self.0.vertices.last_mut().unwrap();
        vertex.name = format!("{} -> {name}", vertex.name);
        vertex.operators.push(OperatorNode { uid: OperatorUid(name.into()), name: name.into(), key: None, factory });
        self
    }

    /// Puts an operator behind an edge.
    pub fn then(
        mut self,
        partitioning: Partitioning,
        name: &str,
        parallelism: u32,
        factory: Arc<dyn OperatorFactory>,
    ) -> Self {
        let id = VertexId(self.0.vertices.len() as u32);
        let exchange: Arc<dyn Exchange> = match partitioning {
            Partitioning::Forward => Arc::new(ForwardExchange::<Event>::new()),
            Partitioning::Hash => Arc::new(HashExchange::new(ByNumber)),
            Partitioning::Rebalance => Arc::new(RebalanceExchange::<Event>::new()),
            Partitioning::Broadcast => Arc::new(BroadcastExchange::<Event>::new()),
        };
        let key = (partitioning == Partitioning::Hash).then(|| Schema::of::<u64>().unwrap());
        self.0.edges.push(JobEdge {
            from: VertexId(id.0 - 1),
            output: OutputId(0),
            to: id,
            input: InputId(0),
            partitioning,
            exchange,
        });
        self.0.vertices.push(JobVertex {
            id,
            name: name.into(),
            parallelism,
            source: None,
            operators: vec![OperatorNode { uid: OperatorUid(name.into()), name: name.into(), key, factory }],
        });
        self
    }

    pub fn build(self) -> Arc<JobGraph> {
        Arc::new(self.0)
    }
}
