//! The edges out of a task.

use std::{rc::Rc, sync::Arc, sync::atomic::AtomicBool};

use millrace_core::{Batch, Error, Result, checkpoint::CheckpointBarrier, ids::OutputId};

use super::{
    TaskSpec,
    blame::Blame,
    control::TaskControl,
    gate::{Gate, Offer, Pushed, StreamElement},
};
use crate::{
    exchange::{Exchange, Partitioner},
    graph::{JobEdge, JobGraph, Partitioning},
    metrics::{Activity, TaskMetrics},
    network::{ChannelKey, GateChannel, NetworkEnvironment, RemoteChannel},
};

enum Endpoint {
    Local(GateChannel),
    Remote(RemoteChannel),
}

struct EdgeOutput {
    output: OutputId,
    exchange: Arc<dyn Exchange>,
    partitioner: Box<dyn Partitioner>,
    /// By consuming subtask; a forward edge has one.
    endpoints: Vec<Option<Endpoint>>,
}

/// Where a task's records go.
pub(super) struct Outputs {
    edges: Vec<EdgeOutput>,
    parts: Vec<(u32, Batch)>,
    lane: Lane,
}

/// What sending through any edge needs.
struct Lane {
    control: Arc<TaskControl>,
    metrics: Arc<TaskMetrics>,
    blame: Rc<Blame>,
}

impl Outputs {
    /// Outputs that lead nowhere yet.
    pub(super) fn unconnected(control: Arc<TaskControl>, metrics: Arc<TaskMetrics>, blame: Rc<Blame>) -> Self {
        Self { edges: Vec::new(), parts: Vec::new(), lane: Lane { control, metrics, blame } }
    }

    /// Connects all edges. All consumers are deployed by now.
    pub(super) fn connect(
        &mut self,
        graph: &JobGraph,
        spec: &TaskSpec,
        network: &NetworkEnvironment,
        gate: &Arc<Gate>,
    ) -> Result<()> {
        for (position, (index, edge)) in graph.edges_from(spec.task.vertex).enumerate() {
            let targets = graph.vertex(edge.to).parallelism;
            let locations = spec.consumers.get(position).filter(|all| all.len() == targets as usize);
            let locations = locations.ok_or_else(|| {
                Error::internal(format!(
                    "task {} was not told where the {targets} consumers behind edge {index} run",
                    spec.task
                ))
            })?;
            let mut endpoints = Vec::new();
            for (consumer, location) in (0..targets).zip(locations) {
                if edge.partitioning == Partitioning::Forward && consumer != spec.task.subtask {
                    endpoints.push(None);
                    continue;
                }
                let key = ChannelKey {
                    generation: spec.generation,
                    attempt: spec.attempt,
                    edge: index as u32,
                    producer: spec.task.subtask,
                    consumer,
                };
                endpoints.push(Some(if location.id == *network.taskmanager() {
                    Endpoint::Local(network.local(&key)?)
                } else {
                    Endpoint::Remote(network.connect(location, &key, gate)?)
                }));
            }
            self.add(edge, spec.task.subtask, targets, graph.max_parallelism, endpoints);
        }
        Ok(())
    }

    fn add(
        &mut self,
        edge: &JobEdge,
        subtask: u32,
        targets: u32,
        max_parallelism: u32,
        endpoints: Vec<Option<Endpoint>>,
    ) {
        for endpoint in endpoints.iter().flatten() {
            match endpoint {
                Endpoint::Local(GateChannel { gate, index }) => {
                    let (gate, index) = (Arc::clone(gate), *index);
                    self.lane.control.on_cancel(Box::new(move || gate.wake_producer(index)));
                }
                Endpoint::Remote(channel) => self.lane.control.on_cancel(Box::new(channel.waker())),
            }
        }
        self.edges.push(EdgeOutput {
            output: edge.output,
            exchange: Arc::clone(&edge.exchange),
            partitioner: edge.exchange.partitioner(subtask, targets, max_parallelism),
            endpoints,
        });
    }

    /// Sends a batch through all edges of an output.
    pub(super) fn emit(&mut self, output: OutputId, mut batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(origin) = self.lane.blame.position() {
            batch.set_origin_if_absent(&origin);
        }
        let Some(last) = self.edges.iter().rposition(|edge| edge.output == output) else { return Ok(()) };
        for edge in self.edges[..last].iter_mut().filter(|edge| edge.output == output) {
            self.lane.send_batch(edge, &mut self.parts, batch.clone())?;
        }
        self.lane.send_batch(&mut self.edges[last], &mut self.parts, batch)
    }

