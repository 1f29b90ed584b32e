//! `millrace state show`.

use millrace_core::{Error, Result, key::KeyGroupRange};
use millrace_state::{
    KeyedStateHandle, OwnState, StateFile, StateHandle,
    in_flight::EdgeInFlight,
    inspect::{CheckpointContents, OperatorSnapshots, StateContents, list_items},
    metadata::{CheckpointMetadata, OperatorStateMeta},
};

use super::{
    Store,
    args::Show,
    in_files_of,
    out::Out,
    tell_problems,
    text::{count, time},
};
use crate::{jobs::columns, progress::show_size};

/// So many items of an operator list are shown.
const ITEMS: usize = 20;

/// Shows what is in a checkpoint.
pub fn show(command: &Show, store: &Store) -> Result<u8> {
    let contents = store.checkpoint(&command.checkpoint)?;
    let mut out = Out::new();
    let mut problems = Vec::new();
    let mut reads = true;
    for line in heading(contents.metadata(), contents.uri()) {
        reads = reads && out.line(&line)?;
    }
    for operator in &contents.metadata().operators {
        if !reads {
            break;
        }
        for line in operator_lines(&contents, operator, command.key_groups, store, &mut problems)? {
            reads = reads && out.line(&line)?;
        }
    }
    out.finish()?;
    Ok(tell_problems(&problems))
}

fn heading(metadata: &CheckpointMetadata, uri: &str) -> Vec<String> {
    let CheckpointMetadata { job, checkpoint, generation, attempt, mode, max_parallelism, .. } = metadata;
    let last = if metadata.is_final { ", its final one" } else { "" };
    vec![
        format!("checkpoint {checkpoint} of job {job}{last}"),
        format!("  {uri}"),
        format!("  triggered {}, generation {generation}, attempt {attempt}", time(metadata.created_at_ms)),
        format!("  {mode}, maximum parallelism {max_parallelism}, state {}", show_size(metadata.state_size())),
    ]
}

fn operator_lines(
    contents: &CheckpointContents,
    operator: &OperatorStateMeta,
    key_groups: bool,
    store: &Store,
    problems: &mut Vec<String>,
) -> Result<Vec<String>> {
    let OperatorStateMeta { uid, name, parallelism, .. } = operator;
    let mut lines = vec![String::new(), format!("operator {uid} ({name}), parallelism {parallelism}")];
    lines.extend(list_lines(operator, problems));
    let (mut snapshots, mut is_whole) = (Vec::new(), true);
    for opened in contents.each_snapshot(operator, &store.runtime) {
        let snapshot = unless_damaged(opened, problems)?;
        is_whole &= snapshot.is_some();
        snapshots.extend(snapshot);
    }
    for state in OperatorSnapshots::from_iter(snapshots).states() {
        lines.extend(state_lines(&state, key_groups, contents.metadata().max_parallelism, is_whole, problems)?);
    }
    lines.extend(in_flight_lines(contents, operator, store, problems)?);
    lines.extend(file_lines(contents, operator, store, problems)?);
    Ok(lines)
}

fn list_lines(operator: &OperatorStateMeta, problems: &mut Vec<String>) -> Vec<String> {
    let items = list_items(operator);
    let mut lines = Vec::new();
    for of_list in items.chunk_by(|a, b| a.list.name == b.list.name) {
        let list = of_list[0].list;
        let dealt_out = format!("{:?}", list.redistribution).to_lowercase();
        let items = count(of_list.len() as u64, "item", "items");
        lines.push(format!("  {}: {dealt_out} operator state of {}, {items}", list.name, list.schema));
        for item in of_list.iter().take(ITEMS) {
            match item.json() {
                Ok(json) => lines.push(format!("    subtask {}: {json}", item.subtask)),
                Err(error) => note(problems, error),
            }
        }
        if of_list.len() > ITEMS {
            let more = of_list.len() - ITEMS;
            lines.push(format!(
                "    and {more} more: millrace state cat --operator {} --state {}",
                operator.uid, list.name
            ));
        }
    }
    lines
}

