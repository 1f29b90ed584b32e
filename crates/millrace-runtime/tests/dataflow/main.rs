//! Whole jobs of tiny local operators, over one data plane and over several that are connected by real sockets.

mod cluster;
mod graphs;
mod numbers;
mod operators;

mod backpressure;
mod checkpoints;
mod failures;
mod flow;
mod hostile;
mod restore;
mod sources;
mod timers;
mod unaligned;
