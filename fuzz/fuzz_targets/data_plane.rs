//! Any bytes as a frame between taskmanagers and as a batch in one. A batch that is accepted is encoded and read again.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millrace_core::Record;
use millrace_runtime::{
    exchange::{Exchange, RebalanceExchange},
    network::check_frame,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    name: String,
    place: Option<(i64, u32)>,
    tags: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kind {
    Empty,
    Number(f64),
    Named { text: String },
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => drop(check_frame(Bytes::copy_from_slice(bytes))),
        1 => batch::<Event>(bytes),
        2 => batch::<String>(bytes),
        _ => batch::<()>(bytes),
    }
});

fn batch<T: Record>(bytes: &[u8]) {
    let exchange = RebalanceExchange::<T>::new();
    if let Ok(batch) = exchange.decode(bytes) {
        let again = exchange.encode(&batch, Vec::new()).expect("what was read can be written");
        exchange.decode(&again).expect("what was written can be read");
    }
}
