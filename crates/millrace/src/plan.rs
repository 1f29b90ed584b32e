//! The program as it was written: operators and the streams between them, before they are chained into a job graph.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use millrace_core::{
    Error, Record, Result, checkpoint::CheckpointConfig, ids::InputId, schema::Schema, sink::DeliveryGuarantee,
};
use millrace_runtime::{
    exchange::{Exchange, ForwardExchange, RebalanceExchange},
    graph::Partitioning,
    operator::OperatorFactory,
    source::ErasedSource,
};

/// The input that takes a stream, and the one that takes a broadcast stream connected to it.
pub(crate) const MAIN_INPUT: InputId = InputId(0);
pub(crate) const BROADCAST_INPUT: InputId = InputId(1);

/// An operator's index in its plan. Inputs of an operator have lower indices than itself.
pub(crate) type NodeId = usize;

/// All that a program has said about its streams.
#[derive(Default)]
pub(crate) struct Plan {
    pub nodes: Vec<PlanNode>,
    /// What was wrong; told by `execute`, so that a program reads without a `?` behind every call.
    pub errors: Vec<Error>,
}

/// A source, an operator or a sink.
pub(crate) struct PlanNode {
    pub name: String,
    /// What kind of operator it is, for its position in the graph.
    pub kind: &'static str,
    pub uid: Option<String>,
    pub parallelism: Option<u32>,
    /// Whether it can't have more than one subtask.
    pub single: bool,
    pub body: NodeBody,
    pub inputs: Vec<PlanEdge>,
}

/// What a node does.
#[derive(Clone)]
pub(crate) enum NodeBody {
    Source(Arc<dyn ErasedSource>),
    /// With the schema of its key, where it stands behind a `key_by`.
    Operator {
        factory: Arc<dyn OperatorFactory>,
        key: Option<Result<Schema>>,
    },
    Sink {
        factory: Arc<dyn OperatorFactory>,
        guarantee: DeliveryGuarantee,
        check: SinkCheck,
    },
}

/// Refuses a sink whose settings don't fit the job's checkpoints.
pub(crate) type SinkCheck = Arc<dyn Fn(&CheckpointConfig) -> Result<()>>;

/// The way from an operator to a consumer.
#[derive(Clone)]
pub(crate) struct PlanEdge {
    pub from: NodeId,
    pub route: Route,
    /// The consumer's input.
    pub input: InputId,
}

/// How records are dealt out.
#[derive(Clone)]
pub(crate) enum Route {
    /// Forward where both ends have the same parallelism, rebalanced where not.
    Auto { forward: fn() -> Arc<dyn Exchange>, rebalance: fn() -> Arc<dyn Exchange> },
    /// As the program says.
    Fixed { partitioning: Partitioning, exchange: Arc<dyn Exchange> },
}

impl Route {
    /// The route of a stream whose program says nothing.
    pub(crate) fn auto<T: Record>() -> Self {
        Self::Auto {
            forward: || Arc::new(ForwardExchange::<T>::new()),
            rebalance: || Arc::new(RebalanceExchange::<T>::new()),
        }
    }

    /// The route that the program chose.
    pub(crate) fn fixed(partitioning: Partitioning, exchange: impl Exchange + 'static) -> Self {
        Self::Fixed { partitioning, exchange: Arc::new(exchange) }
    }
}

impl PlanNode {
    /// Whether its uid matters because it has state: splits, keyed state, broadcast state, or what is to be committed.
    pub(crate) fn is_stateful(&self) -> bool {
        matches!(self.body, NodeBody::Source(_) | NodeBody::Operator { key: Some(_), .. })
            || self.commits()
            || self.inputs.iter().any(|edge| edge.input == BROADCAST_INPUT)
    }

    /// Whether it is a sink that commits with the checkpoint.
    pub(crate) fn commits(&self) -> bool {
        matches!(self.body, NodeBody::Sink { guarantee: DeliveryGuarantee::ExactlyOnce, .. })
    }
}

/// The plan that an environment and all its streams share while the program is being built.
#[derive(Clone, Default)]
pub(crate) struct SharedPlan(Rc<RefCell<Plan>>);

impl SharedPlan {
    /// Access to the plan. Never held across a call into anything else.
    pub(crate) fn edit(&self) -> RefMut<'_, Plan> {
        self.0.borrow_mut()
    }

    /// Adds a node.
    pub(crate) fn add(&self, node: PlanNode) -> NodeId {
        let mut plan = self.edit();
        plan.nodes.push(node);
        plan.nodes.len() - 1
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Takes the plan out; streams that are still around have nothing to add to.
    pub(crate) fn take(&self) -> Plan {
        self.0.take()
    }
}

/// What can be said about an operator, a source or a sink after it was made.
pub(crate) fn describe(plan: &SharedPlan, node: Option<NodeId>, what: &str, change: impl FnOnce(&mut PlanNode)) {
    let mut plan = plan.edit();
    match node.filter(|node| *node < plan.nodes.len()) {
        Some(node) => change(&mut plan.nodes[node]),
        None => {
            let error = Error::invalid(format!(
                "{what} is called on a union, rebalanced or broadcast stream, which is no operator: call it before"
            ));
            plan.errors.push(error);
        }
    }
}
