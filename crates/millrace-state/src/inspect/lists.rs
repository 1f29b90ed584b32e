//! The operator lists in a checkpoint.

use std::{borrow::Cow, cmp::Ordering, fmt::Display};

use millrace_core::{
    Error, Result, codec,
    operator_state::{OperatorListSnapshot, Redistribution},
    schema::WrittenValue,
};
use serde::Serialize;

use super::Difference;
use crate::{SOURCE_SPLITS, log::entry::damaged, metadata::OperatorStateMeta};

/// An item of an operator list.
#[derive(Clone, Copy, Debug)]
pub struct ListItem<'a> {
    operator: &'a OperatorStateMeta,
    /// The list.
    pub list: &'a OperatorListSnapshot,
    /// The subtask whose list it is.
    pub subtask: u32,
    /// The encoded item.
    pub item: &'a [u8],
}

#[derive(Serialize)]
struct ItemLine<'a> {
    operator: &'a str,
    state: &'a str,
    subtask: u32,
    /// The id of a source's split.
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<String>,
    value: WrittenValue<'a>,
}

impl ListItem<'_> {
    /// The item as a line of JSON.
    pub fn line(&self) -> Result<String> {
        let (operator, state) = (&self.operator.uid.0, &self.list.name);
        let (split, value) = self.split_and_value()?;
        let value = self.list.schema.written(&value);
        self.shown(&ItemLine { operator, state, subtask: self.subtask, split, value })
    }

    /// The item alone as JSON.
    pub fn json(&self) -> Result<String> {
        let (_, value) = self.split_and_value()?;
        self.shown(&self.list.schema.written(&value))
    }

    /// A source's split stands in its item behind its id, and the schema is its own.
    fn split_and_value(&self) -> Result<(Option<String>, Cow<'_, [u8]>)> {
        if self.list.name != SOURCE_SPLITS {
            return Ok((None, Cow::Borrowed(self.item)));
        }
        let (id, split) = codec::decode::<(String, Vec<u8>)>(self.item).map_err(|why| self.refuse(&why))?;
        Ok((Some(id), Cow::Owned(split)))
    }

    fn shown(&self, shown: &impl Serialize) -> Result<String> {
        serde_json::to_string(shown).map_err(|why| self.refuse(&why))
    }

    fn refuse(&self, why: &dyn Display) -> Error {
        let (operator, state) = (&self.operator.uid, &self.list.name);
        damaged(format!("operator state {state:?} of operator {operator}, subtask {}: {why}", self.subtask))
    }
}

/// The items of all operator lists of an operator, ordered by the lists' names. Of a broadcast state, which is the same
/// in every subtask, those of the first.
pub fn list_items(operator: &OperatorStateMeta) -> Vec<ListItem<'_>> {
    let mut items = Vec::new();
    for (subtask, state) in (0u32..).zip(&operator.subtasks) {
        let shown = |list: &&OperatorListSnapshot| subtask == 0 || list.redistribution != Redistribution::Broadcast;
        for list in state.lists.iter().filter(shown) {
            items.extend(list.items.iter().map(|item| ListItem { operator, list, subtask, item }));
        }
    }
    items.sort_by(|a, b| a.list.name.cmp(&b.list.name));
    items
}

/// Compares the items of an operator list in two checkpoints, whichever subtask has them, and hands those that only one
/// has to `visit`, marked `-` for the first and `+` for the second.
pub fn diff_items(
    mut first: Vec<ListItem<'_>>,
    mut second: Vec<ListItem<'_>>,
    visit: &mut dyn FnMut(char, ListItem<'_>) -> Result<()>,
) -> Result<Difference> {
    let by_bytes = |a: &ListItem<'_>, b: &ListItem<'_>| a.item.cmp(b.item);
    first.sort_by(by_bytes);
    second.sort_by(by_bytes);
    let mut difference = Difference::default();
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    loop {
        let order = match (first.peek(), second.peek()) {
            (None, None) => return Ok(difference),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => by_bytes(a, b),
        };
        let old = if order.is_le() { first.next() } else { None };
        let new = if order.is_ge() { second.next() } else { None };
        match (old, new) {
            (Some(_), Some(_)) => difference.unchanged += 1,
            (Some(old), None) => {
                difference.only_in_first += 1;
                visit('-', old)?;
            }
            (None, Some(new)) => {
                difference.only_in_second += 1;
                visit('+', new)?;
            }
            (None, None) => {}
        }
    }
}
