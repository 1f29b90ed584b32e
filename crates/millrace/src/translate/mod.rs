//! From the program's plan to the job graph: operators are chained where nothing stands between them, and everything
//! that has state gets its uid.

mod uid;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use millrace_core::{
    Error, Result,
    checkpoint::CheckpointConfig,
    ids::{OperatorUid, OutputId, VertexId},
    key::check_parallelism,
    source::Boundedness,
};
use millrace_runtime::{
    exchange::Exchange,
    graph::{JobEdge, JobGraph, JobVertex, OperatorNode, Partitioning, SourceNode},
};

use crate::plan::{NodeBody, NodeId, Plan, PlanEdge, PlanNode, Route};

/// The one output of an operator: several are for later operators.
const OUTPUT: OutputId = OutputId(0);

/// What the configuration says where the program says nothing.
#[derive(Clone, Debug)]
pub(crate) struct GraphSettings {
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// What sinks must fit. Without checkpoints, uids that follow from the graph matter to nobody.
    pub checkpoints: CheckpointConfig,
}

/// Builds the job graph.
pub(crate) fn job_graph(plan: Plan, name: &str, settings: GraphSettings) -> Result<JobGraph> {
    if let Some(error) = plan.errors.into_iter().next() {
        return Err(error);
    }
    let nodes = plan.nodes;
    check_ends(&nodes)?;
    let parallelisms = parallelisms(&nodes, &settings)?;
    let uids = uid::assign(&nodes)?;
    if settings.checkpoints.is_enabled() {
        warn_of_generated_uids(&nodes, &uids);
    } else {
        check_commits(&nodes)?;
    }
    check_sinks(&nodes, &settings.checkpoints)?;
    let chains = Chains::of(&nodes, &parallelisms);
    let mut graph = JobGraph {
        name: name.to_string(),
        max_parallelism: settings.max_parallelism,
        vertices: Vec::new(),
        edges: Vec::new(),
    };
    for (id, node) in nodes.iter().enumerate() {
        if chains.is_head(id) {
            add_vertex(&mut graph, parallelisms[id]);
            for edge in &node.inputs {
                graph.edges.push(job_edge(edge, id, &chains, &parallelisms));
            }
        }
        add_to_vertex(&mut graph.vertices[chains.vertex(id).0 as usize], node, &uids[id])?;
    }
    Ok(graph)
}

/// Every stream must end in a sink, and there must be one.
fn check_ends(nodes: &[PlanNode]) -> Result<()> {
    if nodes.is_empty() {
        return Err(Error::invalid("the job has no operators: begin with from_source or from_collection"));
    }
    let consumers = consumer_counts(nodes);
    let loose = nodes
        .iter()
        .zip(&consumers)
        .find(|(node, consumers)| **consumers == 0 && !matches!(node.body, NodeBody::Sink { .. }));
    match loose {
        None => Ok(()),
        Some((node, _)) => Err(Error::invalid(format!(
            "the results of operator {:?} go nowhere: end the stream with sink_to or print (DiscardingSink drops them)",
            node.name
        ))),
    }
}

fn check_sinks(nodes: &[PlanNode], checkpoints: &CheckpointConfig) -> Result<()> {
    for node in nodes {
        if let NodeBody::Sink { check, .. } = &node.body {
            check(checkpoints).map_err(|error| error.context(format_args!("sink {:?}", node.name)))?;
        }
    }
    Ok(())
}

/// A sink that commits with the checkpoint would never show anything if there were none. Where the input ends, it commits
/// then.
fn check_commits(nodes: &[PlanNode]) -> Result<()> {
    let is_unbounded =
        |node: &&PlanNode| matches!(&node.body, NodeBody::Source(s) if s.boundedness() == Boundedness::Unbounded);
    match (nodes.iter().find(|node| node.commits()), nodes.iter().find(is_unbounded)) {
        (Some(sink), Some(source)) => Err(Error::invalid(format!(
            "sink {:?} is to deliver exactly once, which it does by committing with each checkpoint; but checkpoints are \
             off and {:?} never ends, so that nothing would ever be committed: turn checkpoints on with \
             enable_checkpointing (execution.checkpointing.interval), or choose DeliveryGuarantee::AtLeastOnce where the \
             sink has it",
            sink.name, source.name
        ))),
        _ => Ok(()),
    }
}

