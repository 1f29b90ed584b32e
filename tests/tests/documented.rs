//! What the documentation says that there is, is there.

use std::{fs, path::Path};

/// No cell of the guarantees' tables says something that no test shows.
#[test]
fn each_cell_of_the_guarantees_has_a_test() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/delivery-guarantees.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, list) = page.split_once("## The tests").expect("the list of tests");
    let mut cells = 0;
    for section in ["## Sources and state", "## What happens where"] {
        let (_, section) = page.split_once(section).expect("the section");
        let (section, _) = section.split_once("\n## ").expect("another one follows");
        // Behind the head and the line below it.
        for row in section.lines().filter(|line| line.starts_with('|')).skip(2) {
            for cell in row.trim_matches('|').split('|').skip(1).map(str::trim).filter(|cell| *cell != "–") {
                let numbers: Vec<_> = cell.split('[').skip(1).filter_map(|rest| rest.split_once(']')).collect();
                assert!(!numbers.is_empty(), "no test is named for {cell:?} in {row}");
                for (number, _) in numbers {
                    assert!(list.contains(&format!("\n{number}. ")), "there is no test [{number}]");
                }
                cells += 1;
            }
        }
    }
    assert!(cells > 50, "the tables were read: {cells} cells");
}

/// The guarantees' page names the tests that show what it says.
#[test]
fn each_test_that_the_guarantees_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/delivery-guarantees.md")).expect("the page");
    let (_, list) = page.split_once("## The tests").expect("the list of tests");
    // Every second piece is between two backticks. A test without a file is of the file before it.
    let (mut source, mut tests) = (String::new(), 0);
    for code in list.split('`').skip(1).step_by(2).filter(|code| *code != "::") {
        let (file, test) = match code.split_once("::") {
            Some((file, test)) => (Some(file), Some(test)),
            None if code.ends_with(".rs") => (Some(code), None),
            None => (None, Some(code)),
        };
        if let Some(file) = file {
            source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        if let Some(test) = test {
            assert!(source.contains(&format!("fn {test}(")), "there is no test {code}");
            tests += 1;
        }
    }
    assert!(tests > 30, "the list was read: {tests} tests");
}
