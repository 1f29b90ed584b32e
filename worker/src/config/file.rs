//! The configuration file: flat YAML, `key: value`, as in Flink.

use std::{fmt, path::Path};

use millrace_core::{Error, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A setting as the file has it.
#[derive(Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The key.
    pub key: String,
    /// The value, as it is written.
    pub value: String,
    /// The line, from 1.
    pub line: usize,
}

/// The pairs of a mapping in their order. Values are taken as text, so that `0123` and `1e3` stay what they are.
struct Pairs(Vec<(String, Scalar)>);
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "one value on the key's line (nested settings are written flat, as `state.backend: memory`)",
                )
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_string()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flat;
        impl<'de> Visitor<'de> for Flat {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("lines of the form `key: value`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<Scalar>()? {
                    pairs.push((key.0, map.next_value::<Scalar>()?));
                }
                Ok(Pairs(pairs))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Pairs, E> {
                Ok(Pairs(Vec::new()))
            }
        }
        deserializer.deserialize_any(Flat)
    }
}

/// Reads the text of a configuration file.
pub fn parse(path: &Path, text: &str) -> Result<Vec<FileEntry>> {
    let wrong = |why: String| Error::invalid(format!("configuration file {}: {why}", path.display()));
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let pairs: Pairs = serde_yaml_ng::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut entries: Vec<FileEntry> = Vec::with_capacity(pairs.0.len());
    let mut from = 0;
    for (key, value) in pairs.0 {
        let line = line_of(text, from, &key);
        from = line;
        if let Some(earlier) = entries.iter().find(|entry| entry.key == key) {
            return Err(wrong(format!("{key} is set twice, in line {} and in line {line}", earlier.line)));
        }
        entries.push(FileEntry { key, value: value.0, line });
    }
    Ok(entries)
}

/// The line, from 1, at which a key stands, searched for behind line `from`. Keys come in the order of the text.
fn line_of(text: &str, from: usize, key: &str) -> usize {
    let is_at = |line: &str| {
        let line = line.trim_start_matches(['"', '\'', '{', ' ']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    let found = text.lines().enumerate().skip(from).find(|(_, line)| is_at(line));
    found.map_or(from.max(1), |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<FileEntry>> {
        parse(Path::new("conf.yaml"), text)
    }

    #[test]
    fn values_stay_as_they_are_written() {
        let text =
            "# ours\nrest.port: 8081\n\ns3.secret-key: 0123\n'job.id': 1e3 # not a number\nlog.level: \"a: b\"\n";
        let entries = read(text).unwrap();
        let told: Vec<_> = entries.iter().map(|e| (e.line, e.key.as_str(), e.value.as_str())).collect();
        let meant =
            [(2, "rest.port", "8081"), (4, "s3.secret-key", "0123"), (5, "job.id", "1e3"), (6, "log.level", "a: b")];
        assert_eq!(told, meant);
    }

    #[test]
    fn a_file_of_comments_sets_nothing() {
        assert_eq!(read("# nothing\n\n").unwrap(), []);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_no_flat_yaml_is_refused() {
        for (text, why) in [
            ("state:\n  backend: memory\n", "written flat"),
            ("log.level: [a, b]\n", "one value"),
            ("just words\n", "key: value"),
            ("- a\n- b\n", "key: value"),
            ("a: b: c\n", "line 1"),
            ("rest.port: 1\nrest.port: 2\n", "rest.port is set twice, in line 1 and in line 2"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(why), "{text:?} gave {error}");
            assert!(error.message.starts_with("configuration file conf.yaml: "), "{error}");
        }
    }
}
