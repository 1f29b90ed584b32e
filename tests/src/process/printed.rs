//! What `checkpoint_example` prints: `<timestamp>: (<record>,<count>)`, behind `<subtask>> ` where several subtasks
//! print.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use millrace_testkit::cluster::JobCluster;

/// A printed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When the record was counted, as it was printed.
    pub timestamp: String,
    /// The record.
    pub record: String,
    /// Its number.
    pub count: u64,
}

impl Line {
    /// # Panics
    /// When the text is no such line.
    fn parse(text: &str) -> Self {
        let line = text.split_once("> ").map_or(text, |(_, line)| line);
        let parts = line.split_once(": (").and_then(|(timestamp, rest)| {
            let (record, count) = rest.strip_suffix(')')?.rsplit_once(',')?;
            Some((timestamp, record, count.parse().ok()?))
        });
        let (timestamp, record, count) = parts.unwrap_or_else(|| panic!("not a line of checkpoint_example: {text:?}"));
        Self { timestamp: timestamp.to_owned(), record: record.to_owned(), count }
    }
}

/// The complete lines of a text: a killed process may leave half a line at the end.
pub fn lines(text: &str) -> Vec<Line> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(Line::parse).collect()
}

/// Follows what all taskmanagers of a cluster print, those of the past too.
#[derive(Debug, Default)]
pub struct Outputs {
    files: Vec<Followed>,
    /// The highest number that each record was printed with.
    pub highest: BTreeMap<String, u64>,
    /// How many lines there were.
    pub lines: u64,
}

impl Outputs {
    /// Takes in what was printed since the last call.
    ///
    /// # Panics
    /// When a taskmanager prints anything else, or a file can't be read.
    pub fn read(&mut self, cluster: &JobCluster) {
        for index in self.files.len()..cluster.taskmanagers_started() {
            self.files.push(Followed { path: cluster.stdout_file(index), offset: 0 });
        }
        for file in &mut self.files {
            for line in file.read_on() {
                self.lines += 1;
                let highest = self.highest.entry(line.record).or_default();
                *highest = line.count.max(*highest);
            }
        }
    }

    /// How many records were counted, if each is counted once.
    pub fn total(&self) -> u64 {
        self.highest.values().sum()
    }
}

/// A file that grows.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    offset: u64,
}

impl Followed {
    fn read_on(&mut self) -> Vec<Line> {
        let mut bytes = Vec::new();
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)
        };
        read().unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.offset += complete as u64;
        lines(std::str::from_utf8(&bytes[..complete]).expect("output is text"))
    }
}

/// What differs between two counts, for a message: keys whose numbers differ, with both.
pub fn differences(expected: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differ = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
    differ.map(|key| format!("{key}: {:?} instead of {:?}", found.get(key), expected.get(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_subtask_and_half_lines_are_left() {
        let found = lines("7: (a,1)\n2> 8: (b,c,2)\n9: (d");
        let read: Vec<_> = found.iter().map(|l| (l.timestamp.as_str(), l.record.as_str(), l.count)).collect();
        assert_eq!(read, [("7", "a", 1), ("8", "b,c", 2)]);
    }

    #[test]
    fn differences_name_both_numbers() {
        let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(key, n)| (key.to_string(), *n)).collect();
        let found = differences(&counts(&[("a", 1), ("b", 2)]), &counts(&[("a", 1), ("b", 3), ("c", 1)]));
        assert_eq!(found, ["b: Some(3) instead of Some(2)", "c: Some(1) instead of None"]);
    }
}
