//! Decides whether a job's outputs are those of a run without a fault.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Guarantee;

/// Values by key, each key's in order.
pub type Outputs = BTreeMap<String, Vec<String>>;

/// What is wrong with outputs: nothing, if all numbers are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Outputs that are missing.
    pub lost: u64,
    /// Outputs that are there and should not be: effects of a record that counted twice, or of an attempt that was
    /// aborted.
    pub duplicated: u64,
    /// Outputs that come before one that should be before them.
    pub out_of_order: u64,
    /// What a job has left where it wrote, and nobody will ever see.
    pub left_over: u64,
    /// The first of these for some keys, for people.
    pub examples: Vec<String>,
}

/// How many examples are kept.
const EXAMPLES: usize = 5;

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_right(&self) -> bool {
        (self.lost, self.duplicated, self.out_of_order, self.left_over) == (0, 0, 0, 0)
    }

    /// Adds what a job has left.
    pub fn left_over(&mut self, names: Vec<String>) {
        self.left_over += names.len() as u64;
        self.examples.extend(names.into_iter().map(|name| format!("left over: {name}")));
        self.examples.truncate(EXAMPLES);
    }

    /// Adds what is wrong with other outputs.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.left_over += other.left_over;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}

/// Compares what came out with what should have. An error says why it can't be decided.
///
/// Where a sink writes exactly once, both must be the same. Where it writes at least once, what it wrote after the last
/// checkpoint may come again: then the outputs of a key must differ from each other, or a repetition could not be told
/// from a duplicate.
pub fn compare(expected: &Outputs, seen: &Outputs, guarantee: Guarantee) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let nothing = Vec::new();
    for key in expected.keys().chain(seen.keys()).collect::<BTreeSet<_>>() {
        let expected = expected.get(key).unwrap_or(&nothing);
        let seen = seen.get(key).unwrap_or(&nothing);
        verdict.add(match guarantee {
            Guarantee::ExactlyOnce => exactly_once(key, expected, seen),
            Guarantee::AtLeastOnce => at_least_once(key, expected, seen)?,
        });
    }
    Ok(verdict)
}

fn exactly_once(key: &str, expected: &[String], seen: &[String]) -> Verdict {
    let Some(first) = first_difference(expected, seen) else { return Verdict::default() };
    let (mut lost, mut duplicated) = (0, 0);
    let mut balance = HashMap::<&str, i64>::new();
    expected.iter().for_each(|value| *balance.entry(value).or_default() += 1);
    seen.iter().for_each(|value| *balance.entry(value).or_default() -= 1);
    for count in balance.into_values() {
        lost += count.max(0).unsigned_abs();
        duplicated += count.min(0).unsigned_abs();
    }
    let same = (lost, duplicated) == (0, 0);
    let out_of_order = if same { expected.iter().zip(seen).filter(|(a, b)| a != b).count() as u64 } else { 0 };
    Verdict { lost, duplicated, out_of_order, left_over: 0, examples: vec![first.describe(key)] }
}

fn at_least_once(key: &str, expected: &[String], seen: &[String]) -> Result<Verdict, String> {
    let places: HashMap<&str, usize> =
        expected.iter().enumerate().map(|(place, value)| (value.as_str(), place)).collect();
    if places.len() < expected.len() {
        return Err(format!(
            "outputs of key {key:?} repeat each other: behind a sink that writes at least once that can't be told from \
             duplicates; let them carry a number, or write exactly once"
        ));
    }
    let (mut came, mut highest) = (HashSet::new(), None);
    let mut verdict = Verdict::default();
    let mut first_times = Vec::new();
    for value in seen {
        if !came.insert(value.as_str()) {
            continue;
        }
        first_times.push(value.clone());
        match places.get(value.as_str()) {
            None => verdict.duplicated += 1,
            Some(place) if highest.is_some_and(|highest| *place < highest) => verdict.out_of_order += 1,
            Some(place) => highest = Some(*place),
        }
    }
    verdict.lost = expected.iter().filter(|value| !came.contains(value.as_str())).count() as u64;
    if !verdict.is_right() {
        verdict.examples.extend(first_difference(expected, &first_times).map(|first| first.describe(key)));
    }
    Ok(verdict)
}

/// The first place at which two sequences differ.
struct Difference<'a> {
    place: usize,
    expected: Option<&'a String>,
    seen: Option<&'a String>,
}

fn first_difference<'a>(expected: &'a [String], seen: &'a [String]) -> Option<Difference<'a>> {
    let places = 0..expected.len().max(seen.len());
    let at = |place| Difference { place, expected: expected.get(place), seen: seen.get(place) };
    places.map(at).find(|difference| difference.expected != difference.seen)
}

impl Difference<'_> {
    fn describe(&self, key: &str) -> String {
        format!("key {key:?}, output {}: {:?} instead of {:?}", self.place, self.seen, self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(text: &str) -> Outputs {
        let mut outputs = Outputs::new();
        for word in text.split_whitespace() {
            let (key, value) = word.split_at(1);
            outputs.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        outputs
    }

    /// Lost, duplicated, out of order.
    fn verdict(expected: &str, seen: &str, guarantee: Guarantee) -> (u64, u64, u64) {
        let verdict = compare(&outputs(expected), &outputs(seen), guarantee).unwrap();
        assert_eq!(verdict.examples.is_empty(), verdict.is_right(), "{verdict:?}");
        (verdict.lost, verdict.duplicated, verdict.out_of_order)
    }

    #[test]
    fn exactly_once_bears_no_difference() {
        let cases = [
            ("a1 b1 a2", "b1 a1 a2", (0, 0, 0)),
            ("a1 a2 a3", "a1 a3", (1, 0, 0)),
            ("a1 a2", "a1 a2 a2", (0, 1, 0)),
            ("a1 a2 a3", "a1 a3 a2", (0, 0, 2)),
            ("a1 b1", "a1", (1, 0, 0)),
            ("a1", "a1 b1", (0, 1, 0)),
            ("a1 a1", "a1 a1", (0, 0, 0)),
        ];
        for (expected, seen, meant) in cases {
            assert_eq!(verdict(expected, seen, Guarantee::ExactlyOnce), meant, "{expected:?} {seen:?}");
        }
    }

    #[test]
    fn at_least_once_bears_repetitions_and_nothing_else() {
        let cases = [
            ("a1 a2 a3", "a1 a2 a1 a2 a3 a3", (0, 0, 0)),
            // a zombie's last words
            ("a1 a2 a3 a4", "a1 a2 a3 a1 a2 a4 a3", (0, 0, 0)),
            ("a1 a2 a3", "a1 a3", (1, 0, 0)),
            ("a1 a2 a3", "a1 a3 a2", (0, 0, 1)),
            // counted twice: what follows has another number
            ("a1 a2", "a1 a2 a3", (0, 1, 0)),
            ("a1 a2", "", (2, 0, 0)),
            ("", "b1 b1", (0, 1, 0)),
        ];
        for (expected, seen, meant) in cases {
            assert_eq!(verdict(expected, seen, Guarantee::AtLeastOnce), meant, "{expected:?} {seen:?}");
        }
    }

    #[test]
    fn what_cannot_be_decided_is_refused() {
        let why = compare(&outputs("a1 a1"), &outputs("a1"), Guarantee::AtLeastOnce).unwrap_err();
        assert!(why.contains("\"a\"") && why.contains("repeat"), "{why}");
    }
}
