//! What Millrace's tests share: real services to test against, and jobs as processes.

pub mod cluster;
pub mod conformance;
pub mod faults;
pub mod faulty_store;
pub mod figures;
pub mod plot;
pub mod services;
