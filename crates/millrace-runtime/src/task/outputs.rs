//! The edges out of a task.

use std::{rc::Rc, sync::Arc, sync::atomic::AtomicBool};

use millrace_core::{Batch, Error, Result, checkpoint::CheckpointBarrier, ids::OutputId};

use super::{
    TaskSpec,
    blame::Blame,
    control::TaskControl,
    gate::{Gate, Offer, Sent, StreamElement},
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

/// An endpoint by edge and consumer.
type EndpointAt = (usize, usize);

/// Where a task's records go.
pub(super) struct Outputs {
    edges: Vec<EdgeOutput>,
    parts: Vec<(u32, Batch)>,
    /// The endpoints that had no room left when something was sent to them.
    full: Vec<EndpointAt>,
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
        Self { edges: Vec::new(), parts: Vec::new(), full: Vec::new(), lane: Lane { control, metrics, blame } }
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
        for index in 0..last {
            if self.edges[index].output == output {
                self.send(index, batch.clone())?;
            }
        }
        self.send(last, batch)
    }

    fn send(&mut self, index: usize, batch: Batch) -> Result<()> {
        self.lane.metrics.add_records_out(batch.len());
        let edge = &mut self.edges[index];
        // The key selector of the edge is the user's: its panics are the last operator's.
        edge.partitioner.partition(batch, &mut self.parts)?;
        for (target, part) in self.parts.drain(..) {
            let sent = self.lane.blame.engine(|| {
                let endpoint = edge.endpoints.get(target as usize).and_then(Option::as_ref).ok_or_else(|| {
                    Error::internal(format!(
                        "a record was dealt out to subtask {target}, which the edge does not reach"
                    ))
                })?;
                match self.lane.push(endpoint, edge.exchange.as_ref(), part)? {
                    Sent::Closed => Err(Error::external(format!("consumer {target} behind an edge has ended"))),
                    sent => Ok(sent),
                }
            })?;
            match sent {
                Sent::Cancelled => return Err(self.lane.blame.cancelled()),
                Sent::Done { room: false } => self.full.push((index, target as usize)),
                Sent::Done { room: true } | Sent::Closed => {}
            }
        }
        Ok(())
    }

    /// Whether every consumer has room for what the next call may send to it. Where one has not, `gate`, the task's own,
    /// is nudged once it may have.
    pub(super) fn have_room(&mut self, gate: &Arc<Gate>) -> bool {
        let edges = &self.edges;
        self.full.retain(|(edge, target)| match &edges[*edge].endpoints[*target] {
            Some(Endpoint::Local(channel)) => !channel.gate.has_room(channel.index, gate),
            Some(Endpoint::Remote(channel)) => !channel.has_room(),
            None => false,
        });
        self.full.is_empty()
    }

    /// Sends a barrier through all channels, however full they are.
    pub(super) fn barrier(&self, barrier: CheckpointBarrier) -> Result<()> {
        self.send_to_all(
            || StreamElement::Barrier(barrier),
            |channel, cancelled, waiting| channel.send_barrier(barrier, cancelled, waiting),
        )
    }

    /// Sends the end of the input through all channels, however full they are.
    pub(super) fn end(&self) -> Result<()> {
        self.send_to_all(|| StreamElement::EndOfInput, RemoteChannel::send_end)
    }

    fn send_to_all(
        &self,
        element: impl Fn() -> StreamElement,
        send: impl Fn(&RemoteChannel, &AtomicBool, &mut dyn FnMut()) -> Result<Sent>,
    ) -> Result<()> {
        let lane = &self.lane;
        for endpoint in self.edges.iter().flat_map(|edge| edge.endpoints.iter().flatten()) {
            let sent = lane.blame.engine(|| match endpoint {
                Endpoint::Local(channel) => Ok(lane.push_local(channel, element())),
                Endpoint::Remote(channel) => {
                    let sent = lane.waiting(|waiting| send(channel, lane.control.cancelled(), waiting))?;
                    lane.metrics.add_bytes_out(size_of::<CheckpointBarrier>());
                    Ok(sent)
                }
            })?;
            // A consumer that has ended needs neither; whether it should have ended is for others to say.
            if sent == Sent::Cancelled {
                return Err(lane.blame.cancelled());
            }
        }
        Ok(())
    }
}

impl Lane {
    fn push(&self, endpoint: &Endpoint, exchange: &dyn Exchange, batch: Batch) -> Result<Sent> {
        match endpoint {
            Endpoint::Local(channel) => Ok(self.push_local(channel, StreamElement::Batch(batch))),
            Endpoint::Remote(channel) => {
                let send =
                    |waiting: &mut dyn FnMut()| channel.send_batch(batch, exchange, self.control.cancelled(), waiting);
                let (sent, bytes) = self.waiting(send)?;
                self.metrics.add_bytes_out(bytes);
                Ok(sent)
            }
        }
    }

    fn push_local(&self, GateChannel { gate, index }: &GateChannel, element: StreamElement) -> Sent {
        match gate.offer(*index, element) {
            Offer::Taken { room } => Sent::Done { room },
            Offer::Closed => Sent::Closed,
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
