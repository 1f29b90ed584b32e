//! Frames on a socket, for both ends of a connection.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::UnboundedReceiver,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{NetworkSettings, frame::Frame};

/// After this long without a byte the peer's machine is probed, this often; without an answer the connection is lost.
const QUIET: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

pub(super) type Source = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
pub(super) type Sink = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Both directions of a socket.
pub(super) fn framed(socket: TcpStream, settings: &NetworkSettings) -> Result<(Source, Sink), String> {
    // Frames are written whole and flushed when there is nothing more to write.
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    // Who has nothing to send would never learn that a peer's machine is gone.
    let probes = TcpKeepalive::new().with_time(QUIET).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    SockRef::from(&socket).set_tcp_keepalive(&probes).map_err(|error| error.to_string())?;
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

#[cfg(test)]
mod tests {
    use millrace_core::ids::{JobId, TaskManagerId};

    use super::*;

    #[tokio::test]
    async fn a_quiet_connection_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let settings = NetworkSettings::new(JobId(1), TaskManagerId("tm".to_string()));
        let (source, sink) = framed(socket, &settings).unwrap();
        let socket = source.into_inner().reunite(sink.into_inner()).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!((socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()), (QUIET, PROBES));
    }
}
