//! What is different between the same key group of two checkpoints.

use std::cmp::Ordering;

use millrace_core::Result;

use super::{Group, GroupEntries};
use crate::snapshot::Entry;

/// How many entries differ, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Entries that only the first has.
    pub only_in_first: u64,
    /// Entries that only the second has.
    pub only_in_second: u64,
    /// Entries with another value or expiry.
    pub changed: u64,
    /// Entries that are the same.
    pub unchanged: u64,
}

impl Difference {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        (self.only_in_first, self.only_in_second, self.changed) == (0, 0, 0)
    }
}

impl std::ops::AddAssign for Difference {
    fn add_assign(&mut self, other: Self) {
        self.only_in_first += other.only_in_first;
        self.only_in_second += other.only_in_second;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
    }
}

/// An entry that is not the same: as it was, and as it is.
pub type EntryChange<'a> = (Option<Entry<'a>>, Option<Entry<'a>>);

/// Goes through the entries of a key group of two checkpoints side by side, and hands what differs to `visit`, which
/// returns whether to go on.
pub fn diff_groups(
    first: Option<&Group<'_>>,
    second: Option<&Group<'_>>,
    visit: &mut dyn FnMut(EntryChange<'_>) -> Result<bool>,
) -> Result<Difference> {
    let mut firsts = first.map(Group::read).transpose()?;
    let mut seconds = second.map(Group::read).transpose()?;
    let mut difference = Difference::default();
    let (mut a, mut b) = (next(&mut firsts)?, next(&mut seconds)?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(difference),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => address(a).cmp(&address(b)),
        };
        let go_on = match order {
            Ordering::Less => {
                difference.only_in_first += 1;
                visit((a, None))?
            }
            Ordering::Greater => {
                difference.only_in_second += 1;
                visit((None, b))?
            }
            Ordering::Equal if a == b => {
                difference.unchanged += 1;
                true
            }
            Ordering::Equal => {
                difference.changed += 1;
                visit((a, b))?
            }
        };
        if !go_on {
            return Ok(difference);
        }
        if order.is_le() {
            a = next(&mut firsts)?;
        }
        if order.is_ge() {
            b = next(&mut seconds)?;
        }
    }
}

fn next<'a>(entries: &'a mut Option<GroupEntries<'_>>) -> Result<Option<Entry<'a>>> {
    entries.as_mut().map_or(Ok(None), GroupEntries::next)
}

/// What an entry is ordered by: key, namespace, timer domain and sub key.
type Address<'a> = (&'a [u8], Option<&'a [u8]>, Option<u8>, Option<&'a [u8]>);

fn address<'a>(entry: &Entry<'a>) -> Address<'a> {
    (entry.key, entry.namespace, entry.timer_domain, entry.sub_key)
}
