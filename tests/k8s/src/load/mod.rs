//! Records for jobs, and whether each was counted once.

mod feed;
mod outputs;
mod place;
mod seen;

pub use feed::Feed;
pub use outputs::Outputs;
pub use place::Place;
pub use seen::{Seen, Verdict};

/// How often each record was written, or counted.
pub type Counts = std::collections::BTreeMap<String, u64>;
