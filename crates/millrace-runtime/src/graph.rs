//! The job graph: what the SDK builds and what every process of a job holds in common.

use std::sync::Arc;

use millrace_core::{
    ids::{InputId, OperatorUid, OutputId, VertexId},
    schema::Schema,
};

use crate::{exchange::Exchange, operator::OperatorFactory, source::ErasedSource};

/// A job: vertices, each a chain of operators, and the edges between them.
#[derive(Clone)]
pub struct JobGraph {
    /// The job's name.
    pub name: String,
    /// The number of key groups, fixed for the job's life.
    pub max_parallelism: u32,
    /// The vertices, in an order in which every edge goes forward; `vertices[i].id == VertexId(i)`.
    pub vertices: Vec<JobVertex>,
    /// The edges.
    pub edges: Vec<JobEdge>,
}

/// A chain of operators that run in one subtask.
#[derive(Clone)]
pub struct JobVertex {
    /// Its id.
    pub id: VertexId,
    /// The names of its operators, joined by ` -> `.
    pub name: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// Where its records come from, for a vertex without inputs.
    pub source: Option<SourceNode>,
    /// The operators in order; the first takes the vertex's inputs (or the source's records as input 0), the output
    /// of the last is the vertex's.
    pub operators: Vec<OperatorNode>,
}

/// A source at the head of a chain.
#[derive(Clone)]
pub struct SourceNode {
    /// What ties its state to it.
    pub uid: OperatorUid,
    /// Its name.
    pub name: String,
    /// The source.
    pub source: Arc<dyn ErasedSource>,
}

/// An operator of a chain.
#[derive(Clone)]
pub struct OperatorNode {
    /// What ties its state to it.
    pub uid: OperatorUid,
    /// Its name.
    pub name: String,
    /// The schema of the key, where it stands behind a `key_by` and so may use keyed state.
    pub key: Option<Schema>,
    /// Makes one instance for each subtask.
    pub factory: Arc<dyn OperatorFactory>,
}

/// How records find their subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// From subtask `i` to subtask `i`.
    Forward,
    /// By key group.
    Hash,
    /// In turn.
    Rebalance,
    /// To all.
    Broadcast,
}

impl Partitioning {
    /// Whether any consumer may get any record, and each record goes to one.
    pub fn is_all_to_all(self) -> bool {
        matches!(self, Self::Hash | Self::Rebalance)
    }
}

/// An edge between two vertices.
#[derive(Clone)]
pub struct JobEdge {
    /// The producing vertex.
    pub from: VertexId,
    /// Which of its outputs.
    pub output: OutputId,
    /// The consuming vertex.
    pub to: VertexId,
    /// Which of its inputs; several edges may share one (a union).
    pub input: InputId,
    /// How records are dealt out.
    pub partitioning: Partitioning,
    /// The record type's way through the edge.
    pub exchange: Arc<dyn Exchange>,
}

impl JobGraph {
    /// The vertex with this id.
    pub fn vertex(&self, id: VertexId) -> &JobVertex {
        &self.vertices[id.0 as usize]
    }

    /// The edges into a vertex, with their indices in [`Self::edges`].
    pub fn edges_into(&self, id: VertexId) -> impl Iterator<Item = (usize, &JobEdge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.to == id)
    }

    /// The edges out of a vertex, with their indices in [`Self::edges`].
    pub fn edges_from(&self, id: VertexId) -> impl Iterator<Item = (usize, &JobEdge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.from == id)
    }

    /// The slots that the job needs: one holds a subtask of every vertex.
    pub fn slots_needed(&self) -> u32 {
        self.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or(0)
    }

    /// The same job in so many slots: no vertex has more subtasks than that.
    pub fn in_slots(&self, slots: u32) -> Self {
        let mut scaled = self.clone();
        scaled.vertices.iter_mut().for_each(|vertex| vertex.parallelism = vertex.parallelism.min(slots));
        scaled
    }
}
