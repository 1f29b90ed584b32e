//! Frames over any byte stream: TCP between processes, a pipe in memory inside one.

use std::marker::PhantomData;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use millrace_core::{Error, Result, codec, ids::Generation};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// The largest frame once a peer has introduced itself. Snapshots that travel inside messages must fit.
const MAX_FRAME_BYTES: usize = 256 << 20;
/// The largest frame of a peer that has not.
const MAX_HANDSHAKE_BYTES: usize = 64 << 10;
/// How many messages may wait for a slow peer before it counts as lost.
const MAX_WAITING_MESSAGES: usize = 4096;

/// Any byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A connection whose peer has not introduced itself.
pub struct Connection {
    reader: FramedRead<ReadHalf<Box<dyn Stream>>, LengthDelimitedCodec>,
    writer: FramedWrite<WriteHalf<Box<dyn Stream>>, LengthDelimitedCodec>,
}

impl Connection {
    /// Wraps a stream.
    pub fn new(stream: impl Stream) -> Self {
        let (reader, writer) = tokio::io::split(Box::new(stream) as Box<dyn Stream>);
        Self {
            reader: FramedRead::new(reader, frames(MAX_HANDSHAKE_BYTES)),
            writer: FramedWrite::new(writer, frames(MAX_HANDSHAKE_BYTES)),
        }
    }

    /// Sends a message of the handshake.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        let frame = codec::encode(message)?;
        self.writer.send(Bytes::from(frame)).await.map_err(|error| lost(&error))
    }

    /// Reads a message of the handshake.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        receive(&mut self.reader)
            .await?
            .ok_or_else(|| Error::external("the connection was closed during the handshake"))
    }

    /// After the handshake: a sender that never blocks and a receiver, whose messages carry the generation. The writing
    /// task ends with the sender.
    pub fn split<Out: Serialize, In: DeserializeOwned>(self, generation: Generation) -> (Sender<Out>, Receiver<In>) {
        let (sender, mut waiting) = mpsc::channel::<Bytes>(MAX_WAITING_MESSAGES);
        let mut writer = self.writer;
        writer.encoder_mut().set_max_frame_length(MAX_FRAME_BYTES);
        tokio::spawn(async move {
            while let Some(frame) = waiting.recv().await {
                if writer.send(frame).await.is_err() {
                    break;
                }
            }
            // The peer learns that nothing more will come, even while this side still reads.
            let _ = SinkExt::<Bytes>::close(&mut writer).await;
        });
        let mut reader = self.reader;
        reader.decoder_mut().set_max_frame_length(MAX_FRAME_BYTES);
        let sender = Sender { frames: sender, generation, message: PhantomData };
        (sender, Receiver { reader, generation, message: PhantomData })
    }
}

fn frames(max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(max).new_codec()
}

async fn receive<T: DeserializeOwned>(
    reader: &mut FramedRead<ReadHalf<Box<dyn Stream>>, LengthDelimitedCodec>,
) -> Result<Option<T>> {
    match reader.next().await {
        None => Ok(None),
        Some(Err(error)) => Err(lost(&error)),
        Some(Ok(frame)) => codec::decode(&frame).map(Some).map_err(|error| error.context("a frame is no message")),
    }
}

fn lost(error: &std::io::Error) -> Error {
    Error::external(format!("the connection is lost: {error}"))
}

/// Sends messages to a peer.
pub struct Sender<T> {
    frames: mpsc::Sender<Bytes>,
    generation: Generation,
    message: PhantomData<fn(T)>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { frames: self.frames.clone(), generation: self.generation, message: PhantomData }
    }
}

impl<T: Serialize> Sender<T> {
    /// Queues a message. A peer that is gone, or so slow that the queue is full, is an error.
    pub fn send(&self, message: &T) -> Result<()> {
        let frame = codec::encode(&(self.generation, message))?;
        if frame.len() > MAX_FRAME_BYTES {
            return Err(Error::invalid(format!(
                "a message of {} bytes is over the limit of {MAX_FRAME_BYTES}: keep large state in files \
                 (state.backend: filesystem)",
                frame.len()
            )));
        }
        self.frames.try_send(frame.into()).map_err(|_| Error::external("the peer does not read its messages"))
    }
}

impl<T> Sender<T> {
    /// A sender that does not keep the connection open.
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender { frames: self.frames.downgrade(), generation: self.generation, message: PhantomData }
    }
}

/// Sends messages to a peer for as long as a [`Sender`] keeps the connection open.
pub struct WeakSender<T> {
    frames: mpsc::WeakSender<Bytes>,
    generation: Generation,
    message: PhantomData<fn(T)>,
}

impl<T> WeakSender<T> {
    /// The sender, where the connection is still open.
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let frames = self.frames.upgrade()?;
        Some(Sender { frames, generation: self.generation, message: PhantomData })
    }
}

/// Receives messages from a peer.
pub struct Receiver<T> {
    reader: FramedRead<ReadHalf<Box<dyn Stream>>, LengthDelimitedCodec>,
    generation: Generation,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Receiver<T> {
    /// The next message; `None` when the peer closed the connection. A message of another generation is an error.
    pub async fn next(&mut self) -> Result<Option<T>> {
        match receive::<(Generation, T)>(&mut self.reader).await? {
            None => Ok(None),
            Some((generation, message)) if generation == self.generation => Ok(Some(message)),
            Some((generation, _)) => Err(Error::external(format!(
                "a message of generation {generation} came on a connection of generation {}",
                self.generation
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn receive_from(bytes: &[u8]) -> Result<u64> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(bytes).await.unwrap();
        drop(far);
        Connection::new(near).receive::<u64>().await
    }

    #[tokio::test]
    async fn nonsense_is_an_error_and_not_a_panic() {
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 9, 1], &[0, 0, 0, 3, 255, 255, 255], &[255; 64]] {
            assert!(receive_from(bytes).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn another_generation_is_refused() {
        let (near, far) = tokio::io::duplex(64);
        let (sender, _receiver) = Connection::new(near).split::<u64, u64>(Generation(1));
        let (_sender, mut receiver) = Connection::new(far).split::<u64, u64>(Generation(2));
        sender.send(&7).unwrap();
        assert!(receiver.next().await.unwrap_err().message.contains("generation 1"));
    }

    #[tokio::test]
    async fn messages_arrive_in_order() {
        let (near, far) = tokio::io::duplex(64);
        let (sender, _receiver) = Connection::new(near).split::<u64, u64>(Generation(1));
        let (_sender, mut receiver) = Connection::new(far).split::<u64, u64>(Generation(1));
        for number in 0..100 {
            sender.send(&number).unwrap();
        }
        drop(sender);
        for number in 0..100 {
            assert_eq!(receiver.next().await.unwrap(), Some(number));
        }
        assert_eq!(receiver.next().await.unwrap(), None);
    }
}
