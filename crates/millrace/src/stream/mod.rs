//! Streams: what a program is made of.

mod broadcast_stream;
mod data_stream;
mod keyed_stream;
mod sink;

pub use broadcast_stream::{BroadcastConnectedStream, BroadcastStream, KeyedBroadcastConnectedStream};
pub use data_stream::DataStream;
pub use keyed_stream::KeyedStream;
pub use sink::DataStreamSink;
