//! Any bytes at either end of a connection between a jobmanager and a taskmanager: before the handshake, and behind one
//! that was accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::{Result, ids::Generation};
use millrace_worker::rpc::{Connection, FromTaskManager, Hello, ToTaskManager, Welcome};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::AsyncWriteExt, runtime::Builder};

fuzz_target!(|data: &[u8]| {
    let Some((&role, bytes)) = data.split_first() else { return };
    // One for each input: what a connection has spawned ends with it.
    let runtime = Builder::new_current_thread().build().expect("a runtime can be made");
    runtime.block_on(async {
        // A peer that sends all this and closes.
        let (near, mut far) = tokio::io::duplex(bytes.len().max(1));
        let _ = far.write_all(bytes).await;
        drop(far);
        let connection = Connection::new(near);
        match role % 4 {
            0 => drop(handshake::<Hello>(connection).await),
            1 => drop(handshake::<Welcome>(connection).await),
            2 => session::<ToTaskManager, FromTaskManager>(connection).await,
            _ => session::<FromTaskManager, ToTaskManager>(connection).await,
        }
    });
});

async fn handshake<T: DeserializeOwned>(mut connection: Connection) -> Result<T> {
    connection.receive().await
}

async fn session<Out: Serialize, In: DeserializeOwned>(connection: Connection) {
    let (_sender, mut receiver) = connection.split::<Out, In>(Generation(1));
    while let Ok(Some(_)) = receiver.next().await {}
}
