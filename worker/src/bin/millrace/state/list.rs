//! `millrace state list`.

use millrace_core::{Result, ids::CheckpointId};
use millrace_state::{
    inspect::{CheckpointListing, JobListing, Standing, list_job},
    log::{LogBody, LogView, TerminalResult},
    metadata::CheckpointMetadata,
    storage::{Browsed, CheckpointStorage},
};

use super::{
    Store,
    args::List,
    text::{count, time},
    uri,
};
use crate::{
    jobs::{columns, print},
    progress::show_size,
};

/// Lists jobs and their checkpoints.
pub fn list(command: &List, store: &Store) -> Result<u8> {
    let uri = uri(&command.uri)?;
    let (storage, found) = store.runtime.block_on(CheckpointStorage::browse(&uri, &store.options))?;
    let (jobs, only) = match found {
        Browsed::Root(jobs) => (jobs, None),
        Browsed::Job(job) => (vec![job], None),
        Browsed::Checkpoint(job, checkpoint) => (vec![job], Some(checkpoint)),
        Browsed::MovedCheckpoint(metadata) => {
            let table = columns(&[head(), moved(&metadata, &uri)]);
            return print(&format!("job {}, as its checkpoint says: there is no log beside it\n{table}", metadata.job));
        }
    };
    let mut listed = Vec::new();
    for job in jobs {
        let listing = store.runtime.block_on(list_job(&storage, job))?;
        let (root, log, table) = (storage.uri(), log_line(&listing), table(&listing, only));
        listed.push(format!("job {job} in {root}\nlog: {log}\n{table}"));
    }
    print(&listed.join("\n"))
}

fn head() -> [String; 6] {
    ["CHECKPOINT", "COMPLETED", "GENERATION", "SIZE", "STANDING", "PATH"].map(str::to_string)
}

fn table(listing: &JobListing, only: Option<CheckpointId>) -> String {
    let shown = listing.checkpoints.iter().filter(|checkpoint| only.is_none_or(|only| only == checkpoint.id));
    let mut rows = vec![head()];
    rows.extend(shown.map(row));
    match (rows.len(), only) {
        (1, None) => "no checkpoints\n".to_string(),
        (1, Some(only)) => format!("no checkpoint {only}\n"),
        _ => columns(&rows),
    }
}

fn row(checkpoint: &CheckpointListing) -> [String; 6] {
    let nothing = || "-".to_string();
    [
        checkpoint.id.to_string(),
        checkpoint.completed_at_ms.map_or_else(nothing, time),
        checkpoint.generation.map_or_else(nothing, |generation| generation.to_string()),
        checkpoint.metadata.as_ref().map_or_else(nothing, |metadata| show_size(metadata.state_size())),
        match &checkpoint.standing {
            Standing::Complete => "complete".to_string(),
            Standing::Incomplete => "incomplete: no _metadata".to_string(),
            Standing::NotInLog => "not in the log".to_string(),
            Standing::Unknown => "unknown: the log can't be read".to_string(),
            Standing::Damaged(error) => format!("damaged: {error}"),
        },
        checkpoint.uri.clone(),
    ]
}

fn moved(metadata: &CheckpointMetadata, uri: &str) -> [String; 6] {
    [
        metadata.checkpoint.to_string(),
        "-".to_string(),
        metadata.generation.to_string(),
        show_size(metadata.state_size()),
        "outside a job's directory".to_string(),
        uri.to_string(),
    ]
}

/// A log in short.
fn log_line(listing: &JobListing) -> String {
    let view = match &listing.log {
        Ok(view) => view,
        Err(error) => return error.to_string(),
    };
    let Some(newest) = view.newest() else { return "none".to_string() };
    let generation = match view.entry(newest.generation_at).map(|entry| (&entry.body, entry.written_at_ms)) {
        Some((LogBody::Generation(begun), at)) => {
            format!("{} (since {}, {})", newest.generation, time(at), begun.owner)
        }
        _ => newest.generation.to_string(),
    };
    let checkpoints = count(view.checkpoints().count() as u64, "checkpoint", "checkpoints");
    let (floor, last) = (view.floor(), view.last());
    format!("entries {floor} to {last}, {checkpoints}, newest generation {generation}, {}", end(view))
}

fn end(view: &LogView) -> String {
    let Some((terminal, entry)) = view.terminal().zip(view.newest()) else {
        return "the job has not ended".to_string();
    };
    let result = match &terminal.result {
        TerminalResult::Finished => "finished".to_string(),
        TerminalResult::Canceled => "was cancelled".to_string(),
        TerminalResult::Failed { error } => format!("failed ({error})"),
    };
    let kept = if terminal.checkpoints_retained { "kept" } else { "not kept" };
    format!("the job {result} {}, checkpoints {kept}", time(entry.written_at_ms))
}