fn state_lines(
    state: &StateContents<'_>,
    key_groups: bool,
    max_parallelism: u32,
    mut is_whole: bool,
    problems: &mut Vec<String>,
) -> Result<Vec<String>> {
    let meta = state.meta;
    let key = meta.key_schema.as_ref().map_or("a key of unknown type".to_string(), ToString::to_string);
    let mut lines = vec![format!("  {}: {meta}, keyed by {key}", meta.name)];
    if let Some(format) = state.in_files_of() {
        lines.push(format!("    {}", in_files_of(format)));
        return Ok(lines);
    }
    let mut groups = Vec::new();
    for part in state.groups_in_parts(KeyGroupRange::all(max_parallelism)) {
        let part = unless_damaged(part, problems)?;
        is_whole &= part.is_some();
        groups.extend(part.into_iter().flatten());
    }
    let entries = count(groups.iter().map(|group| group.entries()).sum(), "entry", "entries");
    let bytes = show_size(groups.iter().map(|group| group.bytes()).sum());
    let without = if is_whole { "" } else { ", without those in damaged files" };
    lines.push(format!("    {entries}, {bytes} in {} of {max_parallelism} key groups{without}", groups.len()));
    if key_groups && !groups.is_empty() {
        let mut rows = vec![["KEY GROUP", "ENTRIES", "BYTES"].map(str::to_string)];
        rows.extend(groups.iter().map(|g| [g.key_group().to_string(), g.entries().to_string(), g.bytes().to_string()]));
        lines.extend(columns(&rows).lines().map(|line| format!("    {line}")));
    }
    Ok(lines)
}

/// What was in flight to an operator, from each that sends to it.
fn in_flight_lines(
    contents: &CheckpointContents,
    operator: &OperatorStateMeta,
    store: &Store,
    problems: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut edges: Vec<EdgeInFlight> = Vec::new();
    for data in operator.subtasks.iter().filter_map(|subtask| subtask.in_flight.as_ref()) {
        let found = unless_damaged(store.runtime.block_on(contents.in_flight(data)), problems)?;
        for of_edge in found.into_iter().flatten() {
            match edges.iter_mut().find(|known| known.edge == of_edge.edge) {
                Some(known) => known.batches.extend(of_edge.batches),
                None => edges.push(of_edge),
            }
        }
    }
    let line = |EdgeInFlight { edge, batches }: &EdgeInFlight| {
        let records = edge.schema.as_ref().map_or_else(|| edge.type_name.clone(), ToString::to_string);
        let by_key = if edge.keyed { " by key" } else { "" };
        let size = show_size(batches.iter().map(|batch| batch.len() as u64).sum());
        let batches = count(batches.len() as u64, "batch", "batches");
        format!("  in flight from operator {}{by_key}: {batches} of {records}, {size}", edge.from)
    };
    Ok(edges.iter().map(line).collect())
}

fn file_lines(
    contents: &CheckpointContents,
    operator: &OperatorStateMeta,
    store: &Store,
    problems: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for (file, of) in files(operator) {
        let whole = unless_damaged(store.runtime.block_on(contents.verify(&file)), problems)?;
        let verified = if whole.is_some() { "verified" } else { "DAMAGED" };
        let (name, crc) = match &file {
            StateHandle::File { directory, name, crc32, .. } => {
                (shown_name(contents.uri(), directory, name), format!("crc32 {crc32:08x}"))
            }
            _ => ("inside _metadata".to_string(), "-".to_string()),
        };
        rows.push([name, show_size(file.size()), crc, verified.to_string(), of]);
    }
    Ok(columns(&rows).lines().map(|line| format!("  file {line}")).collect())
}

/// A file's name, with its directory where that is not the checkpoint's.
fn shown_name(uri: &str, directory: &str, name: &str) -> String {
    if directory == uri { name.to_string() } else { format!("{directory}/{name}") }
}

/// The pieces that an operator's part is in, and what each holds.
fn files(operator: &OperatorStateMeta) -> Vec<(StateHandle, String)> {
    let mut files = Vec::new();
    for keyed in operator.subtasks.iter().filter_map(|subtask| subtask.keyed.as_ref()) {
        let of = |shared| format!("key groups {} to {}{shared}", keyed.range.start, keyed.range.end);
        files.extend(handles(keyed).into_iter().map(|(file, shared)| (file, of(shared))));
    }
    for (subtask, state) in operator.subtasks.iter().enumerate() {
        files.extend(state.in_flight.iter().map(|data| (data.clone(), format!("in flight to subtask {subtask}"))));
    }
    files
}

/// The pieces that a subtask's state is in, and whether other checkpoints may share them.
fn handles(keyed: &KeyedStateHandle) -> Vec<(StateHandle, &'static str)> {
    match &keyed.data {
        StateHandle::Shared(shared) => {
            let own: &OwnState = &shared.snapshot;
            let files = shared.files.iter().map(|shared| &shared.file).map(StateFile::handle);
            std::iter::once((own.handle(), "")).chain(files.map(|file| (file, ", shared"))).collect()
        }
        other => vec![(other.clone(), "")],
    }
}

/// What was found; `None`, and noted, where it is damaged. What another try may cure is an error.
fn unless_damaged<T>(found: Result<T>, problems: &mut Vec<String>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.retryable => Err(error),
        Err(error) => {
            note(problems, error);
            Ok(None)
        }
    }
}

/// Notes what is wrong, once.
fn note(problems: &mut Vec<String>, error: Error) {
    if !problems.contains(&error.message) {
        problems.push(error.message);
    }
}
