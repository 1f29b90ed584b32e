//! The frames between taskmanagers, inside a length-delimited codec: one byte of kind, then the body; numbers are
//! little-endian. Nothing in a frame is trusted.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_core::{Error, Result, checkpoint::CheckpointBarrier, ids::CheckpointId};

use super::handshake::Hello;

/// The longest text that is read from a peer.
const MAX_REASON: usize = 4096;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const OPEN: u8 = 4;
const OPENED: u8 = 5;
const NOT_OPENED: u8 = 6;
const DATA: u8 = 7;
const BARRIER: u8 = 8;
const END: u8 = 9;
const RELEASE: u8 = 10;
const CREDIT: u8 = 11;

/// One message between taskmanagers. The first of a connection is [`Frame::Hello`], from producer to consumer, answered
/// by [`Frame::Welcome`] or [`Frame::Refused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Producer: who it is and what it wants.
    Hello(Hello),
    /// Consumer: go on.
    Welcome,
    /// Consumer: go away, and why.
    Refused(String),
    /// Producer: `channel` stands for this edge, producing subtask and consuming subtask from now on.
    Open { channel: u32, edge: u32, producer: u32, consumer: u32 },
    /// Consumer: the channel has room for as many elements.
    Opened { channel: u32, credits: u32 },
    /// Consumer: there is no such channel.
    NotOpened { channel: u32, reason: String },
    /// Producer: an encoded batch.
    Data { channel: u32, payload: Bytes },
    /// Producer: a barrier.
    Barrier { channel: u32, barrier: CheckpointBarrier },
    /// Producer: the end of the input.
    End { channel: u32 },
    /// Producer: its task has ended in order; the channel is no longer used.
    Release { channel: u32 },
    /// Consumer: as many more elements have room.
    Credit { channel: u32, credits: u32 },
}

/// Begins a data frame whose payload the caller appends, with room for `capacity` bytes.
pub(super) fn begin_data(channel: u32, capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(capacity);
    frame.push(DATA);
    frame.extend_from_slice(&channel.to_le_bytes());
    frame
}

impl Frame {
    pub(super) fn encode(&self) -> Result<Bytes> {
        let mut out = BytesMut::new();
        match self {
            Self::Hello(hello) => {
                out.put_u8(HELLO);
                out.put_slice(&hello.encode()?);
            }
            Self::Welcome => out.put_u8(WELCOME),
            Self::Refused(reason) => {
                out.put_u8(REFUSED);
                out.put_slice(reason.as_bytes());
            }
            Self::Open { channel, edge, producer, consumer } => {
                put(&mut out, OPEN, &[*channel, *edge, *producer, *consumer])
            }
            Self::Opened { channel, credits } => put(&mut out, OPENED, &[*channel, *credits]),
            Self::NotOpened { channel, reason } => {
                put(&mut out, NOT_OPENED, &[*channel]);
                out.put_slice(reason.as_bytes());
            }
            Self::Data { channel, payload } => {
                put(&mut out, DATA, &[*channel]);
                out.put_slice(payload);
            }
            Self::Barrier { channel, barrier } => {
                put(&mut out, BARRIER, &[*channel]);
                out.put_u64_le(barrier.id.0);
                out.put_u64_le(barrier.triggered_at_ms);
            }
            Self::End { channel } => put(&mut out, END, &[*channel]),
            Self::Release { channel } => put(&mut out, RELEASE, &[*channel]),
            Self::Credit { channel, credits } => put(&mut out, CREDIT, &[*channel, *credits]),
        }
        Ok(out.freeze())
    }

