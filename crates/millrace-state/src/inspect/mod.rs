//! What lies in a checkpoint directory, for people and without the job's program: what to call things and how to read
//! them stands in the files.
//!
//! A state is read a key group at a time. Everything that is read is untrusted, and errors name the file.

mod contents;
mod diff;
mod line;
mod listing;
mod lists;
#[cfg(test)]
mod tests;
mod translated;

pub use contents::{CheckpointContents, Group, GroupEntries, OperatorSnapshots, StateContents, SubtaskSnapshot};
pub use diff::{Difference, EntryChange, diff_groups};
pub use listing::{CheckpointListing, JobListing, Standing, list_job};
pub use lists::{ListItem, diff_items, list_items};