fn parallelisms(nodes: &[PlanNode], settings: &GraphSettings) -> Result<Vec<u32>> {
    let parallelism = |node: &PlanNode| {
        let of = |error: Error| error.context(format!("operator {:?}", node.name));
        if node.single {
            return match node.parallelism {
                None | Some(1) => Ok(1),
                Some(wrong) => Err(of(Error::invalid(format!(
                    "parallelism {wrong} is impossible: this source is not parallel, leave it at 1"
                )))),
            };
        }
        let parallelism = node.parallelism.unwrap_or(settings.parallelism);
        check_parallelism(parallelism, settings.max_parallelism).map_err(of)?;
        Ok(parallelism)
    };
    nodes.iter().map(parallelism).collect()
}

fn warn_of_generated_uids(nodes: &[PlanNode], uids: &[OperatorUid]) {
    for (node, uid) in nodes.iter().zip(uids) {
        if node.uid.is_none() && node.is_stateful() {
            tracing::warn!(
                operator = node.name,
                %uid,
                "operator {:?} has state but no uid: one follows from its place in the graph, and its state is lost \
                 when that changes; call uid(\"...\") on it",
                node.name
            );
        }
    }
}

fn consumer_counts(nodes: &[PlanNode]) -> Vec<usize> {
    let mut counts = vec![0; nodes.len()];
    nodes.iter().flat_map(|node| &node.inputs).for_each(|edge| counts[edge.from] += 1);
    counts
}

/// Which vertex each operator belongs to.
struct Chains {
    vertices: Vec<VertexId>,
    heads: Vec<bool>,
}

impl Chains {
    /// An operator runs in the subtask of the one before it where records need no dealing out, neither has another
    /// partner, and both have as many subtasks.
    fn of(nodes: &[PlanNode], parallelisms: &[u32]) -> Self {
        let consumers = consumer_counts(nodes);
        let mut chains = Self { vertices: Vec::with_capacity(nodes.len()), heads: Vec::with_capacity(nodes.len()) };
        let mut count = 0;
        for (id, node) in nodes.iter().enumerate() {
            let before = match node.inputs.as_slice() {
                [PlanEdge { from, route: Route::Auto { .. }, .. }]
                    if consumers[*from] == 1 && parallelisms[*from] == parallelisms[id] =>
                {
                    Some(*from)
                }
                _ => None,
            };
            chains.heads.push(before.is_none());
            chains.vertices.push(match before {
                Some(before) => chains.vertices[before],
                None => {
                    count += 1;
                    VertexId(count - 1)
                }
            });
        }
        chains
    }

    fn is_head(&self, node: NodeId) -> bool {
        self.heads[node]
    }

    fn vertex(&self, node: NodeId) -> VertexId {
        self.vertices[node]
    }
}

fn add_vertex(graph: &mut JobGraph, parallelism: u32) {
    let id = VertexId(graph.vertices.len() as u32);
    graph.vertices.push(JobVertex { id, name: String::new(), parallelism, source: None, operators: Vec::new() });
}

fn add_to_vertex(vertex: &mut JobVertex, node: &PlanNode, uid: &OperatorUid) -> Result<()> {
    if !vertex.name.is_empty() {
        vertex.name.push_str(" -> ");
    }
    vertex.name.push_str(&node.name);
    let (name, uid) = (node.name.clone(), uid.clone());
    let (factory, key) = match &node.body {
        NodeBody::Source(source) => {
            vertex.source = Some(SourceNode { uid, name, source: Arc::clone(source) });
            return Ok(());
        }
        NodeBody::Operator { factory, key } => (factory, key.clone().transpose()),
        NodeBody::Sink { factory, .. } => (factory, Ok(None)),
    };
    let key = key.map_err(|error| error.context(format!("the key of operator {name:?}")))?;
    vertex.operators.push(OperatorNode { uid, name, key, factory: Arc::clone(factory) });
    Ok(())
}

fn job_edge(edge: &PlanEdge, to: NodeId, chains: &Chains, parallelisms: &[u32]) -> JobEdge {
    let (partitioning, exchange): (_, Arc<dyn Exchange>) = match &edge.route {
        Route::Fixed { partitioning, exchange } => (*partitioning, Arc::clone(exchange)),
        Route::Auto { forward, .. } if parallelisms[edge.from] == parallelisms[to] => {
            (Partitioning::Forward, forward())
        }
        Route::Auto { rebalance, .. } => (Partitioning::Rebalance, rebalance()),
    };
    let (from, to) = (chains.vertex(edge.from), chains.vertex(to));
    JobEdge { from, output: OUTPUT, to, input: edge.input, partitioning, exchange }
}
