//! `millrace state cat`.

use std::collections::BTreeSet;

use millrace_core::{
    Error, Result,
    key::{KeyGroupRange, KeyHash},
};
use millrace_state::{
    inspect::{CheckpointContents, Group, OperatorSnapshots, StateContents, list_items},
    metadata::OperatorStateMeta,
};

use super::{Store, args::Cat, not_readable, out::Out, tell_problems};

/// Prints entries.
pub fn cat(command: &Cat, store: &Store) -> Result<u8> {
    let contents = store.checkpoint(&command.checkpoint)?;
    let mut printer = Printer::new(command, &contents)?;
    for operator in selected_operators(command, &contents)? {
        if !printer.operator(operator, &contents, store)? {
            break;
        }
    }
    printer.finish()
}

fn selected_operators<'a>(command: &Cat, contents: &'a CheckpointContents) -> Result<Vec<&'a OperatorStateMeta>> {
    let all = &contents.metadata().operators;
    let Some(wanted) = &command.operator else { return Ok(all.iter().collect()) };
    let selected: Vec<_> = all.iter().filter(|operator| operator.uid.0 == *wanted).collect();
    if selected.is_empty() {
        let uids: BTreeSet<_> = all.iter().map(|operator| operator.uid.to_string()).collect();
        return Err(no_such(&format!("operator {wanted:?}"), contents.uri(), &uids));
    }
    Ok(selected)
}

fn no_such(what: &str, uri: &str, there: &BTreeSet<String>) -> Error {
    let there: Vec<_> = there.iter().map(|name| format!("{name:?}")).collect();
    let there = if there.is_empty() { "nothing".to_string() } else { there.join(", ") };
    Error::invalid(format!("{uri} has no {what}: there is {there}"))
}

struct Printer<'a> {
    command: &'a Cat,
    uri: String,
    max_parallelism: u32,
    key: Option<serde_json::Value>,
    left: Option<u64>,
    out: Out,
    problems: Vec<String>,
    /// The states that there are, and whether one of them is wanted.
    names: BTreeSet<String>,
    found_state: bool,
    /// Why the key is none of a state, and whether it is one of another.
    wrong_key: Option<Error>,
    found_key: bool,
}

impl<'a> Printer<'a> {
    fn new(command: &'a Cat, contents: &CheckpointContents) -> Result<Self> {
        let max_parallelism = contents.metadata().max_parallelism;
        if let Some(group) = command.key_group.filter(|group| u32::from(*group) >= max_parallelism) {
            let last = max_parallelism - 1;
            return Err(Error::invalid(format!("--key-group {group}: the job's key groups are 0 to {last}")));
        }
        let key = command.key.as_deref().map(|text| {
            serde_json::from_str(text).map_err(|why| {
                Error::invalid(format!("--key {text} is not JSON ({why}): text needs quotes, '\"{text}\"'"))
            })
        });
        Ok(Self {
            command,
            uri: contents.uri().to_string(),
            max_parallelism,
            key: key.transpose()?,
            left: command.limit,
            out: Out::new(),
            problems: Vec::new(),
            names: BTreeSet::new(),
            found_state: false,
            wrong_key: None,
            found_key: false,
        })
    }

    /// Prints a line; returns whether to go on.
    fn line(&mut self, line: &str) -> Result<bool> {
        match &mut self.left {
            Some(0) => return Ok(false),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.out.line(line)? && self.left != Some(0))
    }

    fn is_wanted(&mut self, state: &str) -> bool {
        self.names.insert(state.to_string());
        let wanted = self.command.state.as_deref().is_none_or(|wanted| wanted == state);
        self.found_state |= wanted;
        wanted
    }

    fn operator(&mut self, operator: &OperatorStateMeta, contents: &CheckpointContents, store: &Store) -> Result<bool> {
        // What belongs to a subtask has no key.
        let keyed_only = self.key.is_some() || self.command.key_group.is_some();
        for item in list_items(operator) {
            if self.is_wanted(&item.list.name) && !keyed_only {
                let printed = item.line().and_then(|line| self.line(&line));
                if !self.go_on(printed)? {
                    return Ok(false);
                }
            }
        }
        let mut snapshots = Vec::new();
        for opened in contents.each_snapshot(operator, &store.runtime) {
            match opened {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => {
                    self.go_on(Err(error))?;
                }
            }
        }
        for state in OperatorSnapshots::from_iter(snapshots).states() {
            if !self.is_wanted(&state.meta.name) {
                continue;
            }
            if let Some(format) = state.in_files_of() {
                self.problems.push(not_readable(&operator.uid.0, &state.meta.name, format));
            } else if !self.state(&state)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn state(&mut self, state: &StateContents<'_>) -> Result<bool> {
        let key = match self.encoded_key(state) {
            Ok(key) => key,
            Err(error) => {
                self.wrong_key = Some(error);
                return Ok(true);
            }
        };
        self.found_key |= key.is_some();
        let of_key = key.as_ref().map(|key| KeyHash::of(key).key_group(self.max_parallelism));
        let wanted = match (self.command.key_group, of_key) {
            (Some(group), Some(of_key)) if group != of_key => return Ok(true),
            (Some(group), _) | (_, Some(group)) => KeyGroupRange { start: group, end: group },
            (None, None) => KeyGroupRange::all(self.max_parallelism),
        };
        for groups in state.groups_in_parts(wanted) {
            let printed = groups.and_then(|groups| self.groups(&groups, key.as_deref()));
            if !self.go_on(printed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn groups(&mut self, groups: &[Group<'_>], key: Option<&[u8]>) -> Result<bool> {
        for group in groups {
            let printed = self.group(group, key);
            if !self.go_on(printed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn group(&mut self, group: &Group<'_>, key: Option<&[u8]>) -> Result<bool> {
        let mut entries = group.read()?;
        while let Some(entry) = entries.next()? {
            if key.is_none_or(|key| key == entry.key) && !self.line(&group.line(&entry)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on behind what is damaged, and notes it.
    fn go_on(&mut self, printed: Result<bool>) -> Result<bool> {
        match printed {
            Err(error) if !error.retryable => {
                self.problems.push(error.message);
                Ok(true)
            }
            printed => printed,
        }
    }

    /// The key that is wanted as this state has it.
    fn encoded_key(&self, state: &StateContents<'_>) -> Result<Option<Vec<u8>>> {
        let Some(key) = &self.key else { return Ok(None) };
        let unknown = || Error::invalid(format!("the type of the keys of state {:?} is not known", state.meta.name));
        let schema = state.meta.key_schema.as_ref().ok_or_else(unknown)?;
        schema.encode_json(key).map(Some).map_err(|error| error.context("--key"))
    }

    /// Tells what is wrong with what was asked for.
    fn finish(self) -> Result<u8> {
        self.out.finish()?;
        // What is damaged may be what was asked for.
        if !self.problems.is_empty() {
            return Ok(tell_problems(&self.problems));
        }
        if let (Some(state), false) = (&self.command.state, self.found_state) {
            let of = self.command.operator.as_ref().map(|uid| format!(" of operator {uid:?}")).unwrap_or_default();
            return Err(no_such(&format!("state {state:?}{of}"), &self.uri, &self.names));
        }
        match self.wrong_key {
            Some(error) if !self.found_key => Err(error),
            _ => Ok(0),
        }
    }
}
