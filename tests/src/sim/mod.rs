//! A seeded simulation of a whole job: the real barrier alignment, checkpoint coordinator and log protocol, between
//! model tasks, model shells and a model store in which everything goes wrong that may go wrong.
//!
//! A seed is a schedule: a job of one to three regions, each of two or three sources and one or two counting tasks, with its
//! settings and its faults ([`plan`]). Tasks and jobmanagers die at any step, tasks are cut off and go on, jobmanagers
//! stand still and go on after they were replaced, requests to the store arrive late and answers never, messages are
//! lost, doubled and overtaken. After a while it calms down, and the job has to come to its end.
//!
//! What must hold ([`oracle`]):
//! - restored state is consistent: what was counted is what the positions say (at least once: never less);
//! - what was announced as complete is in everything that is restored later, and what is announced is one line of
//!   history; nothing that a sink made visible is produced again;
//! - no two checkpoints are announced under one id;
//! - a checkpoint that the log points to has its files, and entries that count are never deleted;
//! - a jobmanager that has listed a newer generation announces and deletes nothing;
//! - tasks that a new jobmanager adopts continue what was announced, all of them the same, and none has a successor;
//! - start positions are found once: after the first record was read, the job never starts from nothing;
//! - the job ends, and has counted every record.

mod adoption;
mod counters;
mod effects;
mod faults;
mod job_log;
mod jobmanager;
mod messages;
mod oracle;
mod plan;
mod regions;
mod requests;
mod store;
mod task;
mod world;

pub use counters::{Counters, REQUIRED, REQUIRED_OF_REGIONS, Seen};
pub use world::{Mutation, Verdict, run};

/// The steps of a seed's schedule and how to replay it.
pub fn report(seed: u64, mutation: Mutation) -> String {
    let verdict = run(seed, mutation, true);
    format!(
        "seed {seed} breaks a promise: {}\n\n{}\n\nreplay it with: SIM_SEED={seed} cargo test -p millrace-tests --test sim -- \
         --nocapture no_schedule",
        verdict.violation.as_deref().unwrap_or("not this time"),
        verdict.trace.join("\n"),
    )
}