    /// Sends a barrier through all channels.
    pub(super) fn barrier(&self, barrier: CheckpointBarrier) -> Result<()> {
        self.send_to_all(
            || StreamElement::Barrier(barrier),
            |channel, cancelled, waiting| channel.send_barrier(barrier, cancelled, waiting),
        )
    }

    /// Sends the end of the input through all channels.
    pub(super) fn end(&self) -> Result<()> {
        self.send_to_all(|| StreamElement::EndOfInput, RemoteChannel::send_end)
    }

    fn send_to_all(
        &self,
        element: impl Fn() -> StreamElement,
        send: impl Fn(&RemoteChannel, &AtomicBool, &mut dyn FnMut()) -> Result<Pushed>,
    ) -> Result<()> {
        let lane = &self.lane;
        for endpoint in self.edges.iter().flat_map(|edge| edge.endpoints.iter().flatten()) {
            let pushed = lane.blame.engine(|| match endpoint {
                Endpoint::Local(channel) => Ok(lane.push_local(channel, element())),
                Endpoint::Remote(channel) => {
                    let pushed = lane.waiting(|waiting| send(channel, lane.control.cancelled(), waiting))?;
                    lane.metrics.add_bytes_out(size_of::<CheckpointBarrier>());
                    Ok(pushed)
                }
            })?;
            // A consumer that has ended needs neither; whether it should have ended is for others to say.
            if pushed == Pushed::Cancelled {
                return Err(lane.blame.cancelled());
            }
        }
        Ok(())
    }
}

impl Lane {
    fn send_batch(&self, edge: &mut EdgeOutput, parts: &mut Vec<(u32, Batch)>, batch: Batch) -> Result<()> {
        self.metrics.add_records_out(batch.len());
        // The key selector of the edge is the user's: its panics are the last operator's.
        edge.partitioner.partition(batch, parts)?;
        for (target, part) in parts.drain(..) {
            let pushed = self.blame.engine(|| {
                let endpoint = edge.endpoints.get(target as usize).and_then(Option::as_ref).ok_or_else(|| {
                    Error::internal(format!(
                        "a record was dealt out to subtask {target}, which the edge does not reach"
                    ))
                })?;
                let pushed = self.push(endpoint, edge.exchange.as_ref(), part)?;
                if pushed == Pushed::Closed {
                    return Err(Error::external(format!("consumer {target} behind an edge has ended")));
                }
                Ok(pushed)
            })?;
            if pushed == Pushed::Cancelled {
                return Err(self.blame.cancelled());
            }
        }
        Ok(())
    }

    fn push(&self, endpoint: &Endpoint, exchange: &dyn Exchange, batch: Batch) -> Result<Pushed> {
        match endpoint {
            Endpoint::Local(channel) => Ok(self.push_local(channel, StreamElement::Batch(batch))),
            Endpoint::Remote(channel) => {
                let send =
                    |waiting: &mut dyn FnMut()| channel.send_batch(batch, exchange, self.control.cancelled(), waiting);
                let (pushed, bytes) = self.waiting(send)?;
                self.metrics.add_bytes_out(bytes);
                Ok(pushed)
            }
        }
    }

    fn push_local(&self, GateChannel { gate, index }: &GateChannel, element: StreamElement) -> Pushed {
        match gate.offer(*index, element) {
            Offer::Taken => Pushed::Done,
            Offer::Closed => Pushed::Closed,
            Offer::Full(element) => self.waiting(|waiting| {
                waiting();
                gate.push(*index, element, self.control.cancelled())
            }),
        }
    }

    /// Runs something that calls its argument when it begins to wait for a consumer.
    fn waiting<T>(&self, send: impl FnOnce(&mut dyn FnMut()) -> T) -> T {
        let mut waited = false;
        let result = send(&mut || {
            if !std::mem::replace(&mut waited, true) {
                self.metrics.enter(Activity::BackPressured);
            }
        });
        if waited {
            self.metrics.enter(Activity::Busy);
        }
        result
    }
}
