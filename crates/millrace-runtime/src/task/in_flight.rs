//! Data in flight: taken from a task's queues when barriers overtake it, and given back to the tasks of a restored job,
//! at any parallelism.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_core::{
    Batch, Error, Result,
    ids::{CheckpointId, OperatorUid},
    schema::Schema,
};
use millrace_state::{
    assignment::InFlightHandle,
    in_flight::{self, EdgeIdentity, EdgeInFlight},
};

use super::{
    gate::{Gate, Lifted, StreamElement},
    handle::TaskSetup,
    restore::origin,
};
use crate::graph::{JobEdge, JobGraph, Partitioning};

/// The type of an edge's records, as a checkpoint names it.
pub(super) struct RecordTypes(Vec<Option<Schema>>);

impl RecordTypes {
    /// The schemas of the records of all edges. A record need not have one.
    pub(super) fn of(graph: &JobGraph) -> Self {
        Self(graph.edges.iter().map(|edge| edge.exchange.schema().ok()).collect())
    }
}

/// Encodes what waits before a checkpoint's barrier in a task's queues, and leaves it there.
pub(super) fn capture(
    graph: &JobGraph,
    types: &RecordTypes,
    gate: &Gate,
    checkpoint: CheckpointId,
) -> Result<Vec<EdgeInFlight>> {
    let lifted = gate.lift(checkpoint);
    let captured = encode(graph, types, gate, &lifted);
    gate.put_down(lifted);
    captured
}

fn encode(graph: &JobGraph, types: &RecordTypes, gate: &Gate, lifted: &Lifted) -> Result<Vec<EdgeInFlight>> {
    let restored = gate.edges().zip(&lifted.restored).flat_map(|(edge, queue)| queue.iter().map(move |e| (edge, e)));
    let channels = gate.channels().iter().map(|channel| channel.edge).zip(&lifted.queued);
    let queued = channels.flat_map(|(edge, queue)| queue.iter().map(move |queued| (edge, &queued.element)));
    let mut edges: Vec<(u32, EdgeInFlight)> = Vec::new();
    for (index, element) in restored.chain(queued) {
        let edge = &graph.edges[index as usize];
        let batch: Bytes = match element {
            StreamElement::Batch(batch) => edge.exchange.encode(batch, Vec::new())?.into(),
            StreamElement::Encoded(bytes) => bytes.clone(),
            // Of a checkpoint that is over; and an end that the producer tells again when it is restored.
            StreamElement::Barrier(_) | StreamElement::EndOfInput => continue,
        };
        match edges.iter_mut().find(|(known, _)| *known == index) {
            Some((_, edge)) => edge.batches.push(batch),
            None => {
                let edge = identity(graph, edge, types.0[index as usize].clone());
                edges.push((index, EdgeInFlight { edge, batches: vec![batch] }));
            }
        }
    }
    Ok(edges.into_iter().map(|(_, edge)| edge).collect())
}

fn identity(graph: &JobGraph, edge: &JobEdge, schema: Option<Schema>) -> EdgeIdentity {
    let producer = graph.vertex(edge.from);
    let source = producer.source.as_ref().map(|source| &source.uid);
    let last = producer.operators.last().map(|operator| &operator.uid).or(source);
    EdgeIdentity {
        from: last.cloned().unwrap_or_else(|| OperatorUid(String::new())),
        output: edge.output,
        input: edge.input,
        keyed: edge.partitioning == Partitioning::Hash,
        type_name: edge.exchange.type_name(),
        schema,
    }
}

/// Reads what was in flight to old subtasks and puts what is this task's before everything else that its gate takes.
pub(super) fn restore(setup: &TaskSetup, gate: &Gate, handles: &[InFlightHandle]) -> Result<()> {
    for InFlightHandle { subtask, data } in handles {
        let bytes = setup.runtime.block_on(setup.storage.read_state(data))?;
        let mut taken = BTreeSet::new();
        for of_edge in in_flight::decode(&origin(data), &bytes)? {
            let Some(index) = claimed(setup, &of_edge.edge, &taken)? else { continue };
            taken.insert(index);
            let batches = dealt(setup, index, *subtask, &of_edge)
                .map_err(|error| error.context(format_args!("data in flight in {}", origin(data))))?;
            gate.restore(index as u32, batches);
        }
    }
    Ok(())
}

/// The edge into this task that data was in flight through. `None` where there is none, and that is allowed.
fn claimed(setup: &TaskSetup, was: &EdgeIdentity, taken: &BTreeSet<usize>) -> Result<Option<usize>> {
    let graph = &setup.graph;
    let found = graph.edges_into(setup.spec.task.vertex).find_map(|(index, edge)| {
        let now = identity(graph, edge, edge.exchange.schema().ok());
        let same = edge.partitioning.is_all_to_all() && now.keyed == was.keyed;
        let same = same && (&now.from, now.output, now.input) == (&was.from, was.output, was.input);
        (same && !taken.contains(&index)).then_some((index, now))
    });
    let advice = "Let the program as it was take a checkpoint without data in flight \
                  (execution.checkpointing.unaligned.enabled: false), and start the new one from that";
    match found {
        Some((index, now)) if same_records(&now, was) => Ok(Some(index)),
        Some((_, now)) => Err(Error::invalid(format!(
            "the checkpoint holds records in flight from operator uid {} that were {}, and are {} now: {advice}",
            was.from,
            shown(was),
            shown(&now)
        ))),
        None if setup.spec.allow_non_restored => {
            tracing::warn!(task = %setup.spec.task, from = %was.from, "data in flight is dropped: no edge takes it");
            Ok(None)
        }
        None => Err(Error::invalid(format!(
            "the checkpoint holds records in flight from operator uid {} to {}, and the program has no such edge {} \
             any more: {advice}, or set allow-non-restored-state to drop them",
            was.from,
            setup.graph.vertex(setup.spec.task.vertex).name,
            if was.keyed { "by key" } else { "that rebalances" },
        ))),
    }
}

/// Records are read as they were written. Where a schema is unknown, the name has to do.
fn same_records(now: &EdgeIdentity, was: &EdgeIdentity) -> bool {
    match (&now.schema, &was.schema) {
        (Some(now), Some(was)) => now == was,
        _ => now.type_name == was.type_name,
    }
}

fn shown(edge: &EdgeIdentity) -> String {
    edge.schema.as_ref().map_or_else(|| edge.type_name.clone(), |schema| schema.to_string())
}

/// What of an old subtask's data is this task's: of records with keys, those of its key groups, as the edge itself deals
/// them out; of others everything or nothing.
fn dealt(setup: &TaskSetup, index: usize, old: u32, data: &EdgeInFlight) -> Result<Vec<Batch>> {
    let exchange = &setup.graph.edges[index].exchange;
    let subtask = setup.spec.task.subtask;
    let parallelism = setup.graph.vertex(setup.spec.task.vertex).parallelism;
    let batches = data.batches.iter().map(|batch| exchange.decode(batch));
    if !data.edge.keyed {
        return if old % parallelism == subtask { batches.collect() } else { Ok(Vec::new()) };
    }
    let mut partitioner = exchange.partitioner(0, parallelism, setup.graph.max_parallelism);
    let (mut parts, mut own) = (Vec::new(), Vec::new());
    for batch in batches {
        partitioner.partition(batch?, &mut parts)?;
        own.extend(parts.drain(..).filter(|(target, _)| *target == subtask).map(|(_, part)| part));
    }
    Ok(own)
}
