//! `millrace state diff`.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{Error, Result, key::KeyGroupRange};
use millrace_state::{
    inspect::{
        CheckpointContents, Difference, Group, ListItem, OperatorSnapshots, StateContents, diff_groups, diff_items,
        list_items,
    },
    metadata::OperatorStateMeta,
};

use super::{Store, args::Diff, not_readable, out::Out, tell_problems, text::time};

/// Compares two checkpoints.
pub fn diff(command: &Diff, store: &Store) -> Result<u8> {
    let (first, second) = (store.checkpoint(&command.first)?, store.checkpoint(&command.second)?);
    let [before, after] = [&first, &second].map(|contents| contents.metadata().max_parallelism);
    if before != after {
        return Err(Error::invalid(format!(
            "{} has a maximum parallelism of {before} and {} one of {after}: their keys are in other key groups, so that \
             they can't be compared",
            first.uri(),
            second.uri()
        )));
    }
    let mut report = Report {
        entries: command.entries,
        max_parallelism: before,
        out: Out::new(),
        read: true,
        problems: Vec::new(),
        states: 0,
        differ: 0,
    };
    for (mark, contents) in [('-', &first), ('+', &second)] {
        let metadata = contents.metadata();
        let at = time(metadata.created_at_ms);
        report.line(&format!("{mark} {} (checkpoint {}, {at})", contents.uri(), metadata.checkpoint))?;
    }
    let sides = (&first, &second);
    for uid in uids(sides) {
        report.operator(&uid, sides, store)?;
        if !report.read {
            break;
        }
    }
    report.finish()
}

type Sides<T> = (T, T);

fn uids(sides: Sides<&CheckpointContents>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = sides.0.metadata().operators.iter().chain(&sides.1.metadata().operators);
    all.map(|operator| operator.uid.to_string()).filter(|uid| seen.insert(uid.clone())).collect()
}

fn operator<'a>(contents: &'a CheckpointContents, uid: &str) -> Option<&'a OperatorStateMeta> {
    contents.metadata().operators.iter().find(|operator| operator.uid.0 == uid)
}

fn of_list<'a>(items: &[ListItem<'a>], name: &str) -> Vec<ListItem<'a>> {
    items.iter().copied().filter(|item| item.list.name == name).collect()
}

struct Report {
    entries: bool,
    max_parallelism: u32,
    out: Out,
    /// Whether anybody reads it.
    read: bool,
    problems: Vec<String>,
    states: u64,
    differ: u64,
}

impl Report {
    fn line(&mut self, line: &str) -> Result<bool> {
        self.read = self.read && self.out.line(line)?;
        Ok(self.read)
    }

    fn operator(&mut self, uid: &str, sides: Sides<&CheckpointContents>, store: &Store) -> Result<()> {
        let operators = (operator(sides.0, uid), operator(sides.1, uid));
        self.lists(uid, operators)?;
        let open = |contents: &CheckpointContents, operator: Option<&OperatorStateMeta>| {
            let opened = operator.map(|operator| contents.snapshots(operator, &store.runtime)).transpose();
            opened.map(|snapshots| snapshots.unwrap_or_else(|| OperatorSnapshots::from_iter([])))
        };
        let (before, after) = (open(sides.0, operators.0)?, open(sides.1, operators.1)?);
        let mut states: BTreeMap<&str, Sides<Option<StateContents<'_>>>> = BTreeMap::new();
        for state in before.states() {
            let meta = state.meta;
            states.entry(&meta.name).or_default().0 = Some(state);
        }
        for state in after.states() {
            let meta = state.meta;
            states.entry(&meta.name).or_default().1 = Some(state);
        }
        for (name, state) in states {
            if self.read {
                self.state(uid, name, (state.0.as_ref(), state.1.as_ref()))?;
            }
        }
        Ok(())
    }

