//! The producing end of a connection.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use millrace_core::{Batch, Error, Result, checkpoint::CheckpointBarrier, ids::TaskManagerId};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_util::sync::CancellationToken;

use super::{
    NetworkSettings,
    frame::{Frame, begin_data, garbage},
    handshake::Hello,
    io::{self, Sink, Source},
    registry::ChannelKey,
};
use crate::{
    exchange::Exchange,
    task::{
        TaskManagerLocation,
        gate::{Gate, Sent},
    },
};

/// How long it may take until somebody answers: nobody does for the address of a pod that is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a consuming taskmanager, shared by all channels of an attempt that lead there. It ends when the last
/// of them is dropped.
pub(super) struct Connection {
    peer: TaskManagerId,
    /// Bounded by the channels' credits.
    outgoing: UnboundedSender<Bytes>,
    channels: Arc<Channels>,
    max_frame_size: usize,
}

/// The channels of a connection, by number.
#[derive(Default)]
struct Channels {
    all: Mutex<AllChannels>,
}

#[derive(Default)]
struct AllChannels {
    channels: Vec<Arc<Channel>>,
    failed: Option<Error>,
}

struct Channel {
    state: Mutex<ChannelState>,
    changed: Condvar,
    /// The producer's gate, which is told when the channel is lost.
    owner: Arc<Gate>,
}

#[derive(Default)]
struct ChannelState {
    /// The consumer has answered.
    opened: bool,
    credits: u32,
    /// The producer's gate is to be nudged when there is credit.
    nudge: bool,
    failed: Option<Error>,
    /// The producer has let go of it: a loss concerns nobody.
    released: bool,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: &Error) {
        let mut state = self.lock();
        if state.released || state.failed.is_some() {
            return;
        }
        state.failed = Some(error.clone());
        drop(state);
        self.changed.notify_all();
        self.owner.fail(error.clone());
    }

    fn grant(&self, credits: u32) {
        let mut state = self.lock();
        state.opened = true;
        state.credits = state.credits.saturating_add(credits);
        let nudge = std::mem::take(&mut state.nudge);
        drop(state);
        self.changed.notify_all();
        if nudge {
            self.owner.nudge();
        }
    }
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, AllChannels> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, number: u32) -> Result<Arc<Channel>> {
        self.lock()
            .channels
            .get(number as usize)
            .cloned()
            .ok_or_else(|| garbage(format!("channel {number} is unknown")))
    }

    fn fail_all(&self, error: &Error) {
        let mut all = self.lock();
        all.failed = Some(error.clone());
        let channels = all.channels.clone();
        drop(all);
        channels.iter().for_each(|channel| channel.fail(error));
    }
}

/// The asynchronous side of a connection.
pub(super) struct ConnectionRun {
    to: TaskManagerLocation,
    hello: Hello,
    settings: Arc<NetworkSettings>,
    outgoing: UnboundedReceiver<Bytes>,
    channels: Arc<Channels>,
}

/// Makes both sides of a connection; the second must be run.
pub(super) fn connect(
    to: TaskManagerLocation,
    hello: Hello,
    settings: Arc<NetworkSettings>,
) -> (Arc<Connection>, ConnectionRun) {
    let (sender, outgoing) = unbounded_channel();
    let channels = Arc::<Channels>::default();
    let connection = Connection {
        peer: to.id.clone(),
        outgoing: sender,
        channels: Arc::clone(&channels),
        max_frame_size: settings.max_frame_size,
    };
    (Arc::new(connection), ConnectionRun { to, hello, settings, outgoing, channels })
}

/// Opens a channel on a connection.
pub(super) fn open(connection: Arc<Connection>, key: &ChannelKey, owner: &Arc<Gate>) -> Result<RemoteChannel> {
    let channel = Arc::new(Channel { state: Mutex::default(), changed: Condvar::new(), owner: Arc::clone(owner) });
    let mut all = connection.channels.lock();
    if let Some(error) = &all.failed {
        return Err(error.clone());
    }
    let number = all.channels.len() as u32;
    all.channels.push(Arc::clone(&channel));
    let open = Frame::Open { channel: number, edge: key.edge, producer: key.producer, consumer: key.consumer };
    // Sent under the lock, so that channels are opened in the order of their numbers.
    let sent = connection.send(open.encode()?);
    drop(all);
    sent?;
    Ok(RemoteChannel { connection, channel, number, frame_size: AtomicUsize::default() })
}

impl Connection {
    fn send(&self, frame: Bytes) -> Result<()> {
        self.outgoing.send(frame).map_err(|_| lost(&self.peer, "it has ended"))
    }
}

fn lost(peer: &TaskManagerId, why: impl std::fmt::Display) -> Error {
    Error::external(format!("connection to taskmanager {peer} lost: {why}"))
}

/// A channel into a task of another process. Dropping it tells the consumer that its producer has ended in order.
pub struct RemoteChannel {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
    number: u32,
    /// Of the last batch: the next one is about as large.
    frame_size: AtomicUsize,
}

