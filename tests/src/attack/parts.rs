//! What the part files of a file sink say.

use std::collections::BTreeMap;

use super::{Result, checker::Outputs};

/// Whether readers leave a file alone: some part of its path begins with a dot.
pub fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.'))
}

/// Key and value of each line.
pub fn lines(text: &str) -> Result<Vec<(String, String)>> {
    text.lines().map(split).collect()
}

/// The key comes before the first comma.
pub fn split(line: &str) -> Result<(String, String)> {
    let (key, value) = line
        .split_once(',')
        .ok_or_else(|| format!("the output {line:?} has no key: neither a message key nor one before a comma"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The outputs of part files, which are of the harness's own job: a key's begin with their number.
///
/// A sink promises an order for what one writer has written to one bucket, by the numbers of its files. A key is always
/// with one writer, until another one goes on with it after a restart, and so what writers have of a key follows each
/// other: in the order of their first outputs. Inside of a writer nothing is put in order here.
pub fn outputs(files: &BTreeMap<String, String>) -> Result<Outputs> {
    let mut writers = BTreeMap::<&str, BTreeMap<u64, &String>>::new();
    for (name, text) in files {
        let (writer, number) = writer_and_number(name).ok_or_else(|| format!("{name} is no name of a part file"))?;
        if writers.entry(writer).or_default().insert(number, text).is_some() {
            return Err(format!("two part files have the writer and number of {name}").into());
        }
    }
    let mut runs = BTreeMap::<String, Vec<(u64, Vec<String>)>>::new();
    for texts in writers.into_values() {
        let mut written = Outputs::new();
        for text in texts.into_values() {
            for (key, value) in lines(text)? {
                written.entry(key).or_default().push(value);
            }
        }
        for (key, values) in written {
            runs.entry(key).or_default().push((number_of(&values[0])?, values));
        }
    }
    let in_order = |mut runs: Vec<(u64, Vec<String>)>| {
        runs.sort_by_key(|(first, _)| *first);
        runs.into_iter().flat_map(|(_, values)| values).collect()
    };
    Ok(runs.into_iter().map(|(key, runs)| (key, in_order(runs))).collect())
}

/// Of `bucket/part-<subtask>-<writer>-<number>`.
fn writer_and_number(name: &str) -> Option<(&str, u64)> {
    let file = name.rsplit('/').next()?.strip_prefix("part-")?;
    let (writer, number) = file.rsplit_once('-')?;
    Some((writer, number.parse().ok()?))
}

fn number_of(value: &str) -> Result<u64> {
    let number = value.split(' ').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("the output {value:?} does not begin with a number").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Outputs> {
        let files = files.iter().map(|(name, text)| (format!("k=0/part-{name}"), text.replace(' ', "\n")));
        outputs(&files.collect())
    }

    #[test]
    fn writers_follow_each_other_and_nothing_is_put_in_order_inside_of_one() {
        let right = [("0-x-2", "a,2"), ("0-x-10", "a,3"), ("1-y-0", "a,4 b,2"), ("1-z-0", "a,1 b,1")];
        let a = |files: &[(&str, &str)]| read(files).unwrap()["a"].join(" ");
        // The first two are out of place: another writer's number 1 must have come before.
        assert_eq!(a(&right), "1 2 3 4");
        assert_eq!(a(&[("0-x-0", "a,2"), ("0-x-1", "a,1"), ("0-y-0", "a,3")]), "2 1 3");
        assert_eq!(a(&[("0-x-0", "a,1"), ("0-again-0", "a,1")]), "1 1");
    }

    #[test]
    fn what_is_not_a_part_file_is_refused() {
        for (name, text, why) in [("x", "a,1", "no name"), ("0-x-0", "a", "no key"), ("0-x-0", "a,b", "a number")] {
            let error = read(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(is_hidden(".millrace/x") && is_hidden("k=0/.x.inprogress") && !is_hidden("k=0/part-0-x-1"));
    }
}
