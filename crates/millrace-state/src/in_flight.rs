//! What was in flight to a subtask when unaligned barriers overtook it, as it lies in a checkpoint.
//!
//! ```text
//! magic "MLRFLOW\n" | version u32 | payload length u64 | payload | CRC-32 u32 of all before
//! payload: header (postcard) | the batches of all edges, one after another
//! ```
//!
//! Numbers are little-endian. The header says which edges there are, what their records are and how long each batch is;
//! a batch is what `millrace-runtime` sends between processes (`exchange/wire.rs`).

use bytes::Bytes;
use millrace_core::{
    Result, codec,
    ids::{InputId, OperatorUid, OutputId},
    schema::Schema,
};
use serde::{Deserialize, Serialize};

use crate::{
    frame::{Frame, HEADER},
    log::entry::damaged,
};

/// The version of the format that this program reads and writes.
pub const IN_FLIGHT_FORMAT_VERSION: u32 = 1;

const FRAME: Frame = Frame {
    magic: b"MLRFLOW\n",
    what: "data in flight",
    versions: IN_FLIGHT_FORMAT_VERSION..=IN_FLIGHT_FORMAT_VERSION,
};

/// An edge, by what a later version of the program knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeIdentity {
    /// The last operator of the producing chain.
    pub from: OperatorUid,
    /// Which of its outputs.
    pub output: OutputId,
    /// Which input of the subtask.
    pub input: InputId,
    /// Whether its records have keys: then they belong to the subtask that owns their key group.
    pub keyed: bool,
    /// The record type's name.
    pub type_name: String,
    /// The record type's schema, where it has one.
    pub schema: Option<Schema>,
}

/// What was in flight through one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeInFlight {
    /// The edge.
    pub edge: EdgeIdentity,
    /// Encoded batches, in the order in which the subtask was going to take them.
    pub batches: Vec<Bytes>,
}

#[derive(Serialize, Deserialize)]
struct EdgeHeader {
    edge: EdgeIdentity,
    lengths: Vec<u64>,
}

/// The pieces of the file, in order.
pub fn encode(edges: &[EdgeInFlight]) -> Result<Vec<Bytes>> {
    let header = |of: &EdgeInFlight| EdgeHeader {
        edge: of.edge.clone(),
        lengths: of.batches.iter().map(|batch| batch.len() as u64).collect(),
    };
    let header = codec::encode(&edges.iter().map(header).collect::<Vec<_>>())?;
    let batches = || edges.iter().flat_map(|edge| &edge.batches);
    let length = header.len() as u64 + batches().map(|batch| batch.len() as u64).sum::<u64>();
    let mut front = Vec::with_capacity(HEADER + header.len());
    front.extend_from_slice(&FRAME.header(IN_FLIGHT_FORMAT_VERSION, length));
    front.extend_from_slice(&header);
    let mut pieces = vec![Bytes::from(front)];
    pieces.extend(batches().cloned());
    let mut crc = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    pieces.push(Bytes::copy_from_slice(&crc.finalize().to_le_bytes()));
    Ok(pieces)
}

/// Reads the file `name`. Anything that is not exactly what was written is refused by name.
pub fn decode(name: &str, bytes: &Bytes) -> Result<Vec<EdgeInFlight>> {
    read(bytes).map_err(|why| damaged(format!("data in flight in {name} is {why}")))
}

fn read(bytes: &Bytes) -> Result<Vec<EdgeInFlight>, String> {
    let (_, payload) = FRAME.unframe(bytes)?;
    let end = HEADER + payload.len();
    let understood = codec::decode_front::<Vec<EdgeHeader>>(payload);
    let (headers, rest) = understood.map_err(|error| format!("not understood: {error}"))?;
    let mut at = end - rest.len();
    let mut cut = |length: u64| {
        let there = (end - at) as u64;
        let length = usize::try_from(length.min(there)).ok().filter(|_| length <= there);
        let length = length.ok_or_else(|| "not consistent: a batch is longer than the file".to_string())?;
        at += length;
        Ok(bytes.slice(at - length..at))
    };
    let mut edges = Vec::new();
    for EdgeHeader { edge, lengths } in headers {
        let batches = lengths.into_iter().map(&mut cut).collect::<Result<_, String>>()?;
        edges.push(EdgeInFlight { edge, batches });
    }
    match at == end {
        true => Ok(edges),
        false => Err(format!("not consistent: {} bytes are left over", end - at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::TRAILER;

    fn sample() -> Vec<EdgeInFlight> {
        let edge = |from: &str, keyed, schema| EdgeIdentity {
            from: OperatorUid(from.into()),
            output: OutputId(0),
            input: InputId(1),
            keyed,
            type_name: "(alloc::string::String, u64)".into(),
            schema,
        };
        let batches = |all: &[&'static [u8]]| all.iter().map(|batch| Bytes::from_static(batch)).collect();
        vec![
            EdgeInFlight {
                edge: edge("source", true, Some(Schema::of::<(String, u64)>().unwrap())),
                batches: batches(&[b"first", b"", b"second"]),
            },
            EdgeInFlight { edge: edge("map", false, None), batches: batches(&[b"third"]) },
        ]
    }

    fn file() -> Bytes {
        encode(&sample()).unwrap().concat().into()
    }

    /// These bytes are in checkpoints: they must never change within version 1.
    #[test]
    fn the_format_is_frozen() {
        let golden = include_bytes!("../tests/golden/in-flight-v1.bin");
        assert_eq!(decode("x", &Bytes::from_static(golden)).unwrap(), sample());
        assert_eq!(file(), golden.as_slice());
    }

    #[test]
    fn torn_and_flipped_files_are_refused_by_name() {
        let bytes = file();
        for length in 0..bytes.len() {
            let error = decode("chk-7/x", &bytes.slice(..length)).unwrap_err();
            assert!(error.message.contains("chk-7/x") && !error.retryable, "{error}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode("x", &flipped.into()).is_err(), "bit {bit}");
        }
    }

    /// A checksum only keeps accidents out.
    #[test]
    fn crafted_files_are_refused_or_consistent() {
        let bytes = file();
        for at in HEADER..bytes.len() - TRAILER {
            for value in [0, 0x7f, 0xff] {
                let mut crafted = bytes.to_vec();
                crafted[at] = value;
                let end = crafted.len() - TRAILER;
                let crc = crc32fast::hash(&crafted[..end]).to_le_bytes();
                crafted[end..].copy_from_slice(&crc);
                let _ = decode("x", &crafted.into());
            }
        }
        let mut longer = sample();
        longer[1].batches.push(Bytes::from_static(b"more"));
        let pieces = encode(&longer).unwrap();
        let mut without = pieces[..pieces.len() - 2].concat();
        let length = (without.len() - HEADER) as u64;
        without[12..HEADER].copy_from_slice(&length.to_le_bytes());
        without.extend(crc32fast::hash(&without).to_le_bytes());
        assert!(decode("x", &without.into()).unwrap_err().message.contains("longer than the file"));
    }
}
