//! The control plane: what a jobmanager and a taskmanager say to each other, as length-delimited frames of postcard.
//!
//! Both ends are the same build (the handshake proves it), so that messages need no schema evolution; gRPC was weighed
//! and left out for that reason (`docs/adr/0002-framed-control-plane.md`).

mod connection;
mod messages;
mod silence;

pub use connection::{Connection, Receiver, Sender, WeakSender};
pub use messages::{
    Fingerprint, FromTaskManager, Hello, JobSettings, ProcessFigures, TaskManagerMetrics, TaskReport, ToTaskManager,
    Welcome, new_taskmanager_id,
};
pub use silence::Silence;
