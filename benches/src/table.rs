//! The tables of a run, as Markdown, and their places in a file.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{Arguments, case::Row, goals, machine};

/// Where the table of a workload is.
fn marks(workload: &str) -> (String, String) {
    (format!("<!-- make bench: {workload}: begin -->\n"), format!("<!-- make bench: {workload}: end -->"))
}

/// The machine, the table of a workload, and what it says about the goals.
pub fn markdown(arguments: &Arguments, rows: &[Row]) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.cells) {
        if !keys.contains(&cell.key) {
            keys.push(cell.key);
        }
    }
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = machine::describe(arguments).join("  \n") + "\n\n";
    text += &line([&["case"], &keys[..]].concat());
    text += &line(vec!["---"; keys.len() + 1]);
    for row in rows {
        let cell = |key: &&str| row.cells.iter().find(|cell| cell.key == *key).map_or("-", |cell| &cell.table);
        text += &line([row.name.as_str()].into_iter().chain(keys.iter().map(cell)).collect());
    }
    let goals = rows.first().map(|row| goals::judge(row.workload(), rows)).unwrap_or_default();
    if goals.is_empty() { text } else { format!("{text}\nGoals:\n\n{goals}") }
}

/// Puts a workload's table between its marks in a file.
pub fn replace(file: &Path, workload: &str, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let text = replaced(&text, workload, table).with_context(|| {
        format!("{} has no place for {workload}: write {} there", file.display(), marks(workload).0)
    })?;
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn replaced(text: &str, workload: &str, table: &str) -> Option<String> {
    let (begin, end) = marks(workload);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_to_its_place_and_leaves_the_others() {
        let text = "a\n<!-- make bench: x: begin -->\nold\n<!-- make bench: x: end -->\nb\n\
                    <!-- make bench: y: begin -->\nkept\n<!-- make bench: y: end -->\n";
        let new = replaced(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(replaced(text, "z", "new\n"), None);
    }

    #[test]
    fn every_workload_has_its_place_in_the_documentation() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let text = std::fs::read_to_string(file).unwrap();
        for case in crate::cases() {
            let name = case.name();
            assert!(replaced(&text, crate::case::workload(&name), "").is_some(), "{name}");
        }
    }
}