impl RemoteChannel {
    /// Sends a batch once there is credit for it, split where it is too large for a frame. `waiting` is called before
    /// the thread has to wait; returns the bytes that were sent.
    pub fn send_batch(
        &self,
        mut batch: Batch,
        exchange: &dyn Exchange,
        cancelled: &AtomicBool,
        waiting: &mut dyn FnMut(),
    ) -> Result<(Sent, usize)> {
        let frame = exchange.encode(&batch, begin_data(self.number, self.frame_size.load(Ordering::Relaxed)))?;
        if frame.len() <= self.connection.max_frame_size {
            let bytes = frame.len();
            self.frame_size.store(bytes, Ordering::Relaxed);
            return Ok((self.send(frame.into(), 1, cancelled, waiting)?, bytes));
        }
        if batch.len() <= 1 {
            return Err(Error::invalid(format!(
                "a record encodes to {} bytes, more than the largest frame between taskmanagers, {} bytes: \
                 raise the limit or send smaller records",
                frame.len(),
                self.connection.max_frame_size
            )));
        }
        drop(frame);
        let rest = batch.split_off(batch.len() / 2);
        let (sent, bytes) = self.send_batch(batch, exchange, cancelled, waiting)?;
        if !matches!(sent, Sent::Done { .. }) {
            return Ok((sent, bytes));
        }
        let (sent, more) = self.send_batch(rest, exchange, cancelled, waiting)?;
        Ok((sent, bytes + more))
    }

    /// Whether there is credit for a batch. Where there is none, the producer's gate is nudged once there is.
    pub fn has_room(&self) -> bool {
        let mut state = self.channel.lock();
        // Who sends through a channel that is lost is told so.
        let room = state.credits > 0 || state.failed.is_some();
        state.nudge = !room;
        room
    }

    /// Sends a barrier, without credit.
    pub fn send_barrier(
        &self,
        barrier: CheckpointBarrier,
        cancelled: &AtomicBool,
        waiting: &mut dyn FnMut(),
    ) -> Result<Sent> {
        self.send(Frame::Barrier { channel: self.number, barrier }.encode()?, 0, cancelled, waiting)
    }

    /// Sends the end of the input, without credit.
    pub fn send_end(&self, cancelled: &AtomicBool, waiting: &mut dyn FnMut()) -> Result<Sent> {
        self.send(Frame::End { channel: self.number }.encode()?, 0, cancelled, waiting)
    }

    /// What wakes a sender that waits for credit, so that it sees its cancellation.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let channel = Arc::clone(&self.channel);
        move || {
            // The lock orders this after a sender's look at its flag.
            drop(channel.lock());
            channel.changed.notify_all();
        }
    }

    /// Sends a frame once the channel is open and has as much credit.
    fn send(&self, frame: Bytes, credits: u32, cancelled: &AtomicBool, waiting: &mut dyn FnMut()) -> Result<Sent> {
        let mut state = self.channel.lock();
        let mut waited = false;
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if cancelled.load(Ordering::SeqCst) {
                return Ok(Sent::Cancelled);
            }
            if state.opened && state.credits >= credits {
                state.credits -= credits;
                break;
            }
            if !std::mem::replace(&mut waited, true) {
                waiting();
            }
            state = self.channel.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let room = state.credits > 0;
        drop(state);
        self.connection.send(frame).map(|()| Sent::Done { room })
    }
}

impl Drop for RemoteChannel {
    fn drop(&mut self) {
        self.channel.lock().released = true;
        if let Ok(frame) = (Frame::Release { channel: self.number }).encode() {
            // Nobody is left to hear of a lost connection.
            let _ = self.connection.send(frame);
        }
    }
}

impl ConnectionRun {
    /// Connects and carries frames until the last channel is dropped or the connection is lost.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let ended = tokio::select! {
            ended = self.carry() => ended,
            () = shutdown.cancelled() => Err("this taskmanager ends".to_string()),
        };
        if let Err(why) = ended {
            let error = lost(&self.to.id, &why);
            tracing::warn!(peer = %self.to.id, address = self.to.data_address, "{error}");
            self.channels.fail_all(&error);
        }
    }

    async fn carry(&mut self) -> Result<(), String> {
        let deadline = self.settings.connect_timeout;
        let connected = tokio::time::timeout(deadline, self.establish()).await;
        let (mut source, mut sink) = connected.map_err(|_| format!("no answer within {deadline:?}"))??;
        tokio::select! {
            ended = io::write(&mut self.outgoing, &mut sink) => ended,
            ended = read(&mut source, &self.channels) => ended,
        }
    }

    async fn establish(&self) -> Result<(Source, Sink), String> {
        let address = &self.to.data_address;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let socket = connected.map_err(|_| format!("{address}: no answer within {CONNECT_TIMEOUT:?}"))?;
        let socket = socket.map_err(|error| format!("{address}: {error}"))?;
        let (mut source, mut sink) = io::framed(socket, &self.settings)?;
        io::send(&mut sink, &Frame::Hello(self.hello.clone())).await?;
        match io::next(&mut source).await? {
            Some(Frame::Welcome) => Ok((source, sink)),
            Some(Frame::Refused(reason)) => Err(format!("refused: {reason}")),
            Some(frame) => Err(format!("its first frame is {:?}", frame.name())),
            None => Err("closed during the handshake".into()),
        }
    }
}

async fn read(source: &mut Source, channels: &Channels) -> Result<(), String> {
    loop {
        match io::next(source).await? {
            Some(Frame::Opened { channel, credits } | Frame::Credit { channel, credits }) => {
                channels.get(channel).map_err(|error| error.message)?.grant(credits);
            }
            Some(Frame::NotOpened { channel, reason }) => {
                let error = Error::external(format!("a consumer refused its channel: {reason}"));
                channels.get(channel).map_err(|error| error.message)?.fail(&error);
            }
            Some(frame) => return Err(format!("its frame {:?} is out of place", frame.name())),
            None => return Err("closed by the peer".into()),
        }
    }
}
