//! Faults against a running job, each shown to have happened, with a check of all counts at the end.

mod campaign;
mod fault;
mod replaced;
mod strike;
mod table;

pub use campaign::Campaign;
pub use fault::{Fault, Grace, schedule};
pub use replaced::PodTimes;
pub use table::{Recovery, Report};
