//! The state backend over RocksDB: working state on the taskmanager's disk, bounded memory.
//!
//! Each subtask of an operator has a database of its own in the process's local directory; all of them share one
//! memory setting. In front of each are its hot entries, which take the writes until a cut hands them to the database as a
//! sorted file. What a task has not checkpointed is lost with it, so nothing is logged or synced for its own sake.

mod backend;
mod cut;
mod database;
mod encoding;
mod error;
mod hot;
mod local_dir;
mod memory;
mod reader;
mod run;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod trail;

pub use backend::{DEFAULT_MEMORY_SIZE, RocksDBStateBackend};
pub use encoding::check_entry;
pub use memory::LEAST_MEMORY_SIZE;