    pub(super) fn decode(mut frame: Bytes) -> Result<Self> {
        let kind = frame.try_get_u8().map_err(|_| garbage("it is empty"))?;
        let read = match kind {
            HELLO => return Ok(Self::Hello(Hello::decode(&frame)?)),
            WELCOME => Self::Welcome,
            REFUSED => return Ok(Self::Refused(text(&frame))),
            OPEN => Self::Open {
                channel: number(&mut frame)?,
                edge: number(&mut frame)?,
                producer: number(&mut frame)?,
                consumer: number(&mut frame)?,
            },
            OPENED => Self::Opened { channel: number(&mut frame)?, credits: number(&mut frame)? },
            NOT_OPENED => return Ok(Self::NotOpened { channel: number(&mut frame)?, reason: text(&frame) }),
            DATA => return Ok(Self::Data { channel: number(&mut frame)?, payload: frame }),
            BARRIER => Self::Barrier {
                channel: number(&mut frame)?,
                barrier: CheckpointBarrier { id: CheckpointId(long(&mut frame)?), triggered_at_ms: long(&mut frame)? },
            },
            END => Self::End { channel: number(&mut frame)? },
            RELEASE => Self::Release { channel: number(&mut frame)? },
            CREDIT => Self::Credit { channel: number(&mut frame)?, credits: number(&mut frame)? },
            unknown => return Err(garbage(format_args!("its kind {unknown} is unknown"))),
        };
        if frame.has_remaining() {
            return Err(garbage(format_args!("{} bytes are left over", frame.remaining())));
        }
        Ok(read)
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome => "welcome",
            Self::Refused(_) => "refused",
            Self::Open { .. } => "open",
            Self::Opened { .. } => "opened",
            Self::NotOpened { .. } => "not opened",
            Self::Data { .. } => "data",
            Self::Barrier { .. } => "barrier",
            Self::End { .. } => "end",
            Self::Release { .. } => "release",
            Self::Credit { .. } => "credit",
        }
    }
}

fn put(out: &mut BytesMut, kind: u8, numbers: &[u32]) {
    out.put_u8(kind);
    numbers.iter().for_each(|number| out.put_u32_le(*number));
}

fn number(frame: &mut Bytes) -> Result<u32> {
    frame.try_get_u32_le().map_err(|_| garbage("it is too short"))
}

fn long(frame: &mut Bytes) -> Result<u64> {
    frame.try_get_u64_le().map_err(|_| garbage("it is too short"))
}

fn text(frame: &[u8]) -> String {
    String::from_utf8_lossy(&frame[..frame.len().min(MAX_REASON)]).into_owned()
}

pub(super) fn garbage(why: impl std::fmt::Display) -> Error {
    Error::external(format!("a frame from a peer makes no sense: {why}"))
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::{Attempt, Generation, JobId, TaskManagerId};
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Frame> {
        let hello = Hello {
            job: JobId(7),
            generation: Generation(3),
            attempt: Attempt(2),
            from: TaskManagerId("a".into()),
            to: TaskManagerId("b".into()),
            auth: vec![1, 2],
        };
        let barrier = CheckpointBarrier { id: CheckpointId(9), triggered_at_ms: 10 };
        vec![
            Frame::Hello(hello),
            Frame::Welcome,
            Frame::Refused("no".into()),
            Frame::Open { channel: 1, edge: 2, producer: 3, consumer: 4 },
            Frame::Opened { channel: 1, credits: 8 },
            Frame::NotOpened { channel: 1, reason: "unknown".into() },
            Frame::Data { channel: 1, payload: Bytes::from_static(b"abc") },
            Frame::Barrier { channel: 1, barrier },
            Frame::End { channel: 1 },
            Frame::Release { channel: 1 },
            Frame::Credit { channel: 1, credits: 4 },
        ]
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for frame in frames() {
            assert_eq!(Frame::decode(frame.encode().unwrap()).unwrap(), frame);
        }
    }

    #[test]
    fn a_frame_with_a_byte_too_many_or_too_few_is_refused() {
        let fixed = |frame: &Frame| !matches!(frame, Frame::Refused(_) | Frame::NotOpened { .. } | Frame::Data { .. });
        for frame in frames().iter().filter(|frame| fixed(frame)) {
            let bytes = frame.encode().unwrap();
            assert!(Frame::decode(bytes.slice(..bytes.len() - 1)).is_err(), "{frame:?}");
            let longer = [&bytes[..], &[0]].concat();
            assert!(Frame::decode(longer.into()).is_err(), "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Frame::decode(bytes.into());
        }
    }
}
