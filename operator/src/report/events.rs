//! Events, from the difference between two statuses: transitions only, never a state that lasts.

use millrace_api::{Phase, RecoveryStatus, StreamJobStatus};

use super::conditions::{CHECKPOINTING, READY, VALID};
use crate::observe::Facts;

/// The longest note of an event that the API takes is 1024 bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is one that somebody should look at.
    pub warning: bool,
    /// What happened, in a word.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
}

impl Event {
    fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: bounded(note.into()) }
    }

    fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, note) }
    }

    /// Something of the job stays in the store.
    pub fn cleanup_failed(left_behind: &str) -> Self {
        Self::warning("CleanupFailed", format!("left behind: {left_behind}"))
    }
}

fn bounded(mut note: String) -> String {
    const CUT: &str = " …";
    if note.len() > NOTE_BYTES_MAX {
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX - CUT.len()));
        note.push_str(CUT);
    }
    note
}

/// The events between two statuses, in the order in which things happened.
pub fn between(old: &StreamJobStatus, new: &StreamJobStatus, facts: &Facts) -> Vec<Event> {
    let mut events = Vec::new();
    spec(old, new, &mut events);
    deployment(old, new, &mut events);
    checkpoints(old, new, &mut events);
    recovery(old, new, facts, &mut events);
    phase(old, new, &mut events);
    events
}

fn condition<'a>(status: &'a StreamJobStatus, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, &found.reason, &found.message))
}

fn spec(old: &StreamJobStatus, new: &StreamJobStatus, events: &mut Vec<Event>) {
    let Some(("False", _, problem)) = condition(new, VALID) else { return };
    if condition(old, VALID).is_none_or(|(status, _, before)| status != "False" || before != problem) {
        events.push(Event::warning("SpecInvalid", problem));
    }
}

fn deployment(old: &StreamJobStatus, new: &StreamJobStatus, events: &mut Vec<Event>) {
    let reason = |status| condition(status, READY).map(|(_, reason, _)| reason.to_owned());
    if reason(new).as_deref() == Some("Upgrading") && reason(old).as_deref() != Some("Upgrading") {
        events.push(Event::normal("Upgrading", "the spec has changed: the job is stopped and started again"));
    }
    let Some(deployed) = &new.deployment else { return };
    if old.deployment.as_ref().is_some_and(|before| before.number == deployed.number) {
        return;
    }
    if old.deployment.as_ref().is_some_and(|before| before.spec.is_suspended()) {
        events.push(Event::normal("Resumed", "the job is started again"));
    }
    let spec = &deployed.spec;
    let note = format!(
        "deployment {}: image {}, parallelism {}, {} taskmanagers",
        deployed.number,
        spec.image,
        spec.effective_parallelism(),
        spec.task_manager.replicas
    );
    events.push(Event::normal("Deployed", note));
}

fn checkpoints(old: &StreamJobStatus, new: &StreamJobStatus, events: &mut Vec<Event>) {
    let failed = |status| condition(status, CHECKPOINTING).is_some_and(|(status, _, _)| status == "False");
    if failed(new) && !failed(old) {
        let (_, _, why) = condition(new, CHECKPOINTING).unwrap_or_default();
        events.push(Event::warning("CheckpointFailed", why));
    }
}

fn recovery(old: &StreamJobStatus, new: &StreamJobStatus, facts: &Facts, events: &mut Vec<Event>) {
    let was_running = old.phase == Some(Phase::Running);
    if was_running && new.phase == Some(Phase::Restarting) {
        events.push(Event::warning("Recovering", waits_for(new)));
    }
    // A job that is started again by the operator recovers too, and nothing had failed.
    if !was_running && old.phase != Some(Phase::Restarting) {
        return;
    }
    let Some(recovery) = &new.last_recovery else { return };
    // Its last phases come after the rest.
    let told = |old: &RecoveryStatus| old.started_at == recovery.started_at && old.cause == recovery.cause;
    if old.last_recovery.as_ref().is_some_and(told) {
        return;
    }
    let details = facts.engine_job().and_then(|job| job.last_recovery.as_ref());
    if let Some(lost) = details.and_then(|details| details.taskmanager.as_ref()) {
        events.push(Event::warning("TaskManagerLost", format!("taskmanager {lost} was lost: {}", recovery.cause)));
    }
    if was_running && new.phase == Some(Phase::Running) {
        // It was over before anybody looked.
        events.push(Event::warning("Recovering", recovery.cause.as_str()));
    }
    let took = recovery.duration_ms.map_or(String::new(), |took| format!(" in {}", seconds(took)));
    let from = match recovery.restored_checkpoint {
        Some(id) => format!("from checkpoint {id}"),
        None if recovery.phases.iter().any(|phase| phase.name == "adopt") => "with the tasks that ran on".to_owned(),
        None => "from the beginning: there was no checkpoint".to_owned(),
    };
    events.push(Event::normal("Recovered", format!("recovered{took} {from}")));
}

/// What the Ready condition says, or that tasks are started again.
fn waits_for(status: &StreamJobStatus) -> String {
    condition(status, READY).map_or(String::new(), |(_, _, message)| message.to_owned())
}

fn phase(old: &StreamJobStatus, new: &StreamJobStatus, events: &mut Vec<Event>) {
    let (Some(now), before) = (new.phase, old.phase) else { return };
    if before == Some(now) {
        return;
    }
    let message = waits_for(new);
    match now {
        Phase::Running if before != Some(Phase::Restarting) => events.push(Event::normal("Running", "all tasks run")),
        Phase::Suspended => events.push(Event::normal("Suspended", "the job is stopped; its checkpoints are kept")),
        Phase::Finished => events.push(Event::normal("Finished", message)),
        Phase::Failed => events.push(Event::warning("Failed", message)),
        _ => {}
    }
}

/// A duration in seconds with one decimal, as people read it.
fn seconds(milliseconds: i64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}
