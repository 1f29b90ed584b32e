//! Frames on a socket, for both ends of a connection.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::UnboundedReceiver,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{NetworkSettings, frame::Frame};

pub(super) type Source = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
pub(super) type Sink = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Both directions of a socket.
pub(super) fn framed(socket: TcpStream, settings: &NetworkSettings) -> Result<(Source, Sink), String> {
    // Frames are written whole and flushed when there is nothing more to write.
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let (source, sink) = socket.into_split();
    Ok((FramedRead::new(source, settings.codec()), FramedWrite::new(sink, settings.codec())))
}

/// The next frame; `None` where the peer has closed between two frames.
pub(super) async fn next(source: &mut Source) -> Result<Option<Frame>, String> {
    match source.next().await {
        None => Ok(None),
        Some(Ok(bytes)) => Frame::decode(bytes.freeze()).map(Some).map_err(|error| error.message),
        Some(Err(error)) => Err(error.to_string()),
    }
}

/// Writes one frame at once.
pub(super) async fn send(sink: &mut Sink, frame: &Frame) -> Result<(), String> {
    let bytes = frame.encode().map_err(|error| error.message)?;
    sink.send(bytes).await.map_err(|error| error.to_string())
}

/// Writes what comes out of the queue until its last sender is gone.
pub(super) async fn write(outgoing: &mut UnboundedReceiver<Bytes>, sink: &mut Sink) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    while let Some(frame) = outgoing.recv().await {
        sink.feed(frame).await.map_err(failed)?;
        while let Ok(frame) = outgoing.try_recv() {
            sink.feed(frame).await.map_err(failed)?;
        }
        SinkExt::<Bytes>::flush(sink).await.map_err(failed)?;
    }
    SinkExt::<Bytes>::close(sink).await.map_err(failed)
}