    fn heading(&mut self, uid: &str, state: &str, shown: Sides<Option<String>>) -> Result<()> {
        self.states += 1;
        let title = format!("operator {uid}, state {state:?}");
        match shown {
            (Some(before), Some(after)) if before == after => self.line(&format!("{title}: {before}"))?,
            (before, after) => {
                let nothing = || "not there".to_string();
                self.line(&title)?;
                self.line(&format!("  - {}", before.unwrap_or_else(nothing)))?;
                self.line(&format!("  + {}", after.unwrap_or_else(nothing)))?
            }
        };
        Ok(())
    }

    fn result(&mut self, difference: Difference) -> Result<()> {
        self.differ += u64::from(!difference.is_none());
        let Difference { only_in_first, only_in_second, changed, unchanged } = difference;
        let text =
            format!("  {only_in_first} only in -, {only_in_second} only in +, {changed} changed, {unchanged} the same");
        self.line(&text).map(drop)
    }

    fn lists(&mut self, uid: &str, operators: Sides<Option<&OperatorStateMeta>>) -> Result<()> {
        let before = operators.0.map(list_items).unwrap_or_default();
        let after = operators.1.map(list_items).unwrap_or_default();
        let names: BTreeSet<&str> = before.iter().chain(&after).map(|item| item.list.name.as_str()).collect();
        for name in names {
            let (before, after) = (of_list(&before, name), of_list(&after, name));
            let shown = |operator: Option<&OperatorStateMeta>, items: &[ListItem<'_>]| {
                let of = items.first().map(|item| format!("operator state of {}", item.list.schema));
                operator.map(|_| of.unwrap_or_else(|| "no items".to_string()))
            };
            self.heading(uid, name, (shown(operators.0, &before), shown(operators.1, &after)))?;
            let mut differing = Vec::new();
            let difference = diff_items(before, after, &mut |mark, item| {
                differing.push(format!("  {mark} {}", item.line()?));
                Ok(())
            })?;
            if self.entries {
                differing.iter().try_for_each(|line| self.line(line).map(drop))?;
            }
            self.result(difference)?;
        }
        Ok(())
    }

    fn state<'a>(&mut self, uid: &str, name: &str, state: Sides<Option<&StateContents<'a>>>) -> Result<()> {
        let shown = |state: Option<&StateContents<'_>>| state.map(|state| state.meta.to_string());
        self.heading(uid, name, (shown(state.0), shown(state.1)))?;
        if let Some(format) = [state.0, state.1].into_iter().flatten().find_map(StateContents::in_files_of) {
            self.line("  not compared")?;
            self.problems.push(not_readable(uid, name, format));
            return Ok(());
        }
        let mut groups: BTreeMap<u16, Sides<Option<Group<'_>>>> = BTreeMap::new();
        let of = |state: Option<&StateContents<'a>>| match state {
            Some(state) => state.groups(KeyGroupRange::all(self.max_parallelism)),
            None => Ok(Vec::new()),
        };
        for group in of(state.0)? {
            groups.entry(group.key_group()).or_default().0 = Some(group);
        }
        for group in of(state.1)? {
            groups.entry(group.key_group()).or_default().1 = Some(group);
        }
        let mut difference = Difference::default();
        for (before, after) in groups.into_values() {
            difference += diff_groups(before.as_ref(), after.as_ref(), &mut |(old, new)| {
                for (mark, group, entry) in [('-', &before, old), ('+', &after, new)] {
                    if let (true, Some(group), Some(entry)) = (self.entries, group, entry) {
                        self.line(&format!("  {mark} {}", group.line(&entry)?))?;
                    }
                }
                Ok(self.read)
            })?;
            if !self.read {
                return Ok(());
            }
        }
        self.result(difference)
    }

    fn finish(mut self) -> Result<u8> {
        let text = match self.differ {
            0 => format!("no difference in {} states", self.states),
            differ => format!("{differ} of {} states differ", self.states),
        };
        self.line(&text)?;
        self.out.finish()?;
        Ok(tell_problems(&self.problems))
    }
}
