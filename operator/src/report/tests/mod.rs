mod conditions;
mod events;
mod status;

use millrace_api::{Phase, StreamJobStatus};

use super::*;
use crate::{decide::decide, fixture::*};

/// The status that is told of the facts as they are.
fn told(facts: &Facts) -> StreamJobStatus {
    status(facts, &decide(facts, now()), now())
}

/// The facts once their status is written, as the next reconcile finds them.
fn written(mut facts: Facts) -> Facts {
    facts.job.status = Some(told(&facts));
    facts
}

fn ready(status: &StreamJobStatus) -> (&str, &str, &str) {
    condition(status, "Ready")
}

fn condition<'a>(status: &'a StreamJobStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_).expect("the condition is there");
    (&found.status, &found.reason, &found.message)
}
