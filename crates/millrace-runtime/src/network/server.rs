//! The consuming end of the connections.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use millrace_core::{Error, ids::TaskManagerId};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    NetworkSettings,
    frame::Frame,
    handshake::Hello,
    io::{self, Sink, Source},
    registry::{ChannelKey, GateChannel, Registry},
};
use crate::task::gate::{CreditReturn, Offer, StreamElement};

/// Accepts connections until `shutdown`, which ends them too.
pub(super) async fn run(
    listener: TcpListener,
    settings: Arc<NetworkSettings>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, peer)) => {
                let (settings, registry) = (Arc::clone(&settings), Arc::clone(&registry));
                connections.spawn(async move { serve(socket, peer, settings, &registry).await });
            }
            Err(error) => {
                tracing::warn!("the data port can't accept a connection: {error}");
                // Without this, a process that is out of file descriptors would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, peer: SocketAddr, settings: Arc<NetworkSettings>, registry: &Arc<Registry>) {
    let (mut source, mut sink) = match io::framed(socket, &settings) {
        Ok(both) => both,
        Err(why) => return tracing::warn!(%peer, "a connection to the data port can't be set up: {why}"),
    };
    let greeted = tokio::time::timeout(settings.connect_timeout, greet(&mut source, &mut sink, &settings, registry));
    let hello = match greeted.await {
        Ok(Ok(hello)) => hello,
        Ok(Err(why)) => return tracing::warn!(%peer, "a connection to the data port was refused: {why}"),
        Err(_) => return tracing::warn!(%peer, "a connection to the data port was closed: it sent no greeting"),
    };
    let (outgoing, mut to_send) = unbounded_channel();
    let from = hello.from.clone();
    let mut bound = Bound { from: hello.from.clone(), why: "this taskmanager ends".into(), channels: HashMap::new() };
    let ended = tokio::select! {
        ended = read(&mut source, &hello, registry, &outgoing, &mut bound) => ended,
        ended = io::write(&mut to_send, &mut sink) => ended,
    };
    match ended {
        Err(why) => {
            tracing::warn!(%peer, %from, "the connection of a taskmanager was closed: {why}");
            bound.why = why;
        }
        Ok(()) => bound.why = "closed by the peer".into(),
    }
}

/// Reads the greeting and answers it.
async fn greet(
    source: &mut Source,
    sink: &mut Sink,
    settings: &NetworkSettings,
    registry: &Registry,
) -> Result<Hello, String> {
    let hello = match io::next(source).await {
        Ok(Some(Frame::Hello(hello))) => {
            hello.check(settings, registry.knows(hello.generation, hello.attempt)).map(|()| hello)
        }
        Ok(Some(frame)) => Err(format!("its first frame is {:?}", frame.name())),
        Ok(None) => return Err("it closed without a greeting".into()),
        Err(why) => Err(why),
    };
    let answer = hello.as_ref().map_or_else(|why| Frame::Refused(why.clone()), |_| Frame::Welcome);
    io::send(sink, &answer).await?;
    hello
}

/// The channels of a connection by number. However the connection ends, tasks whose producer did not let go of its
/// channel fail.
struct Bound {
    from: TaskManagerId,
    why: String,
    channels: HashMap<u32, GateChannel>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let error = Error::external(format!("connection to taskmanager {} lost: {}", self.from, self.why));
        self.channels.values().for_each(|channel| channel.gate.fail(error.clone()));
    }
}

async fn read(
    source: &mut Source,
    hello: &Hello,
    registry: &Registry,
    outgoing: &UnboundedSender<Bytes>,
    bound: &mut Bound,
) -> Result<(), String> {
    while let Some(frame) = io::next(source).await? {
        match frame {
            Frame::Open { channel, edge, producer, consumer } => {
                let (generation, attempt) = (hello.generation, hello.attempt);
                let key = ChannelKey { generation, attempt, edge, producer, consumer };
                open(channel, &key, registry, outgoing, bound)?;
            }
            Frame::Data { channel, payload } => deliver(bound, channel, StreamElement::Encoded(payload))?,
            Frame::Barrier { channel, barrier } => deliver(bound, channel, StreamElement::Barrier(barrier))?,
            Frame::End { channel } => deliver(bound, channel, StreamElement::EndOfInput)?,
            Frame::Release { channel } => drop(bound.channels.remove(&channel)),
            other => return Err(format!("its frame {:?} is out of place", other.name())),
        }
    }
    Ok(())
}

fn open(
    number: u32,
    key: &ChannelKey,
    registry: &Registry,
    outgoing: &UnboundedSender<Bytes>,
    bound: &mut Bound,
) -> Result<(), String> {
    if bound.channels.contains_key(&number) {
        return Err(format!("it opened channel {number} twice"));
    }
    let Some(channel) = registry.get(key) else {
        let reason = format!(
            "subtask {} behind edge {} is not deployed for attempt {} of generation {}",
            key.consumer, key.edge, key.attempt, key.generation
        );
        return send(outgoing, &Frame::NotOpened { channel: number, reason });
    };
    let credits = Credits { channel: number, outgoing: outgoing.clone() };
    let Some(credits) = channel.gate.bind_remote(channel.index, Arc::new(credits)) else {
        let (edge, producer, consumer) = (key.edge, key.producer, key.consumer);
        return Err(format!(
            "the channel of edge {edge} from subtask {producer} to {consumer} has its producer already"
        ));
    };
    bound.channels.insert(number, channel);
    send(outgoing, &Frame::Opened { channel: number, credits })
}

fn deliver(bound: &Bound, number: u32, element: StreamElement) -> Result<(), String> {
    let Some(channel) = bound.channels.get(&number) else {
        // Without an answer to its opening there was no credit either.
        return Err(format!("it sent to channel {number}, which is not open"));
    };
    match channel.gate.offer(channel.index, element) {
        // A consumer that has ended takes nothing more; its producer is told by the jobmanager.
        Offer::Taken { .. } | Offer::Closed => Ok(()),
        Offer::Full(_) => Err(format!("it sent more to channel {number} than there is room for")),
    }
}

fn send(outgoing: &UnboundedSender<Bytes>, frame: &Frame) -> Result<(), String> {
    let bytes = frame.encode().map_err(|error| error.message)?;
    outgoing.send(bytes).map_err(|_| "it can't be answered".to_string())
}

struct Credits {
    channel: u32,
    outgoing: UnboundedSender<Bytes>,
}

impl CreditReturn for Credits {
    fn give_back(&self, credits: u32) {
        if let Ok(frame) = (Frame::Credit { channel: self.channel, credits }).encode() {
            // A connection that has ended has told its tasks so already.
            let _ = self.outgoing.send(frame);
        }
    }
}
