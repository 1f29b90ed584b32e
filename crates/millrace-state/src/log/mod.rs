//! The log of a job: generations, completed checkpoints, attempts and the job's end, in the checkpoint store. It is the
//! truth: what is not in it has not happened, and its newest generation alone may write.
//!
//! [`protocol`] decides, without IO; [`JobLog`] carries it out over a [`CheckpointStorage`](crate::storage); the
//! entries' format is in [`entry`].

pub mod entry;
pub mod protocol;
mod read;
mod recovery;
mod shell;
mod view;

pub use entry::{
    AttemptRecord, CheckpointRecord, GenerationRecord, LogBody, LogEntry, TerminalRecord, TerminalResult, WriterId,
};
pub use protocol::{LogProtocol, ProtocolChecks};
pub use read::read_log;
pub use recovery::older_checkpoint;
pub use shell::{Appended, Claim, JobLog, LogError};
pub use view::LogView;
