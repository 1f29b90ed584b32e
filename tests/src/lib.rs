//! What the tests of the whole have in common.

pub mod attack;
pub mod process;
pub mod sim;
